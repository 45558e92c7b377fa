package storetest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/edgefleet/edgefleet/controlplane/events"
	"github.com/edgefleet/edgefleet/fleet"
)

// hits are those of three parameters over three days, some of them over midnight.
func hits() (evs []fleet.Event) {
	seq := uint64(0)
	add := func(parameter string, ages ...time.Duration) {
		for _, age := range ages {
			seq++
			ev := Event("n1", "b1", seq, "acme", age)
			ev.Parameter = parameter
			if seq%2 == 0 {
				ev.Status = fleet.Monitored
			}
			evs = append(evs, ev)
		}
	}
	var series []time.Duration
	for i := range 60 { // every 50 minutes for 50 hours: one attack over three midnights
		series = append(series, time.Duration(i)*50*time.Minute)
	}
	add("q", series...)
	add("id", 0, time.Minute, 2*time.Hour, 2*time.Hour+fleet.AttackGap, 3*time.Hour+fleet.AttackGap+1) // three attacks
	add("", 30*time.Hour)
	return evs
}

func attacks(t *testing.T, s Store, q events.AttackQuery) (all []fleet.Attack) {
	t.Helper()
	q.Tenant = "acme"
	for range 100 {
		p, err := s.Attacks(t.Context(), q)
		must(t, err)
		if all = append(all, p.Attacks...); p.Next == "" {
			return all
		}
		q.Cursor = p.Next
	}
	t.Fatal("the pages do not end")
	return nil
}

func testAttacks(t *testing.T, open Open) {
	var want []fleet.Attack
	for seed := range uint64(4) {
		s := closing(t, open(t, t.TempDir()))
		evs := hits()
		r := rand.New(rand.NewPCG(seed, seed))
		r.Shuffle(len(evs), func(i, j int) { evs[i], evs[j] = evs[j], evs[i] })
		for len(evs) > 0 { // in batches of any size, some of them twice
			n := min(len(evs), 1+r.IntN(20))
			must(t, s.Put(t.Context(), evs[:n]))
			must(t, s.Put(t.Context(), evs[:r.IntN(n)]))
			evs = evs[n:]
		}
		got := attacks(t, s, events.AttackQuery{Limit: int(seed) + 1})
		if seed == 0 {
			want = got
			checkAttacks(t, got)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("in another order: %s", diff)
		}
		checkHits(t, s, got)
	}
}

func checkAttacks(t *testing.T, got []fleet.Attack) {
	t.Helper()
	var said []string
	for _, a := range got {
		said = append(said, fmt.Sprintf("%s %d %d %s", a.Parameter, a.Hits, a.Blocked, a.Last.Sub(a.First)))
	}
	// Newest last hit first; those of the same moment by their group.
	want := map[string]bool{"q 60 30 49h10m0s": true, "id 2 1 1m0s": true, "id 2 1 1h0m0s": true, "id 1 1 0s": true, " 1 0 0s": true}
	if len(said) != len(want) {
		t.Fatalf("%q", said)
	}
	for i, line := range said {
		if !want[line] {
			t.Errorf("%q is not an attack that was made", line)
		}
		if i > 0 && got[i].Last.After(got[i-1].Last) {
			t.Errorf("%q is out of order", line)
		}
	}
}

// checkHits looks the attacks up, and the hits of each.
func checkHits(t *testing.T, s Store, all []fleet.Attack) {
	t.Helper()
	for _, a := range all {
		got, err := s.Attack(t.Context(), "acme", a.ID)
		if diff := cmp.Diff(a, got); err != nil || diff != "" {
			t.Errorf("%s: %v %s", a.ID, err, diff)
		}
		group, _, err := fleet.ParseAttackID(a.ID)
		must(t, err)
		later, err := s.Attack(t.Context(), "acme", fleet.NewAttackID(group, a.Last))
		if err != nil || later.ID != a.ID {
			t.Errorf("%s by its last hit: %v, %v", a.ID, later.ID, err)
		}
		page, err := s.Query(t.Context(), events.Query{Tenant: "acme", Attack: a.ID, Limit: 100})
		if err != nil || len(page.Events) != int(a.Hits) {
			t.Errorf("%s has %d events, %v", a.ID, len(page.Events), err)
		}
		if _, err := s.Attack(t.Context(), "globex", a.ID); !errors.Is(err, fleet.ErrNotFound) {
			t.Errorf("another tenant's attack: %v", err)
		}
	}
	for name, q := range map[string]events.AttackQuery{"cursor": {Tenant: "acme", Cursor: "x"}, "limit": {Tenant: "acme", Limit: 101}, "tenant": {}} {
		if _, err := s.Attacks(t.Context(), q); !errors.Is(err, fleet.ErrInvalid) || fleet.AsError(err).Field != name {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := s.Attack(t.Context(), "acme", "nonsense"); !errors.Is(err, fleet.ErrNotFound) {
		t.Errorf("an id that is none: %v", err)
	}
	if got := attacks(t, s, events.AttackQuery{Type: "xss"}); len(got) != 0 {
		t.Errorf("of another type: %v", got)
	}
}
