package fsm_test

import (
	"net/netip"
	"testing"

	"github.com/edgefleet/edgefleet/controlplane/command"
	"github.com/edgefleet/edgefleet/controlplane/state"
	"github.com/edgefleet/edgefleet/fleet"
)

func nodeSpec(addrs ...string) fleet.NodeSpec {
	s := fleet.NodeSpec{Group: fleet.DefaultGroup, Region: "eu"}
	for _, a := range addrs {
		s.Addresses = append(s.Addresses, netip.MustParseAddr(a))
	}
	return s
}

func TestNodes(t *testing.T) {
	up := command.NodeReport{ID: "n1", Observed: fleet.NodeObserved{State: fleet.NodeUp, Boot: "b1"}}
	revoked := []command.Body{command.NodeRevoke{ID: "n1"}}
	run(t, []testCase{
		{name: "a node enrols into the group and region of its token", when: enrol("j2", "n2", "198.51.100.2"), object: "node/n2", then: func(t *testing.T, v *state.View) {
			n, _ := v.Node("n2")
			j, _ := v.JoinToken("j2")
			if n.Spec.Group != fleet.DefaultGroup || n.Spec.Region != "eu" || n.Spec.Cordoned || n.Observed.State != fleet.NodeEnrolled || j.UsedBy != "n2" {
				t.Errorf("%+v %+v", n, j)
			}
		}},
		{name: "a node cannot enrol as revoked", when: with(enrol("j2", "n2", "198.51.100.2"), func(b *command.NodeEnrol) { b.Identity.RevokedAt = noon }), object: "node/n2", then: func(t *testing.T, v *state.View) {
			if n, _ := v.Node("n2"); !n.Identity.RevokedAt.IsZero() {
				t.Error(n.Identity)
			}
		}},
		{name: "a token admits one node", when: enrol("j1", "n2", "198.51.100.2"), refused: fleet.ErrDenied, says: "used already"},
		{name: "an unknown token admits nobody", when: enrol("j9", "n2", "198.51.100.2"), refused: fleet.ErrDenied, says: "ask an operator"},
		{name: "a member's token admits no node", when: enrol("jm", "n2", "198.51.100.2"), refused: fleet.ErrDenied},
		{name: "a node id that is taken is refused", when: enrol("j2", "n1", "198.51.100.2"), refused: fleet.ErrConflict, says: "choose another"},
		{name: "a revoked node's id is taken for ever", given: revoked, when: enrol("j2", "n1", "198.51.100.2"), refused: fleet.ErrConflict},
		{name: "a bad node id is refused and the token stays", when: enrol("j2", "N 2", "198.51.100.2"), refused: fleet.ErrInvalid, then: func(t *testing.T, v *state.View) {
			if j, _ := v.JoinToken("j2"); j.UsedBy != "" {
				t.Error(j)
			}
		}},
		{name: "an address that another node has is refused", when: enrol("j2", "n2", "198.51.100.1"), refused: fleet.ErrConflict, says: "belongs to node n1"},
		{name: "an address of a revoked node is free", given: revoked, when: enrol("j2", "n2", "198.51.100.1"), object: "node/n2"},
		{name: "a node without addresses is refused", when: with(enrol("j2", "n2", "198.51.100.2"), func(b *command.NodeEnrol) { b.Spec.Addresses = nil }), refused: fleet.ErrInvalid, says: "1 to 16"},

		{name: "a node renews", when: command.NodeRenew{ID: "n1", SPKI: "new", NotAfter: noon}, object: "node/n1", then: func(t *testing.T, v *state.View) {
			if n, _ := v.Node("n1"); n.Identity.SPKI != "new" || string(n.Identity.HPKE) != "public" {
				t.Errorf("%+v", n.Identity)
			}
		}},
		{name: "a revoked node does not renew", given: revoked, when: command.NodeRenew{ID: "n1"}, refused: fleet.ErrDenied, says: "was revoked"},
		{name: "an unknown node does not renew", when: command.NodeRenew{ID: "n9"}, refused: fleet.ErrNotFound},

		{name: "a node is cordoned", when: command.NodePut{ID: "n1", Spec: with(nodeSpec("198.51.100.1"), func(s *fleet.NodeSpec) { s.Cordoned = true })}, object: "node/n1"},
		{name: "a node is moved to another group", when: command.NodePut{ID: "n1", Spec: with(nodeSpec("198.51.100.1"), func(s *fleet.NodeSpec) { s.Group = "second" })}, object: "node/n1"},
		{name: "a node is not moved to an unknown group", when: command.NodePut{ID: "n1", Spec: with(nodeSpec("198.51.100.1"), func(s *fleet.NodeSpec) { s.Group = "nowhere" })}, refused: fleet.ErrNotFound, says: "nowhere"},
		{name: "a node that changed meanwhile is not overwritten", when: command.NodePut{Put: command.Put{IfRevision: 1}, ID: "n1", Spec: nodeSpec("198.51.100.1")}, refused: fleet.ErrConflict},
		{name: "a node does not take another's address", given: []command.Body{enrol("j2", "n2", "198.51.100.2")}, when: command.NodePut{ID: "n2", Spec: nodeSpec("198.51.100.2", "198.51.100.1")}, refused: fleet.ErrConflict, says: "n1"},
		{name: "a node is not made without enrolment", when: command.NodePut{Put: create, ID: "n9", Spec: nodeSpec("198.51.100.9")}, refused: fleet.ErrInvalid, says: "join token"},
		{name: "an unknown node is not changed", when: command.NodePut{ID: "n9", Spec: nodeSpec("198.51.100.9")}, refused: fleet.ErrNotFound},
		{name: "a revoked node is not changed", given: revoked, when: command.NodePut{ID: "n1", Spec: nodeSpec("198.51.100.1")}, refused: fleet.ErrDenied, says: "was revoked"},

		{name: "a node is revoked", when: command.NodeRevoke{ID: "n1"}, object: "node/n1", then: func(t *testing.T, v *state.View) {
			if n, _ := v.Node("n1"); !n.Identity.RevokedAt.Equal(noon) || len(v.NodesOf(fleet.DefaultGroup)) != 0 {
				t.Errorf("%+v", n)
			}
		}},
		{name: "a node is revoked once", given: revoked, when: command.NodeRevoke{ID: "n1"}, refused: fleet.ErrDenied},
		{name: "an unknown node is not revoked", when: command.NodeRevoke{ID: "n9"}, refused: fleet.ErrNotFound},

		{name: "reports are folded and not audited", when: command.NodesReport{Reports: []command.NodeReport{{ID: "n9"}, up}}, entries: -1, then: func(t *testing.T, v *state.View) {
			n, _ := v.Node("n1")
			_, made := v.Node("n9")
			if n.Observed.State != fleet.NodeUp || n.Observed.Boot != "b1" || made || n.UpdatedAt != noon {
				t.Errorf("%+v", n)
			}
		}},
		{name: "a report of a revoked node is passed over", given: revoked, when: command.NodesReport{Reports: []command.NodeReport{up}}, entries: -1, then: func(t *testing.T, v *state.View) {
			if n, _ := v.Node("n1"); n.Observed.State != fleet.NodeEnrolled {
				t.Errorf("%+v", n.Observed)
			}
		}},
	})
}

