package blobs_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/edgefleet/edgefleet/controlplane/command"
	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/tls/keyring"
)

func TestCertificatesForOriginsAreDerivedForTheNodesOfTheirGroup(t *testing.T) {
	const web = "consul://web?scheme=https"
	f := newFleet(t)
	put := func(h fleet.HostName, origin string) {
		t.Helper()
		c := fleet.OriginCert{Host: h, Tenant: "acme", Origin: origin, Generation: 1, SPKI: "spki", Chain: "chain"}
		sealed, err := f.kek.Seal([]byte(customerKey), keyring.OriginKeyAAD(c))
		if err != nil {
			t.Fatal(err)
		}
		f.apply(command.OriginCertPut{Certificate: fleet.OriginCertRecord{OriginCert: c, Key: sealed}})
	}
	put("www.example.com", "https://203.0.113.1")
	service := host("web.example.com", "acme", "l9")
	service.Spec.Origins = []fleet.Origin{{URL: web}}
	f.apply(command.HostPutConsul{HostPut: service})
	put("web.example.com", web) // of which no instance is known yet
	f.refresh()
	config := f.members[0].Root("default", "config")

	bundle := leaf[fleet.CertsBundle](t, f.members[0], "default", "certs", "acme")
	if len(bundle.Origins) != 1 || bundle.Origins[0].Host != "www.example.com" || bundle.Origins[0].Chain != "chain" || bundle.Origins[0].Servers != nil {
		t.Fatalf("%+v", bundle.Origins)
	}
	if diff := cmp.Diff(bundle, leaf[fleet.CertsBundle](t, f.members[1], "default", "certs", "acme")); diff != "" {
		t.Errorf("members derive different bytes: %s", diff)
	}
	group, err := f.members[0].keys.Group("default", f.members[0].state.Read().EpochKey("default"))
	if err != nil {
		t.Fatal(err)
	}
	b := bundle.Origins[0]
	if plain, err := group.Open(b.Key, keyring.OriginKeyAAD(fleet.OriginCert{Tenant: "acme", Host: b.Host, Origin: b.Origin, SPKI: b.SPKI, Generation: b.Generation})); err != nil || string(plain) != customerKey {
		t.Errorf("%q %v", plain, err)
	}

	// The instances of a service, as soon as they are known; those without TLS are shown nothing.
	f.apply(command.OriginsResolve{Hosts: []fleet.HostOrigins{{Host: "web.example.com", Tenant: "acme", Services: []fleet.ResolvedOrigin{{
		URL: web, Instances: []fleet.Origin{{URL: "https://203.0.113.7:8443"}, {URL: "http://203.0.113.8"}},
	}}}}})
	f.refresh()
	if f.members[0].Root("default", "config") == config {
		t.Error("the configuration did not get the instances")
	}
	origins := leaf[fleet.CertsBundle](t, f.members[0], "default", "certs", "acme").Origins
	if len(origins) != 2 || !cmp.Equal(origins[0].Servers, []string{"https://203.0.113.7:8443"}) {
		t.Errorf("%+v", origins)
	}
	f.apply(command.OriginCertDelete{Host: "www.example.com", Tenant: "acme", Origin: "https://203.0.113.1"})
	f.refresh()
	if left := leaf[fleet.CertsBundle](t, f.members[0], "default", "certs", "acme").Origins; len(left) != 1 {
		t.Errorf("%+v", left)
	}
}
