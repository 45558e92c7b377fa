package config_test

import (
	"crypto/x509"
	"encoding/pem"
	"strings"
	"testing"

	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/tls/keyring"
)

// originCert makes a bundle entry of a certificate for an origin of api.example.com, sealed in epoch.
func (c *control) originCert(tenant fleet.TenantID, origin string, generation, epoch uint64, servers ...string) fleet.BundleOriginCert {
	c.t.Helper()
	const host = "api.example.com"
	made := c.certificate(tenant, host, generation, epoch)
	der, err := c.groupKey(epoch).Open(made.Key, keyring.CertKeyAAD(tenant, host, made.SPKI, generation))
	if err != nil {
		c.t.Fatal(err)
	}
	out := fleet.BundleOriginCert{Host: host, Origin: origin, Servers: servers, Generation: generation, SPKI: made.SPKI, Chain: made.Chain}
	out.Key, err = c.groupKey(epoch).Seal(der, keyring.OriginKeyAAD(fleet.OriginCert{Tenant: tenant, Host: host, Origin: origin, SPKI: made.SPKI, Generation: generation}))
	if err != nil {
		c.t.Fatal(err)
	}
	return out
}

const originURL = "https://203.0.113.10"

// shown is the serial of what the host's only origin is shown; 0 for nothing.
func shown(e edge) int64 {
	h := e.Snapshot().Hosts["api.example.com"]
	cert := h.OriginCerts.Of(h.Origins[0])
	if cert == nil {
		return 0
	}
	return cert.Leaf.SerialNumber.Int64()
}

func TestCertificatesForOriginsComeWithThoseOfHosts(t *testing.T) {
	c, dir := newControl(t), t.TempDir()
	e := c.open(dir)
	one := c.originCert("acme", originURL, 1, 5)
	heads := func(generation uint64, certs ...fleet.BundleOriginCert) fleet.SignedHead {
		return c.head(fleet.HeadCerts, generation, oneTenant(fleet.CertsBundle{Tenant: "acme", Origins: certs}))
	}
	c.apply(e, c.envelope(5), c.head(fleet.HeadConfig, 1, oneTenant(hosts("acme", "api.example.com"))), heads(1, one))
	if shown(e) != 1 || shown(c.open(dir)) != 1 {
		t.Fatalf("shown %d, after a restart %d", shown(e), shown(c.open(dir)))
	}
	before := e.Snapshot().Hosts["api.example.com"].OriginCerts

	// A new epoch of the group's key brings the same certificate.
	der, err := c.groupKey(5).Open(one.Key, keyring.OriginKeyAAD(fleet.OriginCert{Tenant: "acme", Host: one.Host, Origin: one.Origin, SPKI: one.SPKI, Generation: 1}))
	if err != nil {
		t.Fatal(err)
	}
	again := one
	again.Key, err = c.groupKey(6).Seal(der, keyring.OriginKeyAAD(fleet.OriginCert{Tenant: "acme", Host: one.Host, Origin: one.Origin, SPKI: one.SPKI, Generation: 1}))
	if err != nil {
		t.Fatal(err)
	}
	c.apply(e, c.envelope(6), heads(2, again))
	if now := e.Snapshot().Hosts["api.example.com"].OriginCerts; !now.Same(before) {
		t.Error("a new epoch makes other certificates, so that connections would be dropped")
	}
	c.apply(e, c.envelope(6), heads(3, c.originCert("acme", originURL, 2, 6)))
	if now := e.Snapshot().Hosts["api.example.com"].OriginCerts; now.Same(before) || shown(e) != 2 {
		t.Errorf("the next one: shown %d", shown(e))
	}
	c.apply(e, c.envelope(6), heads(4, c.originCert("acme", "consul://web", 3, 6, "https://203.0.113.9", originURL)))
	if shown(e) != 3 {
		t.Errorf("an instance of a service: shown %d", shown(e))
	}
	c.apply(e, c.envelope(6), heads(5))
	if shown(e) != 0 {
		t.Error("one that was removed is shown")
	}
}

func TestACertificateForAnOriginThatDoesNotBelongThereIsRefused(t *testing.T) {
	c := newControl(t)
	e := c.open(t.TempDir())
	c.apply(e, c.envelope(5), c.head(fleet.HeadConfig, 1, oneTenant(hosts("acme", "api.example.com"))))
	good := func(change func(*fleet.BundleOriginCert)) fleet.BundleOriginCert {
		b := c.originCert("acme", originURL, 1, 5)
		change(&b)
		return b
	}
	plain, _ := pem.Decode([]byte(good(func(*fleet.BundleOriginCert) {}).Chain))
	if _, err := x509.ParseCertificate(plain.Bytes); err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string]fleet.BundleOriginCert{
		"another tenant's key":    c.originCert("beta", originURL, 1, 5),
		"another origin's key":    good(func(b *fleet.BundleOriginCert) { b.Origin = "https://203.0.113.99" }),
		"an older generation":     good(func(b *fleet.BundleOriginCert) { b.Generation = 2 }),
		"another chain":           good(func(b *fleet.BundleOriginCert) { b.Chain = c.certificate("acme", "api.example.com", 1, 5).Chain }),
		"a chain over the limit":  good(func(b *fleet.BundleOriginCert) { b.Chain += strings.Repeat(" ", fleet.MaxOriginChainBytes) }),
		"a server that is no URL": good(func(b *fleet.BundleOriginCert) { b.Servers = []string{"none"} }),
		"a host that is no name":  good(func(b *fleet.BundleOriginCert) { b.Host = "-" }),
	} {
		t.Run(name, func(t *testing.T) {
			reports := c.apply(e, c.envelope(5), c.head(fleet.HeadCerts, 1, oneTenant(fleet.CertsBundle{Tenant: "acme", Origins: []fleet.BundleOriginCert{b}})))
			if len(reports) != 1 || reports[0].Reason == "" || shown(e) != 0 {
				t.Errorf("%+v, shown %d", reports, shown(e))
			}
		})
	}
}