func TestHeads(t *testing.T) {
	several := command.HeadsAdvance{}
	for _, b := range []command.HeadsAdvance{advance(fleet.HeadConfig, 2), advance(fleet.HeadCerts, 1), advance(fleet.HeadRuleset, 1)} {
		several.Heads = append(several.Heads, b.Heads...)
	}
	second := func(change func(*command.HeadAdvance)) command.HeadsAdvance {
		return with(advance(fleet.HeadConfig, 2), func(b *command.HeadsAdvance) { change(&b.Heads[0]) })
	}
	half := with(several, func(b *command.HeadsAdvance) {
		b.Heads = append([]command.HeadAdvance{}, b.Heads...)
		b.Heads[2].Version.Generation = 7
	})
	run(t, []testCase{
		{name: "a head advances by one", when: advance(fleet.HeadConfig, 2), object: "head/default/config", then: func(t *testing.T, v *state.View) {
			if h, _ := v.Head(fleet.DefaultGroup, fleet.HeadConfig); h.Version != (fleet.Version{Incarnation: 1, Generation: 2}) || h.Root != fleet.DigestOf([]byte{2}) {
				t.Errorf("%+v", h)
			}
		}},
		{name: "several heads leave an entry each", when: several, entries: 3},
		{name: "the first head of a kind is generation 1", when: advance(fleet.HeadCerts, 1), object: "head/default/certs"},
		{name: "a head does not start at 2", when: advance(fleet.HeadCerts, 2), refused: fleet.ErrStale, says: "the next is 1, not 2"},
		{name: "a head does not stand still", when: advance(fleet.HeadConfig, 1), refused: fleet.ErrStale, says: "the next is 2, not 1"},
		{name: "a head does not jump", when: advance(fleet.HeadConfig, 3), refused: fleet.ErrStale},
		{name: "a head does not go back", given: []command.Body{advance(fleet.HeadConfig, 2)}, when: advance(fleet.HeadConfig, 1), refused: fleet.ErrStale},
		{name: "a head of another incarnation is refused", when: second(func(h *command.HeadAdvance) { h.Version.Incarnation = 2 }), refused: fleet.ErrStale},
		{name: "a head of an unknown group is refused", when: second(func(h *command.HeadAdvance) { h.Group, h.Version.Generation = "nowhere", 1 }), refused: fleet.ErrNotFound, says: "nowhere"},
		{name: "a head of no group is refused", when: second(func(h *command.HeadAdvance) { h.Group, h.Version.Generation = "", 1 }), refused: fleet.ErrNotFound},
		{name: "a head of an unknown kind is refused", when: second(func(h *command.HeadAdvance) { h.Kind, h.Version.Generation = "", 1 }), refused: fleet.ErrInvalid},
		{name: "a head without a digest is refused", when: second(func(h *command.HeadAdvance) { h.Root = "sha256:x" }), refused: fleet.ErrInvalid},
		{name: "one bad head refuses all", when: half, refused: fleet.ErrStale, then: func(t *testing.T, v *state.View) {
			if len(v.Heads()) != 1 {
				t.Error(v.Heads())
			}
		}},
		{name: "no heads change nothing", when: command.HeadsAdvance{}, entries: -1},
	})
}

func TestANewIncarnationStartsItsGenerationsAtOne(t *testing.T) {
	w := city(t).must(t, advance(fleet.HeadConfig, 2))
	tx := w.state.Write() // as a restore does it
	c, _ := tx.Cluster()
	c.Incarnation = 2
	tx.PutCluster(c)
	tx.Commit()
	if r := w.apply(t, advance(fleet.HeadConfig, 3)); r.Err == nil {
		t.Error("the old incarnation goes on")
	}
	w.must(t, with(advance(fleet.HeadConfig, 1), func(b *command.HeadsAdvance) { b.Heads[0].Version.Incarnation = 2 }))
}
