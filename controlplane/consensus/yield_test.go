package consensus_test

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/edgefleet/edgefleet/fleet"
)

func TestALeaderThatIsToRemoveItselfHandsOver(t *testing.T) {
	ms := cluster(t, 2, nil)
	leader, other := ms[0], ms[1]
	apply(t, leader, "before")
	want, err := leader.Servers()
	if err != nil {
		t.Fatal(err)
	}
	if err := leader.Remove(t.Context(), "m1"); !errors.Is(err, fleet.ErrNotLeader) || !errors.Is(err, fleet.ErrUnavailable) {
		t.Fatalf("it says %v", err)
	}
	if next := leaderOf(t, ms...); next != other {
		t.Fatalf("%s leads", next.options.Member)
	}
	for _, m := range ms {
		if got, err := m.Servers(); err != nil || !cmp.Equal(want, got) {
			t.Errorf("%s knows %v, %v: the configuration was changed", m.options.Member, got, err)
		}
	}
	if err := other.Remove(t.Context(), "m1"); err != nil {
		t.Fatal(err)
	}
	leader.crash(t)
	apply(t, other, "after")
}

func TestALeaderThatNobodyCanFollowIsNotRemoved(t *testing.T) {
	ms := cluster(t, 2, nil)
	leader, other := ms[0], ms[1]
	apply(t, leader, "before")
	want, err := leader.Servers()
	if err != nil {
		t.Fatal(err)
	}
	other.crash(t)
	if err := leader.Remove(t.Context(), "m1"); !errors.Is(err, fleet.ErrUnavailable) {
		t.Errorf("it says %v", err)
	}
	// What it refused must not be in its log: after this, no vote could be won with it.
	leader.crash(t)
	leader = start(t, leader.options)
	if got, err := leader.Servers(); err != nil || !cmp.Equal(want, got) {
		t.Errorf("it knows %v, %v: the configuration was changed", got, err)
	}
	other = start(t, other.options)
	apply(t, leaderOf(t, leader, other), "after")
}
