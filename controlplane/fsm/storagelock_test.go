package fsm_test

import (
	"testing"
	"time"

	"github.com/edgefleet/edgefleet/controlplane/command"
	"github.com/edgefleet/edgefleet/controlplane/state"
	"github.com/edgefleet/edgefleet/fleet"
)

func TestLocksOfTheStorage(t *testing.T) {
	take := func(name, holder string, lease time.Duration) command.LockTake {
		return command.LockTake{Name: name, Holder: holder, Until: noon.Add(lease)}
	}
	holds := func(name, holder string) func(*testing.T, *state.View) {
		return func(t *testing.T, v *state.View) {
			t.Helper()
			if l, ok := v.StorageLock(name); ok != (holder != "") || l.Holder != holder {
				t.Errorf("held by %q, want %q", l.Holder, holder)
			}
		}
	}
	held := []command.Body{take("a", "x", time.Minute)}
	run(t, []testCase{
		{name: "a free lock", when: take("a", "x", time.Minute), entries: -1, then: holds("a", "x")},
		{name: "another lock", given: held, when: take("b", "y", time.Minute), entries: -1, then: holds("a", "x")},
		{name: "a longer lease for its holder", given: held, when: take("a", "x", 2*time.Minute), entries: -1, then: holds("a", "x")},
		{name: "not one that is held", given: held, when: take("a", "y", time.Minute), refused: fleet.ErrConflict, says: "lock a is held until", unsaid: "x", then: holds("a", "x")},
		{name: "given back", given: held, when: command.LockRelease{Name: "a", Holder: "x"}, entries: -1, then: holds("a", "")},
		{name: "not by somebody else", given: held, when: command.LockRelease{Name: "a", Holder: "y"}, refused: fleet.ErrConflict, says: "lock a was lost", then: holds("a", "x")},
		{name: "not for ever", when: take("a", "x", fleet.MaxLockLease+1), refused: fleet.ErrInvalid, says: "at most 10m0s"},
		{name: "not for no time", when: take("a", "x", 0), refused: fleet.ErrInvalid, says: "a lease of 0s"},
		{name: "not without a holder", when: take("a", "", time.Minute), refused: fleet.ErrInvalid, says: "1 to 512 bytes"},
	})
}

func TestALockWhoseLeaseIsOverIsFree(t *testing.T) {
	w := city(t).must(t, command.LockTake{Name: "a", Holder: "x", Until: noon.Add(time.Minute)}, command.LockTake{Name: "b", Holder: "x", Until: noon.Add(time.Minute)})
	w.now = noon.Add(time.Minute)
	w.must(t, command.LockTake{Name: "a", Holder: "y", Until: noon.Add(2 * time.Minute)})
	if l := w.state.Read().StorageLocks(); len(l) != 1 || l[0].Holder != "y" {
		t.Errorf("%+v", l)
	}
}
