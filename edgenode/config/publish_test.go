package config_test

import (
	"testing"

	"github.com/edgefleet/edgefleet/fleet"
)

func TestARenewedCertificateLeavesTheHostsAlone(t *testing.T) {
	c := newControl(t)
	e := c.open(t.TempDir())
	c.all(e)
	first, _ := e.table.Lookup("api.example.com")
	host := e.Snapshot().Hosts["api.example.com"]
	certs := func(generation uint64, origins ...fleet.BundleOriginCert) fleet.SignedHead {
		return c.head(fleet.HeadCerts, generation, oneTenant(fleet.CertsBundle{
			Tenant: "acme", Certificates: []fleet.BundleCert{c.certificate("acme", "api.example.com", generation, 5)}, Origins: origins,
		}))
	}

	c.apply(e, nil, certs(2))
	renewed, _ := e.table.Lookup("api.example.com")
	if renewed == nil || renewed == first || e.Snapshot().Hosts["api.example.com"] != host || e.Snapshot().Versions[fleet.HeadCerts].Generation != 2 || len(e.Snapshot().Challenges) != 0 {
		t.Errorf("the renewal: renewed %v, hosts made anew %v", renewed != first, e.Snapshot().Hosts["api.example.com"] != host)
	}
	c.apply(e, nil, c.head(fleet.HeadConfig, 2, oneTenant(hosts("acme", "api.example.com", "www.example.com"))))
	if now, _ := e.table.Lookup("api.example.com"); now != renewed || e.Snapshot().Hosts["www.example.com"] == nil {
		t.Error("a configuration with another host: not served, or another certificate")
	}
	c.apply(e, nil, certs(3, c.originCert("acme", originURL, 7, 5)))
	if shown(e) != 7 {
		t.Errorf("a certificate for an origin: shown %d, wanted 7", shown(e))
	}
	c.apply(e, nil, c.head(fleet.HeadRuleset, 2, oneTenant(ruleset("other"))))
	if shown(e) != 7 {
		t.Errorf("after other rules: shown %d, wanted 7", shown(e))
	}
	c.apply(e, nil, c.head(fleet.HeadCerts, 4, map[fleet.TenantID]any{}))
	if _, ok := e.table.Lookup("api.example.com"); ok || shown(e) != 0 {
		t.Errorf("without the tenant: its certificate is served (%v), or shown to origins (%d)", ok, shown(e))
	}
}
