package config_test

import (
	"strings"
	"testing"

	"github.com/edgefleet/edgefleet/fleet"
)

func (c *control) certsOf(generation, epoch uint64, hosts ...fleet.HostName) fleet.SignedHead {
	b := fleet.CertsBundle{Tenant: "acme"}
	for _, h := range hosts {
		b.Certificates = append(b.Certificates, c.certificate("acme", h, generation, epoch))
	}
	return c.head(fleet.HeadCerts, generation, oneTenant(b))
}

func TestAReplayedEpochIsRefused(t *testing.T) {
	c, dir := newControl(t), t.TempDir()
	e := c.open(dir)
	c.apply(e, c.envelope(5), c.certsOf(1, 5, "api.example.com"))
	c.apply(e, c.envelope(6), c.certsOf(2, 6, "api.example.com"))
	c.apply(e, c.envelope(7), c.certsOf(3, 7, "api.example.com"))
	for name, open := range map[string]func() edge{"": func() edge { return e }, "after a restart": func() edge { return c.open(dir) }} {
		t.Run(name, func(t *testing.T) {
			e := open()
			// The head is signed and newer, so that only the epoch can be what is wrong with it: this node had epoch 5
			// and gave it up, whoever has its key.
			for _, r := range c.apply(e, c.envelope(5), c.certsOf(9, 5, "api.example.com")) {
				if !strings.Contains(r.Reason, "of epoch 5; those that are served are of epoch 7") {
					t.Errorf("report %+v", r)
				}
			}
			if got := served(e); got["certs"] != uint64(3) || got["certificates"] != 1 {
				t.Errorf("served %v", got)
			}
			// An older head is refused however its keys are sealed.
			reports := c.apply(e, c.envelope(7), c.certsOf(2, 7, "evil.example.com"))
			if len(reports) != 1 || !strings.Contains(reports[0].Reason, "2") || reports[0].Reason == "" {
				t.Errorf("reports %+v", reports)
			}
			if _, ok := e.table.Lookup("evil.example.com"); ok {
				t.Error("an older generation is served")
			}
		})
	}
}

func TestKeysOfTwoTenantsThatAreSwappedAreRefused(t *testing.T) {
	c := newControl(t)
	e := c.open(t.TempDir())
	pair := func(swap bool) map[fleet.TenantID]any {
		a, b := c.certificate("acme", "a.example.com", 1, 5), c.certificate("beta", "b.example.com", 1, 5)
		if swap {
			a.Key, b.Key = b.Key, a.Key
		}
		return map[fleet.TenantID]any{
			"acme": fleet.CertsBundle{Tenant: "acme", Certificates: []fleet.BundleCert{a}}, "beta": fleet.CertsBundle{Tenant: "beta", Certificates: []fleet.BundleCert{b}},
		}
	}
	if reports := c.apply(e, c.envelope(5), c.head(fleet.HeadCerts, 1, pair(false))); len(reports) != 1 || reports[0].Reason != "" {
		t.Fatalf("reports %+v", reports)
	}
	before, _ := e.table.Lookup("a.example.com")
	reports := c.apply(e, c.envelope(5), c.head(fleet.HeadCerts, 2, pair(true)))
	if len(reports) != 1 || !strings.Contains(reports[0].Reason, "does not open") {
		t.Errorf("reports %+v", reports)
	}
	if after, _ := e.table.Lookup("a.example.com"); after != before || e.table.Len() != 2 {
		t.Error("what was served is disturbed")
	}
}
