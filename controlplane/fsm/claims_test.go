package fsm_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/edgefleet/edgefleet/controlplane/command"
	"github.com/edgefleet/edgefleet/controlplane/state"
	"github.com/edgefleet/edgefleet/fleet"
)

// exclusive is a claim as the API makes it.
func exclusive(name fleet.HostName, of fleet.TenantID, label string) command.HostPut {
	return with(host(name, of, label), func(b *command.HostPut) { b.Exclusive = true })
}

func TestClaims(t *testing.T) {
	parent := []command.Body{host("shop.example.org", "beta", "ly")}
	wild := []command.Body{host("*.wild.example.org", "beta", "ly")}
	refused := func(name string, given []command.Body, of fleet.HostName) testCase {
		return testCase{name: name, given: given, when: exclusive(of, "acme", "lz"), refused: fleet.ErrConflict, says: "CLAIMED_ELSEWHERE", unsaid: "beta"}
	}
	claimed := func(name string, given []command.Body, h fleet.HostName, of fleet.TenantID) testCase {
		return testCase{name: name, given: given, when: exclusive(h, of, "lz"), object: "host/" + string(h), of: of}
	}
	shared := func(name string, given []command.Body, h fleet.HostName, label string) testCase {
		tc := claimed(name, given, h, "beta")
		tc.then = func(t *testing.T, v *state.View) {
			if got, _ := v.Host(h); got.Desired.Label != "lz" || got.Desired.DCV() != label {
				t.Errorf("%+v", got.Desired)
			}
		}
		return tc
	}
	run(t, []testCase{
		refused("another tenant's name is refused", parent, "shop.example.org"),
		refused("a name below another tenant's is refused", parent, "www.shop.example.org"),
		refused("a name far below another tenant's is refused", parent, "a.b.c.shop.example.org"),
		refused("a wildcard below another tenant's name is refused", parent, "*.shop.example.org"),
		refused("a wildcard over another tenant's name is refused", parent, "*.example.org"),
		refused("a name above another tenant's is refused", parent, "example.org"),
		refused("a name below another tenant's wildcard is refused", wild, "www.wild.example.org"),
		refused("a name far below another tenant's wildcard is refused", wild, "a.b.wild.example.org"),
		refused("a wildcard below another tenant's wildcard is refused", wild, "*.b.wild.example.org"),
		refused("the base of another tenant's wildcard is refused", wild, "wild.example.org"),
		claimed("a name beside another tenant's is claimed", parent, "www.example.org", "acme"),
		claimed("a name that only ends like another tenant's is claimed", parent, "myshop.example.org", "acme"),
		claimed("a name below one's own is claimed", parent, "www.shop.example.org", "beta"),
		claimed("a name below one's own wildcard is claimed", wild, "www.wild.example.org", "beta"),
		shared("the base of one's own wildcard is claimed, with the wildcard's certificate record", wild, "wild.example.org", "ly"),
		shared("a wildcard over one's own name shares its certificate record", parent, "*.shop.example.org", "ly"),
		shared("a name that comes back has the certificate record of the wildcard that stayed", []command.Body{
			exclusive("shop.example.org", "beta", "ly"), exclusive("*.shop.example.org", "beta", "lx"), command.HostDelete{Name: "shop.example.org", Tenant: "beta"},
		}, "shop.example.org", "ly"),
		shared("a name has a record of its own when its wildcard is being deleted", append(slices.Clone(wild), command.HostRetire{Name: "*.wild.example.org", Tenant: "beta"}), "wild.example.org", "lz"),
		{name: "an entry of the first format still looks at the names below only", given: parent, when: host("www.shop.example.org", "acme", "lz"), object: "host/www.shop.example.org", of: "acme"},
		{name: "a change of a host is no claim", given: append(parent, host("www.shop.example.org", "acme", "lx")), when: with(change("www.shop.example.org", "acme", "https://203.0.113.1"), func(b *command.HostPut) { b.Exclusive = true }), object: "host/www.shop.example.org", of: "acme"},
		{name: "one with a Consul service is refused alike", given: parent, when: command.HostPutConsul{HostPut: with(exclusive("www.shop.example.org", "acme", "lz"), func(b *command.HostPut) { b.Spec = spec("consul://web") })}, refused: fleet.ErrConflict, says: "CLAIMED_ELSEWHERE"},
	})
}

// TestNoOrderOfClaimsNestsTenants claims names of a small tree for two tenants in random orders: whoever comes first, no name
// is above or below one of the other, and what is refused is so for a reason.
func TestNoOrderOfClaimsNestsTenants(t *testing.T) {
	names := []fleet.HostName{
		"t.example", "*.t.example", "a.t.example", "*.a.t.example", "b.t.example", "x.a.t.example", "y.x.a.t.example", "*.x.a.t.example", "at.example", "a.at.example",
	}
	for seed := range uint64(60) {
		w, d := city(t), newDice(seed)
		claims := map[fleet.HostName]fleet.TenantID{}
		for n := range 20 {
			h, of := pick(d, names...), pick(d, fleet.TenantID("acme"), fleet.TenantID("beta"))
			r := w.apply(t, exclusive(h, of, fmt.Sprint("claim", n)))
			clash := nested(claims, h, of)
			switch {
			case claims[h] == of:
			case r.Err == nil && clash == "":
				claims[h] = of
			case r.Err == nil:
				t.Fatalf("seed %d: %s of %s was claimed, and %s is the other's", seed, h, of, clash)
			case clash == "" || !errors.Is(r.Err, fleet.ErrConflict):
				t.Fatalf("seed %d: %s of %s among %v: %v", seed, h, of, claims, r.Err)
			}
		}
		checkClaims(t, w.state.Read(), claims)
	}
}

// nested is a name of another tenant that is h, or above or below it.
func nested(claims map[fleet.HostName]fleet.TenantID, h fleet.HostName, of fleet.TenantID) fleet.HostName {
	tree := func(n fleet.HostName) string { return "." + strings.TrimPrefix(string(n), "*.") }
	for other, owner := range claims {
		if owner != of && (strings.HasSuffix(tree(h), tree(other)) || strings.HasSuffix(tree(other), tree(h))) {
			return other
		}
	}
	return ""
}

func checkClaims(t *testing.T, v *state.View, claims map[fleet.HostName]fleet.TenantID) {
	t.Helper()
	for h, of := range claims {
		if got, ok := v.Host(h); !ok || got.Tenant != of {
			t.Errorf("%s is %s's, want %s", h, got.Tenant, of)
		}
	}
}
