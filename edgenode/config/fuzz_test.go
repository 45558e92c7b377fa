package config_test

import (
	"encoding/json"
	"testing"

	"github.com/edgefleet/edgefleet/fleet"
)

// FuzzBundle feeds tenants' bundles of every kind, as a control plane with a fault would sign them.
func FuzzBundle(f *testing.F) {
	for _, seed := range []any{
		hosts("acme", "api.example.com"), ruleset("a+b"),
		fleet.CertsBundle{Tenant: "acme", Certificates: []fleet.BundleCert{{Host: "a.example.com", Key: fleet.Sealed{Key: "group/default/5"}}}, Challenges: []fleet.BundleChallenge{{Host: "a.example.com", Token: "t"}}},
	} {
		b, err := json.Marshal(seed)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		c := newControl(t)
		e := c.open(t.TempDir())
		for _, kind := range fleet.HeadKinds {
			served := e.Snapshot()
			reports := c.apply(e, c.envelope(5), c.head(kind, 1, oneTenant(b)))
			if len(reports) > 1 || len(reports) == 1 && reports[0].Reason != "" && e.Snapshot() != served {
				t.Errorf("%s: %+v", kind, reports)
			}
		}
	})
}
