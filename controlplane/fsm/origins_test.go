package fsm_test

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/edgefleet/edgefleet/controlplane/command"
	"github.com/edgefleet/edgefleet/controlplane/state"
	"github.com/edgefleet/edgefleet/fleet"
)

func services(origins ...string) command.HostPutConsul {
	return command.HostPutConsul{HostPut: change("a.example.com", "acme", origins...)}
}

// resolve says that one service of a host has some instances.
func resolve(name fleet.HostName, of fleet.TenantID, url string, instances ...string) command.OriginsResolve {
	r := fleet.ResolvedOrigin{URL: url, Condition: fleet.Condition{State: fleet.ConditionTrue, Since: noon}}
	for _, i := range instances {
		r.Instances = append(r.Instances, fleet.Origin{URL: i})
	}
	return command.OriginsResolve{Hosts: []fleet.HostOrigins{{Host: name, Tenant: of, Services: []fleet.ResolvedOrigin{r}}}}
}

func instances(v *state.View) (out []string) {
	o, _ := v.HostOrigins("a.example.com")
	for _, s := range o.Services {
		for _, i := range s.Instances {
			out = append(out, i.URL)
		}
	}
	return out
}

func holds(want ...string) func(*testing.T, *state.View) {
	return func(t *testing.T, v *state.View) {
		t.Helper()
		if diff := cmp.Diff(want, instances(v)); diff != "" {
			t.Error(diff)
		}
	}
}

func TestOriginsThatAreConsulServices(t *testing.T) {
	const a, web = "a.example.com", "consul://web?tag=blue"
	named := services(web, "https://203.0.113.1")
	known := resolve(a, "acme", web, "http://203.0.113.7:8080")
	open := with(tenant("acme"), func(b *command.TenantPut) {
		b.Create, b.Spec.AllowedOrigins = false, []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
	})
	none := command.OriginsResolve{Hosts: []fleet.HostOrigins{{Host: a, Tenant: "acme"}}}
	many := make([]command.Body, 0, 16)
	for i := range 8 {
		var urls []string
		for j := range fleet.MaxOriginsPerHost {
			urls = append(urls, fmt.Sprintf("consul://s%d", 16*i+j))
		}
		many = append(many, command.HostPutConsul{HostPut: with(host(fleet.HostName(fmt.Sprintf("m%d.example.org", i)), "acme", fmt.Sprintf("lm%d", i)), func(b *command.HostPut) { b.Spec = spec(urls...) })})
	}
	run(t, []testCase{
		{name: "a service is an origin beside a server", when: named, object: "host/" + a, of: "acme"},
		{name: "the command that older members know refuses it", when: change(a, "acme", web), refused: fleet.ErrInvalid, says: "http or https"},
		{name: "a service that is none is refused", when: services("consul://web:80"), refused: fleet.ErrInvalid, says: "consul://SERVICE"},
		{name: "a server beside a service is checked as ever", when: services(web, "https://10.0.0.1"), refused: fleet.ErrInvalid, says: "not public"},
		{name: "as many services as there may be", given: many[:7], when: many[7], object: "host/m7.example.org", of: "acme"},
		{name: "one service too many is refused", given: many, when: named, refused: fleet.ErrTooLarge, says: "128"},
		{name: "the same services again are no more", given: many, when: services("consul://s1?scheme=https"), object: "host/" + a, of: "acme"},

		{name: "instances are stored", given: []command.Body{named}, when: known, object: "origins/" + a, of: "acme", then: holds("http://203.0.113.7:8080")},
		{name: "those of a service that the host does not name are passed over", given: []command.Body{named, known}, when: resolve(a, "acme", "consul://web", "http://203.0.113.8"), entries: -1, then: holds("http://203.0.113.7:8080")},
		{name: "those of a host that is gone are passed over", given: []command.Body{named, command.HostDelete{Name: a, Tenant: "acme"}}, when: known, entries: -1, then: holds()},
		{name: "those of another tenant's host are passed over", given: []command.Body{named}, when: resolve(a, "beta", web, "http://203.0.113.7"), entries: -1, then: holds()},
		{name: "a private instance is passed over", given: []command.Body{named}, when: resolve(a, "acme", web, "http://10.0.0.7"), entries: -1, then: holds()},
		{name: "a private instance that the tenant may have is stored", given: []command.Body{named, open}, when: resolve(a, "acme", web, "http://10.0.0.7"), object: "origins/" + a, of: "acme", then: holds("http://10.0.0.7")},
		{name: "a metadata service never is", given: []command.Body{named, open}, when: resolve(a, "acme", web, "http://169.254.169.254"), entries: -1, then: holds()},
		{name: "an edge node is not", given: []command.Body{named}, when: resolve(a, "acme", web, "http://198.51.100.1"), entries: -1, then: holds()},
		{name: "a service is no instance", given: []command.Body{named}, when: resolve(a, "acme", web, "consul://web"), entries: -1, then: holds()},
		{name: "they are forgotten when the host names no service any more", given: []command.Body{named, known}, when: none, object: "origins/" + a, of: "acme", then: holds()},
		{name: "forgetting what is not there is no change", when: none, entries: -1},
		{name: "they go with the host", given: []command.Body{named, known}, when: command.HostDelete{Name: a, Tenant: "acme"}, object: "host/" + a, of: "acme", then: holds()},
	})
}
