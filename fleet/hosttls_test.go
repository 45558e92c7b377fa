package fleet_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/edgefleet/edgefleet/fleet"
)

// certificate is a self-signed one, PEM, of an authority or not, and its key.
func certificate(t *testing.T, authority bool) (cert, key string) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader) //nolint:forbidigo // a test makes a key
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC), IsCA: authority, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, k.Public(), k) //nolint:forbidigo // as above
	if err != nil {
		t.Fatal(err)
	}
	kder, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	encode := func(kind string, b []byte) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: b}))
	}
	return encode("CERTIFICATE", der), encode("PRIVATE KEY", kder)
}

func TestHowClientsReachAHostIsChecked(t *testing.T) {
	ca, key := certificate(t, true)
	leaf, _ := certificate(t, false)
	auth := func(a fleet.ClientAuth, ca string) fleet.HostTLS { return fleet.HostTLS{ClientAuth: a, ClientCA: ca} }
	hsts := func(age int, sub, preload bool) fleet.HostTLS {
		return fleet.HostTLS{HSTS: fleet.HSTS{MaxAge: age, IncludeSubdomains: sub, Preload: preload}}
	}
	const year = 365 * 24 * 3600
	for _, tc := range []struct {
		name string
		tls  fleet.HostTLS
		says string // empty: accepted
	}{
		{"nothing", fleet.HostTLS{}, ""},
		{"TLS 1.2", fleet.HostTLS{MinVersion: "1.2"}, ""},
		{"TLS 1.3", fleet.HostTLS{MinVersion: "1.3"}, ""},
		{"TLS 1.1", fleet.HostTLS{MinVersion: "1.1"}, "use 1.2 or 1.3"},
		{"HSTS for a day", hsts(86400, false, false), ""},
		{"HSTS for ever", hsts(2*year, true, true), ""},
		{"HSTS for longer", hsts(2*year+1, false, false), "two years"},
		{"HSTS for less than nothing", hsts(-1, false, false), "two years"},
		{"HSTS of subdomains for no time", hsts(0, true, false), "max-age"},
		{"HSTS in browsers for a day", hsts(86400, true, true), "preload needs"},
		{"HSTS in browsers without subdomains", hsts(year, false, true), "preload needs"},
		{"clients that must show a certificate", auth(fleet.ClientAuthRequired, ca), ""},
		{"clients that may", auth(fleet.ClientAuthOptional, ca+"\n"+ca), ""},
		{"clients with nothing to verify by", auth(fleet.ClientAuthRequired, ""), "no CA"},
		{"a CA for nothing", auth(fleet.ClientAuthNone, ca), "clients are asked for none"},
		{"another word", auth("always", ca), `"always"`},
		{"a file that is none", auth(fleet.ClientAuthRequired, "hello"), "PEM"},
		{"a file with more behind it", auth(fleet.ClientAuthRequired, ca+"hello"), "PEM"},
		{"a blank file", auth(fleet.ClientAuthRequired, " \n"), "0 CA certificates"},
		{"a private key", auth(fleet.ClientAuthRequired, ca+key), "private key"},
		{"too many", auth(fleet.ClientAuthRequired, strings.Repeat(ca, fleet.MaxCACertificates+1)), "CA certificates"},
		{"too much", auth(fleet.ClientAuthRequired, strings.Repeat(" ", fleet.MaxCABytes)+ca), "the limit is"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			h := host()
			h.Spec.TLS = tc.tls
			err := h.Validate()
			if (err == nil) != (tc.says == "") || err != nil && !strings.Contains(err.Error(), tc.says) {
				t.Errorf("got %v, want %q", err, tc.says)
			}
			if err != nil && strings.Contains(err.Error(), key[40:60]) {
				t.Errorf("the key is in the message: %v", err)
			}
		})
	}
	for name, text := range map[string]string{
		"a certificate that may not sign": leaf,
		"what is no certificate":          string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("hello")})),
	} {
		if err := auth(fleet.ClientAuthRequired, text).Validate(); err != nil {
			t.Errorf("%s: the log decides by what a version of x509 takes: %v", name, err)
		}
		if err := (fleet.HostSpec{TLS: auth(fleet.ClientAuthRequired, text)}).CheckCAs(); !errors.Is(err, fleet.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
		if err := (fleet.HostSpec{Origins: []fleet.Origin{{CA: ca}, {CA: text}}}).CheckCAs(); !errors.Is(err, fleet.ErrInvalid) {
			t.Errorf("%s, of an origin: %v", name, err)
		}
	}
	if err := (fleet.HostSpec{TLS: auth(fleet.ClientAuthRequired, ca), Origins: []fleet.Origin{{}, {CA: ca}}}).CheckCAs(); err != nil {
		t.Error(err)
	}
}

