package config_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/edgefleet/edgefleet/edgenode/config"
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
		for _, kind := range fleet.HeadKinds {
			if err := config.DecodeBundle(kind, "acme", b); err != nil && strings.Contains(err.Error(), config.ErrPanicked) {
				t.Errorf("%s: %v", kind, err)
			}
		}
	})
}

func FuzzHeadsFile(f *testing.F) {
	f.Add([]byte(`{"format":1,"kinds":{"config":{"current":{"head":{},"key_id":"","signature":""}}}}`))
	f.Add([]byte(`{"format":1,"kinds":{"config":{"current":null,"previous":null}},"envelopes":[{}]}`))
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, b []byte) {
		write(t, dir, "heads.json", string(b))
		if err := config.DecodeHeads(dir); err != nil && !errors.Is(err, fleet.ErrCorrupt) {
			t.Errorf("not recognised as damage: %v", err)
		}
	})
}
