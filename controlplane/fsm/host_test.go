package fsm_test

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/edgefleet/edgefleet/controlplane/command"
	"github.com/edgefleet/edgefleet/controlplane/state"
	"github.com/edgefleet/edgefleet/fleet"
)

func change(name fleet.HostName, of fleet.TenantID, origins ...string) command.HostPut {
	return command.HostPut{Name: name, Tenant: of, Spec: spec(origins...)}
}

func TestHosts(t *testing.T) {
	deleted := []command.Body{command.HostDelete{Name: "a.example.com", Tenant: "acme"}}
	observed := []command.Body{command.HostObserve{Name: "a.example.com", Tenant: "acme", Observed: fleet.HostObserved{Phase: fleet.PhaseActive}}}
	allowed := func(p string) []command.Body {
		return []command.Body{with(tenant("acme"), func(b *command.TenantPut) {
			b.Create, b.Spec.AllowedOrigins = false, []netip.Prefix{netip.MustParsePrefix(p)}
		})}
	}
	run(t, []testCase{
		{name: "a name is claimed", when: host("new.example.com", "acme", "lz"), object: "host/new.example.com", of: "acme", then: func(t *testing.T, v *state.View) {
			h, _ := v.Host("new.example.com")
			l, _ := v.Label("lz")
			if h.Desired.Label != "lz" || l.Host != h.Name || h.Observed.Phase != fleet.PhaseClaimed || h.Observed.Status != fleet.StatusPending || !h.Observed.Ownership.NextCheck.Equal(noon) {
				t.Errorf("%+v %+v", h, l)
			}
		}},
		{name: "a name of another tenant is claimed elsewhere", when: host("www.beta.example", "acme", "lz"), refused: fleet.ErrConflict, says: "CLAIMED_ELSEWHERE", unsaid: "tenant beta"},
		{name: "the parent of another tenant's name is refused", when: host("beta.example", "acme", "lz"), refused: fleet.ErrConflict, says: "CLAIMED_ELSEWHERE", unsaid: "www"},
		{name: "a wildcard over another tenant's name is refused", when: host("*.beta.example", "acme", "lz"), refused: fleet.ErrConflict, says: "CLAIMED_ELSEWHERE", unsaid: "www"},
		{name: "a wildcard over one's own names is claimed", when: host("*.beta.example", "beta", "lz"), object: "host/*.beta.example", of: "beta"},
		{name: "the name above another tenant's wildcard is refused", given: []command.Body{host("*.x.example.org", "beta", "ly")}, when: host("x.example.org", "acme", "lz"), refused: fleet.ErrConflict, says: "CLAIMED_ELSEWHERE"},
		{name: "a wildcard in the edge zone is refused", when: host("*.edge.example.net", "acme", "lz"), refused: fleet.ErrInvalid, says: "edge zone"},
		{name: "a wildcard that is not the first label is refused", when: host("a.*.example.org", "acme", "lz"), refused: fleet.ErrInvalid},
		{name: "the parent of one's own name is claimed", when: host("beta.example", "beta", "lz"), object: "host/beta.example", of: "beta"},
		{name: "a name that only looks like a parent is claimed", when: host("ta.example", "acme", "lz"), object: "host/ta.example", of: "acme"},
		{name: "another tenant's host does not exist for a change", when: change("www.beta.example", "acme", "https://203.0.113.1"), refused: fleet.ErrNotFound, says: "does not exist", unsaid: "tenant"},
		{name: "another tenant's host does not exist for a delete", when: command.HostDelete{Name: "www.beta.example", Tenant: "acme"}, refused: fleet.ErrNotFound, unsaid: "beta's"},
		{name: "another tenant's host does not exist for an observation", when: command.HostObserve{Name: "www.beta.example", Tenant: "acme"}, refused: fleet.ErrNotFound},
		{name: "one's own host is not claimed twice", when: host("a.example.com", "acme", "lz"), refused: fleet.ErrConflict, says: "exists already"},
		{name: "a host of an unknown tenant is refused", when: host("new.example.com", "gamma", "lz"), refused: fleet.ErrNotFound, says: "gamma"},
		{name: "a label is never issued twice", when: host("new.example.com", "acme", "lb"), refused: fleet.ErrConflict, says: "issued before"},
		{name: "a label is not issued again after its host is gone", given: deleted, when: host("new.example.com", "acme", "la"), refused: fleet.ErrConflict, says: "issued before"},
		{name: "not even for the same host", given: deleted, when: host("a.example.com", "acme", "la"), refused: fleet.ErrConflict, says: "issued before"},
		{name: "a deleted name is free for others with a new label", given: deleted, when: host("a.example.com", "beta", "lz"), object: "host/a.example.com", of: "beta", then: func(t *testing.T, v *state.View) {
			_, cert := v.Certificate("a.example.com")
			if cert || len(v.OrdersOf("a.example.com")) != 0 || len(v.Challenges()) != 0 {
				t.Error("the new owner inherits a certificate, orders or challenges")
			}
		}},
		{name: "a host without a label is refused", when: host("new.example.com", "acme", ""), refused: fleet.ErrInvalid, says: "label"},
		{name: "a change keeps label and observation", given: observed, when: with(change("a.example.com", "acme", "https://203.0.113.2"), func(b *command.HostPut) { b.Label = "ignored" }), object: "host/a.example.com", of: "acme", then: func(t *testing.T, v *state.View) {
			h, _ := v.Host("a.example.com")
			if _, taken := v.Label("ignored"); h.Desired.Label != "la" || h.Observed.Phase != fleet.PhaseActive || h.Spec.Origins[0].URL != "https://203.0.113.2" || taken {
				t.Errorf("%+v", h)
			}
		}},
		{name: "a host that changed meanwhile is not overwritten", when: with(change("a.example.com", "acme", "https://203.0.113.2"), func(b *command.HostPut) { b.IfRevision = 1 }), refused: fleet.ErrConflict, says: "changed meanwhile"},
		{name: "a host that changed meanwhile is not deleted", when: command.HostDelete{Name: "a.example.com", Tenant: "acme", IfRevision: 1}, refused: fleet.ErrConflict},
		{name: "a host in the edge zone is refused", when: host("x.edge.example.net", "acme", "lz"), refused: fleet.ErrInvalid, says: "edge zone"},
		{name: "the edge zone itself is refused", when: host("edge.example.net", "acme", "lz"), refused: fleet.ErrInvalid, says: "edge zone"},
		{name: "a name that is none is refused", when: host("not a name", "acme", "lz"), refused: fleet.ErrInvalid},
		{name: "an address is refused", when: host("192.0.2.1", "acme", "lz"), refused: fleet.ErrInvalid, says: "IP address"},
		{name: "a host without origins is refused", when: with(host("new.example.com", "acme", "lz"), func(b *command.HostPut) { b.Spec.Origins = nil }), refused: fleet.ErrInvalid, says: "origins"},
		{name: "a host with too many regions is refused", when: with(host("new.example.com", "acme", "lz"), func(b *command.HostPut) {
			b.Spec.Regions = slices.Repeat([]fleet.RegionName{"eu"}, fleet.MaxRegionsPerHost+1)
		}), refused: fleet.ErrInvalid, says: "the limit is 64"},
		{name: "a host with too many origins is refused", when: with(host("new.example.com", "acme", "lz"), func(b *command.HostPut) { b.Spec.Origins = make([]fleet.Origin, 17) }), refused: fleet.ErrInvalid, says: "1 to 16"},
		{name: "a host with a bad mode is refused", when: with(host("new.example.com", "acme", "lz"), func(b *command.HostPut) { b.Spec.Mode = "x" }), refused: fleet.ErrInvalid},
		{name: "an origin of the edge's own address is refused", when: change("a.example.com", "acme", "https://198.51.100.1"), refused: fleet.ErrInvalid, says: "edge itself"},
		{name: "an origin of a revoked node's address is nobody's loop", given: []command.Body{command.NodeRevoke{ID: "n1"}}, when: change("a.example.com", "acme", "https://198.51.100.1"), object: "host/a.example.com", of: "acme"},
		{name: "an origin in the edge zone is refused", when: change("a.example.com", "acme", "https://lb.edge.example.net."), refused: fleet.ErrInvalid, says: "leads back"},
		{name: "a private origin is refused", when: change("a.example.com", "acme", "http://10.0.0.1"), refused: fleet.ErrInvalid, says: "--allow-origin 10.0.0.0/8"},
		{name: "a private origin hidden in IPv6 is refused", when: change("a.example.com", "acme", "http://[::ffff:10.0.0.1]"), refused: fleet.ErrInvalid, says: "not public"},
		{name: "a private origin that an operator opened is allowed", given: allowed("10.0.0.0/8"), when: change("a.example.com", "acme", "http://10.0.0.1"), object: "host/a.example.com", of: "acme"},
		{name: "what was opened for one tenant is not for another", given: allowed("10.0.0.0/8"), when: change("www.beta.example", "beta", "http://10.0.0.1"), refused: fleet.ErrInvalid},
		{name: "metadata stays refused although opened", given: allowed("0.0.0.0/0"), when: change("a.example.com", "acme", "http://169.254.169.254"), refused: fleet.ErrInvalid, says: "never allowed"},
		{name: "an observation is stored and not audited", when: command.HostObserve{Name: "a.example.com", Tenant: "acme", Observed: fleet.HostObserved{Phase: fleet.PhaseActive}}, entries: -1, then: func(t *testing.T, v *state.View) {
			if h, _ := v.Host("a.example.com"); h.Observed.Phase != fleet.PhaseActive || h.Revision != 5 {
				t.Errorf("%+v", h)
			}
		}},
		{name: "an unknown host is not observed", when: command.HostObserve{Name: "x.example.com", Tenant: "acme"}, refused: fleet.ErrNotFound},
		{name: "a host is deleted and its label stays", when: command.HostDelete{Name: "a.example.com", Tenant: "acme"}, object: "host/a.example.com", of: "acme", then: func(t *testing.T, v *state.View) {
			if l, ok := v.Label("la"); !ok || l.Host != "a.example.com" {
				t.Error(l)
			}
		}},
	})
}

