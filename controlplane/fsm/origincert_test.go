package fsm_test

import (
	"strings"
	"testing"

	"github.com/edgefleet/edgefleet/controlplane/command"
	"github.com/edgefleet/edgefleet/controlplane/state"
	"github.com/edgefleet/edgefleet/fleet"
)

func originCert(h fleet.HostName, t fleet.TenantID, origin string, generation uint64) fleet.OriginCertRecord {
	return fleet.OriginCertRecord{OriginCert: fleet.OriginCert{Host: h, Tenant: t, Origin: origin, Generation: generation, SPKI: "spki", Chain: "chain"}, Key: sealedSecret()}
}

func TestCertificatesForOrigins(t *testing.T) {
	const a, origin, object = "a.example.com", "https://203.0.113.10", "origin_certificate/a.example.com"
	put := func(generation uint64) command.OriginCertPut {
		return command.OriginCertPut{Certificate: originCert(a, "acme", origin, generation)}
	}
	changed := func(change func(*fleet.OriginCertRecord)) command.OriginCertPut {
		return with(put(1), func(b *command.OriginCertPut) { change(&b.Certificate) })
	}
	has := func(generations ...uint64) func(*testing.T, *state.View) {
		return func(t *testing.T, v *state.View) {
			t.Helper()
			got := v.OriginCertsOf(a)
			if len(got) != len(generations) || len(got) > 0 && got[0].Generation != generations[0] {
				t.Errorf("%+v, want generations %v", got, generations)
			}
		}
	}
	full := []command.Body{
		change(a, "acme", origin),
	}
	for i := range fleet.MaxTenantOriginCertBytes / fleet.MaxOriginChainBytes {
		if i%fleet.MaxOriginsPerHost == 0 {
			name := fleet.HostName("f" + strings.Repeat("x", i/fleet.MaxOriginsPerHost) + ".example.org")
			urls := make([]string, fleet.MaxOriginsPerHost)
			for j := range urls {
				urls[j] = "https://203.0.113.10:" + string(rune('1'+j/10)) + string(rune('0'+j%10))
			}
			full = append(full, with(host(name, "acme", "lf"+strings.Repeat("x", i/fleet.MaxOriginsPerHost)), func(b *command.HostPut) { b.Spec = spec(urls...) }))
		}
		c := originCert(full[len(full)-1-i%fleet.MaxOriginsPerHost].(command.HostPut).Name, "acme", "https://203.0.113.10:"+string(rune('1'+i%fleet.MaxOriginsPerHost/10))+string(rune('0'+i%fleet.MaxOriginsPerHost%10)), 1)
		c.Chain = strings.Repeat("c", fleet.MaxOriginChainBytes)
		full = append(full, command.OriginCertPut{Certificate: c})
	}
	run(t, []testCase{
		{name: "the first is stored", when: put(1), object: object, of: "acme", then: has(1)},
		{name: "the next takes its place", given: []command.Body{put(1)}, when: put(2), object: object, of: "acme", then: has(2)},
		{name: "one that was made of what is not there any more is refused", given: []command.Body{put(1)}, when: put(1), refused: fleet.ErrChanged, says: "generation 1"},
		{name: "one for an origin that the host does not have is refused", when: changed(func(c *fleet.OriginCertRecord) { c.Origin = "https://203.0.113.99" }), refused: fleet.ErrNotFound, says: "has no origin"},
		{name: "one for an origin without TLS is refused", given: []command.Body{change(a, "acme", "http://203.0.113.10")}, when: changed(func(c *fleet.OriginCertRecord) { c.Origin = "http://203.0.113.10" }), refused: fleet.ErrInvalid, says: "use https"},
		{name: "one for a Consul service is stored", given: []command.Body{services("consul://web")}, when: changed(func(c *fleet.OriginCertRecord) { c.Origin = "consul://web" }), object: object, of: "acme", then: has(1)},
		{name: "one for another tenant's host is refused", when: changed(func(c *fleet.OriginCertRecord) { c.Tenant = "beta" }), refused: fleet.ErrNotFound},
		{name: "one for a host that is not there is refused", when: changed(func(c *fleet.OriginCertRecord) { c.Host = "none.example.com" }), refused: fleet.ErrNotFound},
		{name: "a chain that is too long is refused", when: changed(func(c *fleet.OriginCertRecord) { c.Chain = strings.Repeat("c", fleet.MaxOriginChainBytes+1) }), refused: fleet.ErrTooLarge},
		{name: "a key that is too long is refused", when: changed(func(c *fleet.OriginCertRecord) { c.Key.Ciphertext = make([]byte, fleet.MaxOriginKeyBytes+1) }), refused: fleet.ErrTooLarge},
		{name: "no key is refused", when: changed(func(c *fleet.OriginCertRecord) { c.Key.Ciphertext = nil }), refused: fleet.ErrTooLarge},
		{name: "more than a tenant may have is refused", given: full, when: put(1), refused: fleet.ErrTooLarge, says: "limit is"},
		{name: "it is removed", given: []command.Body{put(1)}, when: command.OriginCertDelete{Host: a, Tenant: "acme", Origin: origin}, object: object, of: "acme", then: has()},
		{name: "another tenant does not remove it", given: []command.Body{put(1)}, when: command.OriginCertDelete{Host: a, Tenant: "beta", Origin: origin}, refused: fleet.ErrNotFound},
		{name: "what is not there is not removed", when: command.OriginCertDelete{Host: a, Tenant: "acme", Origin: origin}, refused: fleet.ErrNotFound},
		{name: "it stays with its origin", given: []command.Body{put(1)}, when: change(a, "acme", origin, "https://203.0.113.11"), object: "host/" + a, of: "acme", then: has(1)},
		{name: "it goes with its origin", given: []command.Body{put(1)}, when: change(a, "acme", "https://203.0.113.11"), object: "host/" + a, of: "acme", then: has()},
		{name: "it goes with its host", given: []command.Body{put(1)}, when: command.HostDelete{Name: a, Tenant: "acme"}, object: "host/" + a, of: "acme", then: has()},
	})
}
