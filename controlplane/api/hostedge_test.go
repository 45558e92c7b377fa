package api_test

import (
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/edgefleet/edgefleet/controlplane/client"
	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/tls/mtls"
)

// selfSigned is a certificate, PEM, of an authority or not.
func selfSigned(t *testing.T, authority bool) string {
	t.Helper()
	key, err := mtls.NewKey()
	must(t, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IsCA: authority, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	must(t, err)
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

func TestHowAHostIsReachedIsSetByTheAPI(t *testing.T) {
	f := open(t, 1)
	acme := f.at(0, f.tenant("acme", fleet.SecurityEdge))
	ca := selfSigned(t, true)
	const hosts, path = "/v1/tenants/acme/hosts", "/v1/tenants/acme/hosts/www.acme.example"
	tls := fleet.HostTLS{MinVersion: "1.3", HSTS: fleet.HSTS{MaxAge: 60}, ClientAuth: fleet.ClientAuthRequired, ClientCA: ca}
	forwarding := fleet.Forwarding{Affinity: fleet.AffinityClientIP, Health: fleet.HealthCheck{Path: "/healthz"}}
	origins := []fleet.Origin{{URL: "https://203.0.113.1", ServerName: "o.example.net", CA: ca}, {URL: "h2c://203.0.113.1:50051"}}
	var h client.HostView
	acme.call("POST", hosts, client.HostCreate{Name: "www.acme.example", Origins: origins, TLS: &tls, Forwarding: &forwarding}).want(201).into(&h)
	want := fleet.HostSpec{Origins: origins, Mode: fleet.ModeMonitoring, TLS: tls, Forwarding: forwarding}
	if diff := cmp.Diff(want, h.Spec); diff != "" {
		t.Error(diff)
	}
	none := fleet.HostTLS{}
	acme.with("If-Match", "*").call("PATCH", path, client.HostUpdate{TLS: &none}).want(200)
	var after client.HostView
	acme.call("GET", path, nil).want(200).into(&after)
	if after.Spec.TLS != none || after.Spec.Forwarding != forwarding {
		t.Errorf("%+v", after.Spec)
	}
	for name, change := range map[string]client.HostUpdate{
		"a certificate that may not sign, for clients":   {TLS: &fleet.HostTLS{ClientAuth: fleet.ClientAuthRequired, ClientCA: selfSigned(t, false)}},
		"a certificate that may not sign, for an origin": {Origins: &[]fleet.Origin{{URL: "https://203.0.113.1", CA: selfSigned(t, false)}}},
		"an authority for nobody":                        {TLS: &fleet.HostTLS{ClientCA: ca}},
		"a check without a path":                         {Forwarding: &fleet.Forwarding{Health: fleet.HealthCheck{IntervalSeconds: 5}}},
		"a private origin":                               {Origins: &[]fleet.Origin{{URL: "h2c://10.0.0.1"}}},
		"an origin of the edge":                          {Origins: &[]fleet.Origin{{URL: "h2c://[64:ff9b::a9fe:a9fe]"}}},
	} {
		if a := acme.with("If-Match", "*").call("PATCH", path, change); a.status != 422 {
			t.Errorf("%s: %d", name, a.status)
		}
	}
}