func TestChallengesOrdersAndCertificates(t *testing.T) {
	run(t, []testCase{
		{name: "a challenge belongs to the host's tenant whatever it says", when: challenge("www.beta.example", fleet.ChallengeDNS01, "t"), object: "challenge/www.beta.example", of: "beta", then: func(t *testing.T, v *state.View) {
			for _, c := range v.Challenges() {
				if c.Host == "www.beta.example" && (c.Tenant != "beta" || !c.CreatedAt.Equal(noon)) {
					t.Errorf("%+v", c)
				}
			}
		}},
		{name: "a challenge of an unknown host is refused", when: challenge("x.example.com", fleet.ChallengeDNS01, "t"), refused: fleet.ErrNotFound},
		{name: "a challenge of an unknown type is refused", when: challenge("a.example.com", "email-reply-00", "t"), refused: fleet.ErrInvalid, says: "dns-01, http-01 or tls-alpn-01"},
		{name: "a challenge that is answered in a handshake is stored", when: challenge("a.example.com", fleet.ChallengeTLSALPN01, "t"), object: "challenge/a.example.com", of: "acme"},
		{name: "a challenge without a token is refused", when: challenge("a.example.com", fleet.ChallengeHTTP01, ""), refused: fleet.ErrInvalid},
		{name: "a challenge with a long answer is refused", when: with(challenge("a.example.com", fleet.ChallengeHTTP01, "t"), func(b *command.ChallengePut) { b.Challenge.Response = strings.Repeat("x", 513) }), refused: fleet.ErrInvalid},
		{name: "a challenge takes late edges out of DNS", when: with(challenge("a.example.com", fleet.ChallengeHTTP01, "t"), func(b *command.ChallengePut) {
			b.Challenge.Out = &fleet.ChallengeOut{Nodes: []fleet.NodeID{"n1"}, Until: noon.Add(fleet.MaxChallengeOutTime)}
		}), object: "challenge/a.example.com", of: "acme"},
		{name: "a challenge takes no edge out for longer than an order lasts", when: with(challenge("a.example.com", fleet.ChallengeHTTP01, "t"), func(b *command.ChallengePut) {
			b.Challenge.Out = &fleet.ChallengeOut{Nodes: []fleet.NodeID{"n1"}, Until: noon.Add(fleet.MaxChallengeOutTime + time.Second)}
		}), refused: fleet.ErrInvalid, says: "at most 15m"},
		{name: "a challenge that takes nobody out is refused", when: with(challenge("a.example.com", fleet.ChallengeHTTP01, "t"), func(b *command.ChallengePut) {
			b.Challenge.Out = &fleet.ChallengeOut{Until: noon}
		}), refused: fleet.ErrInvalid, says: "takes 0 edges"},
		{name: "a challenge is withdrawn", when: command.ChallengeDelete{Host: "a.example.com", Via: fleet.ChallengeHTTP01, Token: "tok"}, object: "challenge/a.example.com", of: "acme", then: func(t *testing.T, v *state.View) {
			if len(v.Challenges()) != 0 {
				t.Error(v.Challenges())
			}
		}},

		{name: "an order is stored before the CA hears of it", when: order("ob", "www.beta.example", "beta", 1), object: "order/ob", of: "beta", then: func(t *testing.T, v *state.View) {
			if o, _ := v.Order("ob"); string(o.Key.Ciphertext) != string(secretBytes) || o.Revision == 0 {
				t.Errorf("%+v", o)
			}
		}},
		{name: "an order of another tenant's host is refused", when: order("ob", "www.beta.example", "acme", 1), refused: fleet.ErrNotFound, unsaid: "tenant beta"},
		{name: "an order without an id is refused", when: order("", "www.beta.example", "beta", 1), refused: fleet.ErrInvalid, says: "order"},
		{name: "a second order of a host waits", when: order("oa3", "a.example.com", "acme", 2), refused: fleet.ErrConflict, says: "under way"},
		{name: "an order id is used once", when: order("oa2", "a.example.com", "acme", 2), refused: fleet.ErrConflict},
		{name: "a failed attempt is recorded", when: with(order("oa2", "a.example.com", "acme", 2), func(b *command.OrderPut) { b.Create, b.Order.Attempts, b.Order.Problem = false, 1, "CA said no" }), object: "order/oa2", of: "acme"},
		{name: "an attempt of an unknown order is refused", when: with(order("o9", "a.example.com", "acme", 2), func(b *command.OrderPut) { b.Create = false }), refused: fleet.ErrNotFound},
		{name: "an order never changes its host", when: with(order("oa2", "www.beta.example", "beta", 2), func(b *command.OrderPut) { b.Create = false }), refused: fleet.ErrConflict, says: "another order"},
		{name: "an order never changes its key", when: with(order("oa2", "a.example.com", "acme", 2), func(b *command.OrderPut) { b.Create, b.Order.SPKI = false, "other" }), refused: fleet.ErrConflict},

		{name: "a certificate ends its order and takes its key", when: with(commit("oa2", "a.example.com", "acme", 2), func(b *command.CertificateCommit) { b.Certificate.Key = fleet.Sealed{Key: "forged"} }), object: "certificate/a.example.com", of: "acme", then: func(t *testing.T, v *state.View) {
			c, _ := v.Certificate("a.example.com")
			if c.Generation != 2 || string(c.Key.Ciphertext) != string(secretBytes) || c.Key.Key != "kek" || len(v.OrdersOf("a.example.com")) != 0 {
				t.Errorf("%+v", c)
			}
		}},
		{name: "an order that is not under way makes no progress", when: command.OrderProgress{ID: "oa", Asked: true}, refused: fleet.ErrConflict, says: "not under way"},
		{name: "an order URL has a limit", when: command.OrderProgress{ID: "oa2", Asked: true, URL: strings.Repeat("u", 1025)}, refused: fleet.ErrTooLarge},
		{name: "the renewal of another generation is not planned", when: command.RenewalPlan{Host: "a.example.com", Generation: 9, Renewal: fleet.Renewal{At: noon}}, refused: fleet.ErrStale},
		{name: "a renewal without a time is refused", given: []command.Body{commit("oa2", "a.example.com", "acme", 2)}, when: command.RenewalPlan{Host: "a.example.com", Generation: 2}, refused: fleet.ErrInvalid, says: "needs a time"},
		{name: "a certificate without an order is refused", when: commit("oa", "a.example.com", "acme", 1), refused: fleet.ErrConflict, says: "not under way"},
		{name: "a certificate of another host's order is refused", when: commit("oa2", "www.beta.example", "beta", 2), refused: fleet.ErrConflict, says: "does not belong"},
		{name: "a certificate of another generation is refused", when: commit("oa2", "a.example.com", "acme", 3), refused: fleet.ErrConflict, says: "does not belong"},
		{name: "a certificate for another key is refused", when: with(commit("oa2", "a.example.com", "acme", 2), func(b *command.CertificateCommit) { b.Certificate.SPKI = "other" }), refused: fleet.ErrConflict, says: "does not belong"},
		{name: "a certificate never replaces a newer one", given: []command.Body{commit("oa2", "a.example.com", "acme", 2), order("oa3", "a.example.com", "acme", 1)}, when: commit("oa3", "a.example.com", "acme", 1), refused: fleet.ErrStale, says: "generation 2 already"},
		{name: "a certificate whose host is gone is refused", given: []command.Body{command.HostDelete{Name: "a.example.com", Tenant: "acme"}}, when: commit("oa2", "a.example.com", "acme", 2), refused: fleet.ErrConflict},
	})
}
