package spool_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/edgefleet/edgefleet/edgenode/spool"
	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/observability"
)

var start = time.Date(2026, 11, 5, 12, 0, 0, 0, time.UTC)

func event(tenant fleet.TenantID) fleet.Event {
	return fleet.Event{
		Time: start, Tenant: tenant, Host: "api.example.com", Type: fleet.AttackSQLi, Status: fleet.Blocked, Mode: fleet.Mode("block"),
		Rules:  []fleet.MatchedRule{{ID: "942100", Message: "SQL Injection Attack Detected via libinjection", Severity: "critical"}},
		Method: "GET", Path: "/login", Payloads: []string{"1' OR '1'='1"}, ClientIP: "192.0.2.7", ResponseStatus: 403,
	}
}

// bus is JetStream as the spool sees it.
type bus struct {
	mu       sync.Mutex
	down     bool
	received map[fleet.EventID]int
	messages []fleet.EventMessage
	// onMessage runs after each message, outside the mutex.
	onMessage func(fleet.EventMessage)
}

var errDown = errors.New("no connection")

func (b *bus) Publish(_ context.Context, id fleet.EventID, payload []byte) error {
	var m fleet.EventMessage
	if err := fleet.DecodeStrict(payload, &m); err != nil {
		panic(err)
	}
	if err := m.Event.Validate(); err != nil || m.Event.ID != id {
		panic(fmt.Sprint(id, err))
	}
	b.mu.Lock()
	if b.down {
		b.mu.Unlock()
		return errDown
	}
	if b.received == nil {
		b.received = map[fleet.EventID]int{}
	}
	b.received[id]++
	b.messages = append(b.messages, m)
	b.mu.Unlock()
	if b.onMessage != nil {
		b.onMessage(m)
	}
	return nil
}

func (b *bus) set(down bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.down = down
}

// ids returns what arrived, sorted.
func (b *bus) ids() []fleet.EventID {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Sorted(maps.Keys(b.received))
}

func (b *bus) total() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.messages)
}

func open(t *testing.T, dir, boot string, change ...func(*spool.Options)) *spool.Spool {
	t.Helper()
	return openOn(t, dir, boot, &spool.Disk{}, change...)
}

func openOn(t *testing.T, dir, boot string, d *spool.Disk, change ...func(*spool.Options)) *spool.Spool {
	t.Helper()
	o := spool.Options{Dir: dir, Node: "n1", Boot: boot}
	for _, c := range change {
		c(&o)
	}
	s, err := spool.OpenOn(o, d)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// run runs s until the returned function is called.
func run(t *testing.T, s *spool.Spool, p spool.Publisher) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx, p) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	return stop
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.NewTimer(20 * time.Second)
	defer deadline.Stop()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-deadline.C:
			t.Fatalf("not within 20 s: %s", what)
		case <-tick.C:
		}
	}
}

// account returns the ledger of one tenant, after checking that all of it balances.
func account(t *testing.T, s *spool.Spool, tenant fleet.TenantID) spool.Ledger {
	t.Helper()
	var found spool.Ledger
	for _, l := range s.Ledger() {
		sum := l.Stored + l.Spooled
		for _, n := range l.Dropped {
			sum += n
		}
		if sum != l.Detected {
			t.Fatalf("the ledger does not balance: %+v", l)
		}
		if l.Tenant == tenant {
			found = l
		}
	}
	return found
}

func ack(s *spool.Spool, member fleet.MemberID, voters int, boot string, through uint64) {
	s.Ack(fleet.EventAck{Member: member, Voters: voters, Boot: boot, Through: through})
}

func TestAnEventLeavesTheSpoolWhenAMajorityHoldsIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		s := open(t, dir, "b1")
		p := &bus{}
		stop := run(t, s, p)
		for range 10 {
			s.Append(event("acme"))
		}
		synctest.Wait()
		if p.total() != 10 {
			t.Fatalf("%d messages", p.total())
		}
		for name, step := range map[string]struct {
			member  fleet.MemberID
			voters  int
			boot    string
			through uint64
		}{
			"one of three":        {"m1", 3, "b1", 10},
			"the same one again":  {"m1", 3, "b1", 10},
			"of no voters":        {"m2", 0, "b1", 10},
			"of another boot":     {"m2", 3, "b2", 10},
			"of a nameless one":   {"", 3, "b1", 10},
			"of one that is late": {"m3", 3, "b1", 0},
		} {
			ack(s, step.member, step.voters, step.boot, step.through)
			if got := account(t, s, "acme"); got.Stored != 0 {
				t.Errorf("released by an acknowledgement %s: %+v", name, got)
			}
		}
		ack(s, "m2", 3, "b1", 7)
		want := spool.Ledger{Tenant: "acme", Detected: 10, Stored: 7, Spooled: 3, Dropped: map[spool.Reason]uint64{}}
		if diff := cmp.Diff(want, account(t, s, "acme")); diff != "" {
			t.Error(diff)
		}
		ack(s, "m2", 3, "b1", 3) // a watermark never goes back
		ack(s, "m2", 3, "b1", 1<<40)
		if got := account(t, s, "acme"); got.Stored != 10 || got.Spooled != 0 {
			t.Errorf("%+v", got)
		}
		stop()
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if left, _ := filepath.Glob(filepath.Join(dir, "b*")); len(left) != 0 {
			t.Errorf("an empty spool stays on disk: %v", left)
		}
	})
}

func TestVotersAreTheMostThatAnyMemberCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, t.TempDir(), "b1")
		stop := run(t, s, &bus{})
		defer stop()
		s.Append(event("acme"))
		synctest.Wait()
		ack(s, "m1", 5, "b1", 1)
		ack(s, "m2", 3, "b1", 1) // 2 of 3, but 2 of 5
		if got := account(t, s, "acme"); got.Stored != 0 {
			t.Errorf("released by 2 of 5: %+v", got)
		}
		ack(s, "m3", 3, "b1", 1)
		if got := account(t, s, "acme"); got.Stored != 1 {
			t.Errorf("not released by 3 of 5: %+v", got)
		}
	})
}

func TestWhatIsNotReleasedIsSentAgainEverMoreSlowly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, t.TempDir(), "b1", func(o *spool.Options) { o.ResendAfter = 10 * time.Second })
		p := &bus{}
		stop := run(t, s, p)
		defer stop()
		s.Append(event("acme"))
		s.Append(event("acme"))
		for _, step := range []struct {
			wait  time.Duration
			total int
		}{{9 * time.Second, 2}, {2 * time.Second, 4}, {10 * time.Second, 6}, {15 * time.Second, 6}, {6 * time.Second, 8}} {
			time.Sleep(step.wait)
			synctest.Wait()
			if p.total() != step.total {
				t.Fatalf("after another %s: %d messages, want %d", step.wait, p.total(), step.total)
			}
		}
		ack(s, "m1", 1, "b1", 1)
		time.Sleep(11 * time.Second)
		synctest.Wait()
		last := p.messages[len(p.messages)-1]
		if p.total() != 9 || last.Event.Seq != 2 || last.Released != 1 {
			t.Errorf("%d messages, the last %d with watermark %d", p.total(), last.Event.Seq, last.Released)
		}
	})
}

func TestEventsWaitWhileThePublisherIsAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, t.TempDir(), "b1")
		p := &bus{down: true}
		stop := run(t, s, p)
		defer stop()
		for range 1000 {
			s.Append(event("acme"))
		}
		time.Sleep(5 * time.Minute)
		if got := account(t, s, "acme"); got.Spooled != 1000 {
			t.Fatalf("%+v", got)
		}
		p.set(false)
		time.Sleep(11 * time.Second)
		synctest.Wait()
		if n := len(p.ids()); n != 1000 {
			t.Errorf("%d events arrived", n)
		}
	})
}

func TestAWorkerDrainsWhatEarlierOnesLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		var want []fleet.EventID
		for _, boot := range []string{"b1", "b2"} {
			s := open(t, dir, boot)
			stop := run(t, s, &bus{down: true})
			for i := range 3 {
				s.Append(event("acme"))
				want = append(want, fleet.NewEventID("n1", boot, uint64(i+1)))
			}
			synctest.Wait()
			stop()
			s.Crash()
		}
		s := open(t, dir, "b3")
		p := &bus{}
		if got := account(t, s, "acme"); got.Spooled != 6 {
			t.Fatalf("%+v", got)
		}
		stop := run(t, s, p)
		synctest.Wait()
		if diff := cmp.Diff(want, p.ids()); diff != "" {
			t.Error(diff)
		}
		ack(s, "m1", 1, "b1", 3)
		ack(s, "m1", 1, "b2", 3)
		stop()
		if got := account(t, s, "acme"); got.Stored != 6 {
			t.Errorf("%+v", got)
		}
		if left, _ := filepath.Glob(filepath.Join(dir, "b[12]")); len(left) != 0 {
			t.Errorf("drained directories stay: %v", left)
		}
	})
}

func TestALiveWorkersDirectoryIsLeftAloneUntilItEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		older := open(t, dir, "b1")
		stopOlder := run(t, older, &bus{down: true})
		older.Append(event("acme"))
		synctest.Wait()
		newer := open(t, dir, "b2")
		p := &bus{}
		stop := run(t, newer, p)
		defer stop()
		time.Sleep(time.Minute)
		if got := account(t, newer, "acme"); got.Detected != 0 || p.total() != 0 {
			t.Fatalf("took a live worker's events: %+v", got)
		}
		older.Append(event("acme"))
		stopOlder()
		if err := older.Close(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(6 * time.Second)
		synctest.Wait()
		if diff := cmp.Diff([]fleet.EventID{"n1:b1:1", "n1:b1:2"}, p.ids()); diff != "" {
			t.Error(diff)
		}
	})
}

