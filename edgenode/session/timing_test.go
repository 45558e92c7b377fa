package session_test

import (
	"context"
	"encoding/json"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/edgefleet/edgefleet/edgenode/config"
	"github.com/edgefleet/edgefleet/edgenode/session"
	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/observability"
)

const (
	node    fleet.NodeID    = "edge-1"
	group   fleet.GroupName = "default"
	cluster fleet.ClusterID = "c1"
)

// fakeBus is a bus without a network, for time that is not real.
type fakeBus struct {
	mu       sync.Mutex
	handlers session.Handlers
	ready    chan struct{}
	away     bool
	answer   fleet.HeadSet
	polls    []time.Time
	beats    []fleet.Report
	servers  []string
}

func newFakeBus() *fakeBus { return &fakeBus{ready: make(chan struct{})} }

func (b *fakeBus) Run(ctx context.Context, h session.Handlers) error {
	b.handlers = h
	close(b.ready)
	<-ctx.Done()
	return nil
}

func (b *fakeBus) SetServers(s []string) { b.servers = s }

func (b *fakeBus) Request(_ context.Context, subject string, body []byte) (session.Reply, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if subject != node.PollSubject() {
		return session.Reply{}, errors.New("unexpected subject " + subject)
	}
	b.polls = append(b.polls, time.Now())
	if b.away {
		return session.Reply{}, errors.New("away")
	}
	var r fleet.Report
	if err := fleet.DecodeStrict(body, &r); err != nil || r.Node != node {
		return session.Reply{}, errors.New("not a report")
	}
	data, err := json.Marshal(b.answer)
	return session.Reply{Data: data}, err
}

func (b *fakeBus) Publish(subject string, body []byte) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.away {
		return errors.New("away")
	}
	var r fleet.Report
	if err := json.Unmarshal(body, &r); err != nil || subject != node.ReportSubject() {
		return errors.New("not a report")
	}
	b.beats = append(b.beats, r)
	return nil
}

func (b *fakeBus) PublishEvent(context.Context, string, string, []byte) error { return nil }

func (b *fakeBus) seen() (polls []time.Time, beats []fleet.Report) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.polls, b.beats
}

// fakeStore answers heads as told.
type fakeStore struct {
	// busy is how long a head takes.
	busy time.Duration

	mu      sync.Mutex
	pending bool
	applied int
	// sizes are how many heads the sets had that were offered.
	sizes   []int
	reports []fleet.HeadReport
}

func (s *fakeStore) Apply(_ context.Context, set fleet.HeadSet, _ config.Fetch) []fleet.HeadReport {
	time.Sleep(s.busy)
	s.mu.Lock()
	s.sizes = append(s.sizes, len(set.Heads))
	defer s.mu.Unlock()
	if s.pending {
		return nil
	}
	s.applied++
	s.reports = []fleet.HeadReport{{Kind: fleet.HeadConfig, Version: fleet.Version{Incarnation: 1, Generation: uint64(len(set.Heads))}}}
	return make([]fleet.HeadReport, len(set.Heads))
}

func (s *fakeStore) Reports() []fleet.HeadReport {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.reports
}

// inBubble runs a session on a fake bus in a bubble of false time.
func inBubble(t *testing.T, change func(*session.Options), test func(t *testing.T, s *session.Session, b *fakeBus, st *fakeStore)) {
	t.Helper()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		bus, store := newFakeBus(), &fakeStore{}
		o := session.Options{Node: node, Group: group, Cluster: cluster, Boot: "b1", Dir: dir, Store: store, Telemetry: observability.Discard(), Bus: bus}
		if change != nil {
			change(&o)
		}
		s, err := session.New(o)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- s.Run(ctx) }()
		<-bus.ready
		synctest.Wait()
		test(t, s, bus, store)
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestPollsAreSpreadAroundTheInterval(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, _ *session.Session, b *fakeBus, _ *fakeStore) {
		time.Sleep(time.Hour)
		polls, _ := b.seen()
		if len(polls) < 100 || len(polls) > 140 {
			t.Errorf("%d polls in an hour, want about 120", len(polls))
		}
		distinct := map[time.Duration]bool{}
		for i := 1; i < len(polls); i++ {
			gap := polls[i].Sub(polls[i-1])
			distinct[gap] = true
			if gap < 22*time.Second || gap > 38*time.Second {
				t.Errorf("polls %s apart", gap)
			}
		}
		if len(distinct) < 10 {
			t.Errorf("%d different gaps: the polls are not jittered", len(distinct))
		}
	})
}

