package issuance_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"

	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/observability"
	"github.com/edgefleet/edgefleet/tls/issuance"
	"github.com/edgefleet/edgefleet/tls/issuance/pebbletest"
)

func TestARenewalIsAskedForAndNamesWhatItReplaces(t *testing.T) {
	e, ca := world(t, 0)
	i := newIssuer(t, e, ca.Directory, ca.Roots, &certmagic.FileStorage{Path: t.TempDir()})
	chain, _, err := order(t, i, "renewed.example.com", fleet.ChallengeDNS01)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := issuance.Describe(chain)
	if err != nil {
		t.Fatal(err)
	}
	w, ok, err := i.Renewal(t.Context(), chain)
	if err != nil || !ok || !w.End.After(w.Start) || w.Start.Before(leaf.NotBefore) || w.End.After(leaf.NotAfter) || !w.Again.After(time.Now()) {
		t.Fatalf("%+v, %v, %v", w, ok, err)
	}
	var saved []string
	for n, want := range []int{1, 1} { // what was replaced once is renewed without naming it
		_, csr, _, err := issuance.NewKeyAndCSR("renewed.example.com")
		if err != nil {
			t.Fatal(err)
		}
		r := request("renewed.example.com", csr, fleet.ChallengeDNS01)
		r.Replaces = string(chain)
		r.Save = func(_ context.Context, asked bool, url string) error {
			if !asked {
				t.Error("saved as not asked")
			}
			saved = append(saved, url)
			return nil
		}
		if _, err := i.Issue(t.Context(), r); err != nil {
			t.Fatal(err)
		}
		if got := ca.Replaced(); got != want {
			t.Errorf("renewal %d: %d orders replaced a certificate, want %d", n, got, want)
		}
	}
	if len(saved) != 4 || saved[0] != "" || !strings.Contains(saved[1], "my-order") {
		t.Errorf("saved %q", saved)
	}
	if _, _, err := i.Renewal(t.Context(), []byte("x")); !errors.Is(err, fleet.ErrInvalid) {
		t.Errorf("no chain: %v", err)
	}
}

func TestAnExternalAccountIsBound(t *testing.T) {
	const key = "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W"
	ca := pebbletest.Start(t, pebbletest.Options{Resolver: "127.0.0.1:1", HTTPPort: 1, ExternalAccounts: map[string]string{"kid-1": key}})
	for _, tc := range []struct {
		name, says string
		account    *issuance.ExternalAccount
	}{
		{"none", "acme.external_account_id", nil},
		{"a wrong key", "", &issuance.ExternalAccount{KeyID: "kid-1", MACKey: strings.Repeat("A", 64)}},
		{"no key", "base64url", &issuance.ExternalAccount{KeyID: "kid-1", MACKey: "not base64!"}},
		{"the right one: the CA goes on to the name, which it blocks", "rejectedIdentifier", &issuance.ExternalAccount{KeyID: "kid-1", MACKey: key}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			i, err := issuance.New(issuance.Options{
				Directory: ca.Directory, Roots: ca.Roots, Storage: &certmagic.FileStorage{Path: t.TempDir()}, Challenges: &edge{}, ExternalAccount: tc.account, Telemetry: observability.Discard(),
			})
			if err != nil {
				t.Fatal(err)
			}
			_, _, err = order(t, i, "www.blocked.example", fleet.ChallengeDNS01)
			if err == nil || !strings.Contains(err.Error(), tc.says) || tc.says == "" && strings.Contains(err.Error(), "rejectedIdentifier") {
				t.Error(err)
			}
		})
	}
}
