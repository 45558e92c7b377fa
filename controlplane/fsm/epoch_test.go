package fsm_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/edgefleet/edgefleet/controlplane/command"
	"github.com/edgefleet/edgefleet/controlplane/state"
	"github.com/edgefleet/edgefleet/fleet"
)

func TestEpochsOfGroupKeys(t *testing.T) {
	next := func(from uint64, cause fleet.EpochCause, n fleet.NodeID) command.GroupRekey {
		return command.GroupRekey{Group: "default", From: from, Cause: cause, Node: n}
	}
	is := func(number uint64, cause fleet.EpochCause, n fleet.NodeID, rekeyed bool) func(*testing.T, *state.View) {
		return func(t *testing.T, v *state.View) {
			t.Helper()
			e := v.Epoch("default")
			got, want := []any{e.Number, e.Cause, e.Node, e.RekeyedBefore > 0}, []any{number, cause, n, rekeyed}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Error(diff)
			}
			if c, _ := v.Certificate("a.example.com"); e.Rekeys(c.Certificate) != rekeyed {
				t.Errorf("the certificate is to be renewed: %v", !rekeyed)
			}
		}
	}
	rekey := with(next(1, fleet.EpochRekey, ""), func(b *command.GroupRekey) { b.Certificates = true })
	revoked := []command.Body{command.NodeRevoke{ID: "n1"}}
	run(t, []testCase{
		{name: "a day is over", when: next(1, fleet.EpochDaily, ""), object: "group/default/keys", then: is(2, fleet.EpochDaily, "", false)},
		{name: "and another", given: []command.Body{next(1, fleet.EpochDaily, "")}, when: next(2, fleet.EpochDaily, ""), object: "group/default/keys", then: is(3, fleet.EpochDaily, "", false)},
		{name: "a node was revoked", given: revoked, when: next(1, fleet.EpochEvicted, "n1"), object: "group/default/keys", then: is(2, fleet.EpochEvicted, "n1", false)},
		{name: "not for a node that is not", when: next(1, fleet.EpochEvicted, "n1"), refused: fleet.ErrInvalid, says: `node "n1" is not revoked`},
		{name: "somebody asks for it", when: next(1, fleet.EpochRekey, ""), object: "group/default/keys", then: is(2, fleet.EpochRekey, "", false)},
		{name: "and for new keys of certificates", when: rekey, object: "group/default/keys", then: is(2, fleet.EpochRekey, "", true)},
		{name: "what was asked stays asked", given: []command.Body{rekey}, when: next(2, fleet.EpochDaily, ""), object: "group/default/keys", then: is(3, fleet.EpochDaily, "", true)},
		{name: "one of two wins", given: []command.Body{next(1, fleet.EpochDaily, "")}, when: next(1, fleet.EpochDaily, ""), refused: fleet.ErrChanged, says: "in epoch 2, not 1", then: is(2, fleet.EpochDaily, "", false)},
		{name: "none is left out", when: next(2, fleet.EpochDaily, ""), refused: fleet.ErrChanged, says: "in epoch 1, not 2", then: is(1, fleet.EpochFirst, "", false)},
		{name: "not without a reason", when: next(1, "whim", ""), refused: fleet.ErrInvalid, says: `"whim" is no reason`},
		{name: "not of a group that does not exist", when: with(next(1, fleet.EpochDaily, ""), func(b *command.GroupRekey) { b.Group = "nowhere" }), refused: fleet.ErrNotFound, says: "node group nowhere"},
	})
}
