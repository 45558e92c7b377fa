package fsm_test

import (
	"testing"

	"github.com/edgefleet/edgefleet/controlplane/command"
	"github.com/edgefleet/edgefleet/controlplane/state"
	"github.com/edgefleet/edgefleet/fleet"
)

func rotateKey(from, to string) command.Body {
	return command.NodeRotate{ID: "n1", From: from, SPKI: to, NotAfter: noon}
}

func TestKeysOfNodes(t *testing.T) {
	stands := func(spki string, generation uint64, locked bool) func(*testing.T, *state.View) {
		return func(t *testing.T, v *state.View) {
			n, _ := v.Node("n1")
			want := fleet.NodeRenewal{Generation: generation}
			if n.Identity.SPKI != spki || n.Renewal != want || (n.Lock != nil) != locked {
				t.Errorf("%+v %+v %+v", n.Identity, n.Renewal, n.Lock)
			}
		}
	}
	once := []command.Body{rotateKey("spki", "k1")}
	twice := []command.Body{rotateKey("spki", "k1"), rotateKey("k1", "k2")}
	locked := []command.Body{rotateKey("spki", "k1"), rotateKey("spki", "stranger")}
	run(t, []testCase{
		{name: "a key brings the next", when: rotateKey("spki", "k1"), object: "node/n1", then: stands("k1", 1, false)},
		{name: "and that the next", given: once, when: rotateKey("k1", "k2"), object: "node/n1", then: stands("k2", 2, false)},
		{name: "a renewal whose answer was lost is asked for again", given: once, when: rotateKey("spki", "k1"), object: "node/n1", then: stands("k1", 1, false)},
		{name: "and again", given: append(once, rotateKey("spki", "k1")), when: rotateKey("spki", "k1"), object: "node/n1", then: stands("k1", 1, false)},
		{name: "the current key may renew itself", given: once, when: rotateKey("k1", "k1"), object: "node/n1", then: stands("k1", 1, false)},
		{name: "two that go on from one key lock the node", given: once, when: rotateKey("spki", "stranger"), object: "node/n1", then: stands("k1", 1, true), leaves: "node_lock"},
		{name: "an older key locks the node", given: twice, when: rotateKey("spki", "k1"), object: "node/n1", then: stands("k2", 2, true), leaves: "node_lock"},
		{name: "the right one is refused too while the node is locked", given: locked, when: rotateKey("k1", "k2"), refused: fleet.ErrDenied, says: "fleetctl node unlock n1"},
		{name: "unlocked, the last key goes on", given: append(locked, command.NodeUnlock{ID: "n1"}), when: rotateKey("k1", "k2"), object: "node/n1", then: stands("k2", 2, false)},
		{name: "unlocked, the other machine locks it again", given: append(locked, command.NodeUnlock{ID: "n1"}), when: rotateKey("spki", "stranger"), object: "node/n1", then: stands("k1", 1, true), leaves: "node_lock"},
		{name: "a revoked node has no next key", given: []command.Body{command.NodeRevoke{ID: "n1"}}, when: rotateKey("spki", "k1"), refused: fleet.ErrDenied, says: "was revoked"},
		{name: "a lock says why", when: command.NodeLock{ID: "n1", Reason: "two machines"}, object: "node/n1", then: stands("spki", 0, true), leaves: "node_lock"},
		{name: "a lock without a reason is refused", when: command.NodeLock{ID: "n1"}, refused: fleet.ErrInvalid, says: "reason"},
		{name: "a node is locked once", given: locked, when: command.NodeLock{ID: "n1", Reason: "two machines"}, refused: fleet.ErrConflict, says: "locked already"},
		{name: "what is not locked is not unlocked", when: command.NodeUnlock{ID: "n1"}, refused: fleet.ErrConflict, says: "nothing to unlock"},
		{name: "an unknown node is not unlocked", when: command.NodeUnlock{ID: "n9"}, refused: fleet.ErrNotFound},
		{name: "a locked node can be revoked", given: locked, when: command.NodeRevoke{ID: "n1"}, object: "node/n1"},
	})
}