func TestAConnectPollsAndReportsAtOnce(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, _ *session.Session, b *fakeBus, _ *fakeStore) {
		time.Sleep(time.Second)
		pollsBefore, beatsBefore := b.seen()
		b.handlers.Connected(true)
		synctest.Wait()
		polls, beats := b.seen()
		if len(polls) != len(pollsBefore)+1 || len(beats) != len(beatsBefore)+1 {
			t.Errorf("%d polls and %d reports at once", len(polls)-len(pollsBefore), len(beats)-len(beatsBefore))
		}
	})
}

func TestReportsComeAtTheIntervalAndAtOnceAfterAnApply(t *testing.T) {
	change := func(o *session.Options) { o.HeartbeatInterval, o.PollInterval = 5*time.Second, 10*time.Minute }
	inBubble(t, change, func(t *testing.T, _ *session.Session, b *fakeBus, _ *fakeStore) {
		time.Sleep(time.Minute + time.Second)
		_, beats := b.seen()
		if len(beats) < 12 || len(beats) > 13 { // the first apply reports once more
			t.Errorf("%d reports in a minute", len(beats))
		}
		body, err := json.Marshal(fleet.HeadSet{Heads: make([]fleet.SignedHead, 7)})
		if err != nil {
			t.Fatal(err)
		}
		b.handlers.Message(group.HeadSubject(), body)
		synctest.Wait()
		_, after := b.seen()
		if len(after) != len(beats)+1 || after[len(after)-1].Heads[0].Version.Generation != 7 {
			t.Errorf("reports after an apply: %+v", after[len(beats):])
		}
	})
}

func TestAHeadThatCannotBeLoadedYetIsAskedForSoonAndThenLessOften(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, _ *session.Session, b *fakeBus, st *fakeStore) {
		b.mu.Lock()
		b.answer = fleet.HeadSet{Heads: make([]fleet.SignedHead, 1)}
		b.mu.Unlock()
		st.mu.Lock()
		st.pending = true
		st.mu.Unlock()
		b.handlers.Connected(true)
		synctest.Wait()
		start, _ := b.seen()
		time.Sleep(30 * time.Second)
		soon, _ := b.seen()
		if n := len(soon) - len(start); n < 4 || n > 6 { // after about 1, 2, 4, 8 and 16 seconds
			t.Errorf("%d retries in 30 s", n)
		}
		st.mu.Lock()
		st.pending = false
		st.mu.Unlock()
		time.Sleep(40 * time.Second)
		synctest.Wait()
		settled, _ := b.seen()
		time.Sleep(20 * time.Second)
		if again, _ := b.seen(); len(again)-len(settled) > 1 {
			t.Errorf("%d polls in 20 s although everything is applied", len(again)-len(settled))
		}
	})
}

func TestAPollThatIsToBringWhatIsMissingIsNotPutOffByMoreHeads(t *testing.T) {
	change := func(o *session.Options) { o.PollInterval = 10 * time.Minute }
	inBubble(t, change, func(t *testing.T, _ *session.Session, b *fakeBus, st *fakeStore) {
		time.Sleep(time.Second) // the first poll is over
		st.mu.Lock()
		st.pending = true
		st.mu.Unlock()
		before, _ := b.seen()
		body, err := json.Marshal(fleet.HeadSet{Heads: make([]fleet.SignedHead, 1)})
		if err != nil {
			t.Fatal(err)
		}
		for range 20 {
			b.handlers.Message(group.HeadSubject(), body)
			time.Sleep(300 * time.Millisecond)
		}
		synctest.Wait()
		if after, _ := b.seen(); len(after)-len(before) < 2 || after[len(before)].Sub(before[len(before)-1]) > 3*time.Second {
			t.Errorf("%d polls in 6 s", len(after)-len(before))
		}
	})
}