func TestAUsedBootGetsASuffix(t *testing.T) {
	dir := t.TempDir()
	long := strings.Repeat("b", 63)
	for _, tc := range []struct{ ask, want string }{
		{"b1", "b1"}, {"b1", "b1-2"}, {"b1", "b1-3"}, {long, long}, {long, long[:61] + "-2"},
	} {
		if got := open(t, dir, tc.ask).Boot(); got != tc.want {
			t.Errorf("asked for %s: got %s, want %s", tc.ask, got, tc.want)
		}
	}
}

func TestReleasedEventsAreNotSentAgainAfterARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		s := open(t, dir, "b1")
		stop := run(t, s, &bus{})
		for range 100 {
			s.Append(event("acme"))
		}
		synctest.Wait()
		ack(s, "m1", 1, "b1", 60)
		time.Sleep(2 * time.Second)
		stop()
		s.Crash()
		if got := account(t, open(t, dir, "b2"), "acme"); got.Spooled != 40 {
			t.Errorf("%+v", got)
		}
	})
}

func TestReleasedSegmentsAreDeleted(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, "b1")
	run(t, s, &bus{})
	ev := event("acme")
	ev.Payloads = []string{strings.Repeat("x", fleet.MaxPayloadBytes)}
	const n = 3000 // about 13 MiB
	for i := range uint64(n) {
		s.Append(ev)
		eventually(t, "the queue has room", func() bool { return account(t, s, "acme").Detected+2000 > i })
	}
	eventually(t, "all are spooled", func() bool { return account(t, s, "acme").Spooled == n })
	segments := func() int {
		names, _ := filepath.Glob(filepath.Join(dir, "b1", "*.seg"))
		return len(names)
	}
	if segments() < 3 {
		t.Fatalf("%d segments", segments())
	}
	ack(s, "m1", 1, "b1", n)
	if segments() != 1 {
		t.Errorf("%d segments after all was released", segments())
	}
}

func TestAFullSpoolDropsAndTakesAgainWhenReleased(t *testing.T) {
	s := open(t, t.TempDir(), "b1", func(o *spool.Options) { o.MaxBytes = 5 << 20 })
	run(t, s, &bus{})
	ev := event("acme")
	ev.Payloads = []string{strings.Repeat("x", fleet.MaxPayloadBytes)}
	fill := func(n uint64) spool.Ledger {
		before := account(t, s, "acme").Detected
		for range n {
			s.Append(ev)
		}
		eventually(t, "all have a fate", func() bool { return account(t, s, "acme").Detected == before+n })
		return account(t, s, "acme")
	}
	full := fill(2000)
	if full.Dropped[spool.DropFull] == 0 || full.Spooled+full.Dropped[spool.DropFull] != 2000 {
		t.Fatalf("%+v", full)
	}
	ack(s, "m1", 1, "b1", full.Spooled)
	if after := fill(500); after.Spooled != 500 {
		t.Errorf("%+v", after)
	}
}

func TestWhatCannotBeKeptIsCountedByReason(t *testing.T) {
	tel := observability.Discard()
	s := open(t, t.TempDir(), "b1", func(o *spool.Options) { o.Telemetry = tel })
	for range 5000 { // nobody takes from the queue yet
		s.Append(event("acme"))
	}
	if got := account(t, s, "acme").Dropped[spool.DropQueue]; got != 5000-4096 {
		t.Errorf("%d dropped for the queue", got)
	}
	stop := run(t, s, &bus{})
	eventually(t, "the queue is written", func() bool { return account(t, s, "acme").Spooled == 4096 })
	bad := event("Not A Tenant")
	s.Append(bad)
	late := event("acme")
	late.Time = time.Time{}
	s.Append(late)
	stop()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s.Append(event("acme"))
	if got := account(t, s, ""); got.Dropped[spool.DropInvalid] != 1 {
		t.Errorf("%+v", got)
	}
	want := map[spool.Reason]uint64{spool.DropQueue: 904, spool.DropInvalid: 1, spool.DropClosed: 1}
	if diff := cmp.Diff(want, account(t, s, "acme").Dropped); diff != "" {
		t.Error(diff)
	}
	if diff := tel.Undeclared(); len(diff) != 0 {
		t.Error(diff)
	}
}

func TestOptionsAreRefusedWithTheField(t *testing.T) {
	good := spool.Options{Dir: t.TempDir(), Node: "n1", Boot: "b1"}
	for field, change := range map[string]func(*spool.Options){
		"dir":          func(o *spool.Options) { o.Dir = "" },
		"node":         func(o *spool.Options) { o.Node = "N 1" },
		"boot":         func(o *spool.Options) { o.Boot = "../b1" },
		"max_bytes":    func(o *spool.Options) { o.MaxBytes = 10 },
		"resend_after": func(o *spool.Options) { o.ResendAfter = -1 },
	} {
		o := good
		change(&o)
		if _, err := spool.Open(o); fleet.AsError(err) == nil || fleet.AsError(err).Field != field {
			t.Errorf("%s: %v", field, err)
		}
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	good.Dir = file
	if _, err := spool.Open(good); err == nil {
		t.Error("a file was opened as a spool directory")
	}
}
