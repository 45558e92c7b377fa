package events_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/edgefleet/edgefleet/controlplane/events"
	"github.com/edgefleet/edgefleet/controlplane/events/storetest"
	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/observability"
)

// peers are the stores of other members; those of away do not answer.
type peers struct {
	stores map[fleet.MemberID]*events.Store

	mu   sync.Mutex
	away map[fleet.MemberID]bool
}

func (p *peers) Others() (ids []fleet.MemberID) {
	for _, id := range []fleet.MemberID{"m1", "m2", "m3"} {
		if p.stores[id] != nil {
			ids = append(ids, id)
		}
	}
	return ids
}

func (p *peers) at(id fleet.MemberID) (*events.Store, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.away[id] {
		return nil, errors.New("it is away")
	}
	return p.stores[id], nil
}

func (p *peers) Held(ctx context.Context, id fleet.MemberID, after events.Held) ([]events.Held, error) {
	s, err := p.at(id)
	if err != nil {
		return nil, err
	}
	return s.Held(ctx, after)
}

func (p *peers) Part(ctx context.Context, id fleet.MemberID, span events.Span) (events.Part, error) {
	s, err := p.at(id)
	if err != nil {
		return events.Part{}, err
	}
	return s.Part(ctx, span)
}

// repairing runs a repair of s until the test ends.
func repairing(t *testing.T, s *events.Store, p events.Peers, tel *observability.Telemetry) {
	t.Helper()
	r, err := events.NewRepair(events.RepairOptions{Store: s, Peers: p, Every: 20 * time.Millisecond, Pause: time.Millisecond, Telemetry: tel})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// stored returns all events, oldest first.
func stored(t *testing.T, s *events.Store) (all []fleet.Event) {
	t.Helper()
	q := events.Query{Limit: events.MaxLimit, Ascending: true}
	for {
		p, err := s.Query(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, p.Events...)
		if q.Cursor = p.Next; q.Cursor == "" {
			return all
		}
	}
}

func TestAMemberThatLostItsStoreUnderLoadGetsTheSameEventsBack(t *testing.T) {
	if testing.Short() {
		t.Skip("real time")
	}
	n := startNATS(t)
	m1, m2 := startMember(t, n, "m1", 3, t.TempDir()), startMember(t, n, "m2", 3, t.TempDir())
	m3 := startMember(t, n, "m3", 3, t.TempDir())
	s, _ := startNode(t, n, t.TempDir(), "b1")
	load := func(count int) {
		for range count {
			s.Append(recent("", "", 0))
		}
	}
	load(1500)
	eventually(t, "the third member has events too", func() bool { return m3.through(t, "n1") > 500 })
	m3.stop()
	if err := m3.store.Close(); err != nil {
		t.Fatal(err)
	}
	load(500)
	eventually(t, "all are released without it", func() bool { return ledger(s).Stored == 2000 })

	// Its disk is new, and its consumer does not deliver again what it had; events go on.
	m3 = startMember(t, n, "m3", 3, t.TempDir())
	repairing(t, m3.store, &peers{stores: map[fleet.MemberID]*events.Store{"m1": m1.store, "m2": m2.store}}, m3.tel)
	load(500)
	eventually(t, "the ledger balances", func() bool { l := ledger(s); return l.Stored == 2500 && l.Detected == 2500 && l.Spooled == 0 })
	eventually(t, "the new store has them all", func() bool { return m3.count(t) == 2500 })
	if diff := cmp.Diff(stored(t, m1.store), stored(t, m3.store)); diff != "" {
		t.Error(diff)
	}
	eventually(t, "nothing is missing", func() bool { return scrape(t, m3.tel, "edgefleet_events_missing") == "0" })
	if got := scrape(t, m3.tel, "edgefleet_events_repaired_total"); got == "" || got == "0" {
		t.Errorf("%q repaired", got)
	}
	if diff := m3.tel.Undeclared(); len(diff) != 0 {
		t.Error(diff)
	}
}

func TestEventsOfSilentBootsComeFromWhoeverHasThem(t *testing.T) {
	now := storetest.Now
	clock := func(o *events.Options) { o.Now = func() time.Time { return now } }
	a, b := openStore(t, t.TempDir(), clock), openStore(t, t.TempDir(), clock)
	var want, atA, atB []fleet.Event
	for seq := uint64(1); seq <= 500; seq++ {
		ev := storetest.Event("n1", "b1", seq, "acme", time.Duration(600-seq)*10*time.Minute)
		want = append(want, ev)
		if seq <= 300 { // each has what the other has not, and they have a hundred both
			atA = append(atA, ev)
		}
		if seq > 200 {
			atB = append(atB, ev)
		}
	}
	put(t, a, atA...)
	put(t, b, atB...)
	if _, err := a.Skip(t.Context(), events.Span{Node: "n1", Boot: "b1", From: 1, To: 500}); err != nil {
		t.Fatal(err)
	}
	now = now.Add(2 * time.Minute) // both fell silent
	tel, p := observability.Discard(), &peers{stores: map[fleet.MemberID]*events.Store{"m1": a, "m2": b}, away: map[fleet.MemberID]bool{"m2": true}}
	fresh := openStore(t, t.TempDir(), clock)
	repairing(t, fresh, p, tel)
	eventually(t, "what the one has is here", func() bool { return len(stored(t, fresh)) == 300 })
	// What others hold does not count for the watermark.
	eventually(t, "the watermark is at the last that is here", func() bool {
		n, err := fresh.Through(t.Context(), "n1", "b1")
		return err == nil && n == 300
	})
	if got := scrape(t, tel, "edgefleet_events_missing"); got == "0" {
		t.Error("nothing is said to be missing while a member is away")
	}
	p.mu.Lock()
	p.away = nil
	p.mu.Unlock()
	eventually(t, "what the other has is here", func() bool { return len(stored(t, fresh)) == 500 })
	if diff := cmp.Diff(want, stored(t, fresh)); diff != "" {
		t.Error(diff)
	}
	eventually(t, "nothing is missing", func() bool { return scrape(t, tel, "edgefleet_events_missing") == "0" })
}

// liar is a member that answers with something else.
type liar struct{ peers }

func (l *liar) Part(ctx context.Context, id fleet.MemberID, span events.Span) (events.Part, error) {
	part, err := l.peers.Part(ctx, id, span)
	for i := range part.Events {
		part.Events[i].Boot = "b2"
		part.Events[i].ID = fleet.NewEventID("n1", "b2", part.Events[i].Seq)
	}
	return part, err
}

func TestEventsThatNobodyAskedForAreNotStored(t *testing.T) {
	now := storetest.Now
	clock := func(o *events.Options) { o.Now = func() time.Time { return now } }
	a, fresh, tel := openStore(t, t.TempDir(), clock), openStore(t, t.TempDir(), clock), observability.Discard()
	put(t, a, storetest.Event("n1", "b1", 1, "acme", 0))
	now = now.Add(2 * time.Minute)
	repairing(t, fresh, &liar{peers{stores: map[fleet.MemberID]*events.Store{"m1": a}}}, tel)
	eventually(t, "it is missing", func() bool { return scrape(t, tel, "edgefleet_events_missing") == "1" })
	if got := stored(t, fresh); len(got) != 0 {
		t.Errorf("stored: %v", got)
	}
	for name, span := range map[string]events.Span{"no node": {Boot: "b1", From: 1, To: 1}, "from 0": {Node: "n1", Boot: "b1", To: 1}, "backwards": {Node: "n1", Boot: "b1", From: 2, To: 1}} {
		if _, err := a.Part(t.Context(), span); !errors.Is(err, fleet.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := events.NewRepair(events.RepairOptions{}); !errors.Is(err, fleet.ErrInvalid) {
		t.Error(fmt.Sprint(err))
	}
}