func TestHowRequestsReachOriginsIsChecked(t *testing.T) {
	ca, _ := certificate(t, true)
	check := func(c fleet.HealthCheck) fleet.HostSpec {
		return fleet.HostSpec{Forwarding: fleet.Forwarding{Health: c}}
	}
	origin := func(o fleet.Origin) fleet.HostSpec { return fleet.HostSpec{Origins: []fleet.Origin{o}} }
	for _, tc := range []struct {
		name string
		spec fleet.HostSpec
		says string
	}{
		{"turns", fleet.HostSpec{}, ""},
		{"affinity", fleet.HostSpec{Forwarding: fleet.Forwarding{Affinity: fleet.AffinityClientIP}}, ""},
		{"another affinity", fleet.HostSpec{Forwarding: fleet.Forwarding{Affinity: "cookie"}}, "client_ip"},
		{"limits", fleet.HostSpec{Forwarding: fleet.Forwarding{ConnectSeconds: 60, ResponseSeconds: 600, MaxConnections: 10_000}}, ""},
		{"a wait that is too long", fleet.HostSpec{Forwarding: fleet.Forwarding{ConnectSeconds: 61}}, "connect_seconds"},
		{"a wait in the past", fleet.HostSpec{Forwarding: fleet.Forwarding{ResponseSeconds: -1}}, "out of range"},
		{"a check", check(fleet.HealthCheck{Path: "/healthz?full=1", IntervalSeconds: 1, Unhealthy: 20}), ""},
		{"a check of nothing", check(fleet.HealthCheck{IntervalSeconds: 1}), "path"},
		{"a check of a host", check(fleet.HealthCheck{Path: "//evil.example"}), ""},
		{"a check of another scheme", check(fleet.HealthCheck{Path: "http://evil.example"}), "is not a path"},
		{"a check that splits a request", check(fleet.HealthCheck{Path: "/ HTTP/1.1\r\nHost: x"}), "is not a path"},
		{"a check that is too long", check(fleet.HealthCheck{Path: "/" + strings.Repeat("a", 1024)}), "is not a path"},
		{"a check too rarely", check(fleet.HealthCheck{Path: "/", IntervalSeconds: 3601}), "interval"},
		{"a name and a CA", origin(fleet.Origin{URL: "https://203.0.113.1", ServerName: "o.example.net", CA: ca}), ""},
		{"a name of a service", origin(fleet.Origin{URL: "consul://web?scheme=https", ServerName: "o.example.net"}), ""},
		{"a name without TLS", origin(fleet.Origin{URL: "http://203.0.113.1", ServerName: "o.example.net"}), "not reached by TLS"},
		{"a CA without TLS", origin(fleet.Origin{URL: "h2c://203.0.113.1", CA: ca}), "not reached by TLS"},
		{"a name that is none", origin(fleet.Origin{URL: "https://203.0.113.1", ServerName: "*.example.net"}), "not the name of a certificate"},
		{"a CA that is none", origin(fleet.Origin{URL: "https://203.0.113.1", CA: "hello"}), "PEM"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			h := host()
			h.Spec.Forwarding = tc.spec.Forwarding
			if tc.spec.Origins != nil {
				h.Spec.Origins = tc.spec.Origins
			}
			if err := h.Validate(); (err == nil) != (tc.says == "") || err != nil && !strings.Contains(err.Error(), tc.says) {
				t.Errorf("got %v, want %q", err, tc.says)
			}
		})
	}
}

func TestAHostWithoutThemIsWrittenAsEver(t *testing.T) {
	b, err := json.Marshal(host().Spec)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(`{"origins":[{"url":"https://203.0.113.10"}],"mode":"block"}`, string(b)); diff != "" {
		t.Error(diff)
	}
}
