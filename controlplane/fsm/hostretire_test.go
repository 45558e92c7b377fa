package fsm_test

import (
	"testing"

	"github.com/edgefleet/edgefleet/controlplane/command"
	"github.com/edgefleet/edgefleet/controlplane/state"
	"github.com/edgefleet/edgefleet/fleet"
)

func TestHostsAreRetired(t *testing.T) {
	const a = "a.example.com"
	retire := command.HostRetire{Name: a, Tenant: "acme"}
	retired := []command.Body{retire}
	ended := []command.Body{retire, command.HostDelete{Name: a, Tenant: "acme"}}
	run(t, []testCase{
		{name: "a host that is retired keeps nothing but its name", when: retire, object: "host/" + a, of: "acme", then: func(t *testing.T, v *state.View) {
			h, ok := v.Host(a)
			if !ok || !h.Deleting() || h.Observed.Phase != fleet.PhaseDeleting || h.Observed.Status != fleet.StatusSuspended {
				t.Errorf("%+v", h)
			}
			_, cert := v.Certificate(a)
			if cert || len(v.OrdersOf(a)) != 0 || len(v.ChallengesOf(a, fleet.ChallengeDNS01)) != 0 || len(v.ChallengesOf(a, fleet.ChallengeHTTP01)) != 0 {
				t.Error("a certificate, an order or a challenge is left")
			}
			if l, _ := v.Label("la"); l != (fleet.Label{Label: "la", Host: a, Tenant: "acme", DeletedAt: noon}) {
				t.Errorf("the tombstone is %+v", l)
			}
			if ds := v.HostsDeleting(); len(ds) != 1 || ds[0].Name != a {
				t.Errorf("being deleted: %+v", ds)
			}
		}},
		{name: "another tenant's host does not exist for it", when: command.HostRetire{Name: a, Tenant: "beta"}, refused: fleet.ErrNotFound, unsaid: "acme"},
		{name: "a host that changed meanwhile is not retired", when: command.HostRetire{Name: a, Tenant: "acme", IfRevision: 1}, refused: fleet.ErrConflict, says: "changed meanwhile"},
		{name: "a host is retired once", given: retired, when: retire, refused: fleet.ErrConflict, says: "being deleted"},
		{name: "a retired host is not changed", given: retired, when: change(a, "acme", "https://203.0.113.1"), refused: fleet.ErrConflict, says: "being deleted"},
		{name: "its own tenant does not claim it anew meanwhile", given: retired, when: exclusive(a, "acme", "lz"), refused: fleet.ErrConflict, says: "being deleted"},
		{name: "nor another", given: retired, when: exclusive(a, "beta", "lz"), refused: fleet.ErrConflict, says: "CLAIMED_ELSEWHERE", unsaid: "acme"},
		{name: "nor a name below it", given: retired, when: exclusive("b."+a, "beta", "lz"), refused: fleet.ErrConflict, says: "CLAIMED_ELSEWHERE", unsaid: "acme"},
		{name: "what the leader saw before does not bring it back", given: retired, when: command.HostObserve{Name: a, Tenant: "acme", Observed: fleet.HostObserved{Phase: fleet.PhaseActive}}, refused: fleet.ErrConflict},
		{name: "no order begins for it", given: retired, when: order("oz", a, "acme", 9), refused: fleet.ErrConflict},
		{name: "an order that was under way ends in nothing", given: retired, when: commit("oa2", a, "acme", 2), refused: fleet.ErrConflict, says: "not under way"},
		{name: "no challenge is answered for it", given: retired, when: command.ChallengePut{Challenge: fleet.Challenge{Host: a, Type: fleet.ChallengeDNS01, Token: "t", Response: "r"}}, refused: fleet.ErrConflict},
		{name: "its tenant stays until it is gone", given: retired, when: command.TenantDelete{ID: "acme"}, refused: fleet.ErrConflict, says: "hosts"},
		{name: "in the end the name is free, with another label", given: ended, when: exclusive(a, "beta", "lz"), object: "host/" + a, of: "beta"},
		{name: "and its label never is", given: ended, when: exclusive(a, "beta", "la"), refused: fleet.ErrConflict, says: "issued before"},
	})
}