func TestOfHeadsThatComeFasterThanTheyAreAppliedTheNewestIsNext(t *testing.T) {
	change := func(o *session.Options) { o.PollInterval = 10 * time.Minute }
	inBubble(t, change, func(t *testing.T, _ *session.Session, b *fakeBus, st *fakeStore) {
		send := func(subject string, heads int) {
			body, err := json.Marshal(fleet.HeadSet{Heads: make([]fleet.SignedHead, heads)})
			if err != nil {
				t.Fatal(err)
			}
			b.handlers.Message(subject, body)
		}
		time.Sleep(time.Second) // the first poll is over
		st.mu.Lock()
		st.busy, st.sizes = time.Second, nil
		st.mu.Unlock()
		for n := 1; n <= 100; n++ {
			send(group.HeadSubject(), n)
			synctest.Wait() // the first is taken alone
			if n == 1 || n == 50 {
				send(node.HeadSubject(), 1000+n)
			}
			synctest.Wait()
		}
		time.Sleep(10 * time.Second)
		st.mu.Lock()
		defer st.mu.Unlock()
		if d := cmp.Diff([]int{1, 100, 1050}, st.sizes); d != "" {
			t.Error(d)
		}
	})
}

func TestWithEveryMemberAwayTheSessionKeepsAsking(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, _ *session.Session, b *fakeBus, st *fakeStore) {
		b.mu.Lock()
		b.away = true
		b.mu.Unlock()
		before, _ := b.seen()
		time.Sleep(24 * time.Hour)
		polls, _ := b.seen()
		if n := len(polls) - len(before); n < 2300 || n > 3900 {
			t.Errorf("%d polls in a day", n)
		}
		b.mu.Lock()
		b.away = false
		b.answer = fleet.HeadSet{Heads: make([]fleet.SignedHead, 1)}
		b.mu.Unlock()
		time.Sleep(time.Minute)
		synctest.Wait()
		if st.applied < 2 {
			t.Error("nothing was applied when the members came back")
		}
	})
}

func TestMalformedMessagesAreIgnored(t *testing.T) {
	inBubble(t, func(o *session.Options) { o.OnAck = func(fleet.EventAck) { t.Error("an acknowledgement") } },
		func(t *testing.T, _ *session.Session, b *fakeBus, st *fakeStore) {
			applied := st.applied
			for _, body := range []string{"", "{", "[]", `"x"`, "\x00"} {
				b.handlers.Message(node.HeadSubject(), []byte(body))
				b.handlers.Message(node.AckSubject(), []byte(body))
			}
			synctest.Wait()
			if st.applied != applied {
				t.Error("a malformed message was applied")
			}
		})
}

func TestManyCountersAreSpreadOverReports(t *testing.T) {
	all := make([]fleet.TenantCounters, 2500)
	for i := range all {
		all[i].Requests = uint64(i)
	}
	inBubble(t, func(o *session.Options) { o.Counters = func() []fleet.TenantCounters { return all } },
		func(t *testing.T, _ *session.Session, b *fakeBus, _ *fakeStore) {
			time.Sleep(time.Minute)
			_, beats := b.seen()
			seen := map[uint64]bool{}
			for _, r := range beats {
				if len(r.Counters) != 1000 {
					t.Fatalf("%d counters in a report", len(r.Counters))
				}
				for _, c := range r.Counters {
					seen[c.Requests] = true
				}
			}
			if len(seen) != len(all) {
				t.Errorf("%d of %d tenants reported", len(seen), len(all))
			}
		})
}

func TestLearnedMembersAreUsedAfterARestart(t *testing.T) {
	dir := t.TempDir()
	learned := []fleet.Endpoints{{Member: "m1", API: "https://cp1.example.net:8443", NATS: "tls://cp1.example.net:4222"}, {Member: "bad", API: "x", NATS: "/etc"}}
	start := func(o *session.Options) {
		o.Dir = dir
		o.Members = []fleet.Endpoints{{Member: "m0", API: "cp0.example.net:8443", NATS: "cp0.example.net:4222"}}
	}
	inBubble(t, start, func(t *testing.T, _ *session.Session, b *fakeBus, _ *fakeStore) {
		if len(b.servers) != 1 || b.servers[0] != "cp0.example.net:4222" {
			t.Errorf("servers %v", b.servers)
		}
		body, err := json.Marshal(fleet.HeadSet{Members: learned})
		if err != nil {
			t.Fatal(err)
		}
		b.handlers.Message(node.HeadSubject(), body)
		synctest.Wait()
		if len(b.servers) != 1 || b.servers[0] != "cp1.example.net:4222" {
			t.Errorf("servers %v", b.servers)
		}
	})
	inBubble(t, start, func(t *testing.T, _ *session.Session, b *fakeBus, _ *fakeStore) {
		if len(b.servers) != 1 || b.servers[0] != "cp1.example.net:4222" {
			t.Errorf("servers after a restart: %v", b.servers)
		}
	})
}
