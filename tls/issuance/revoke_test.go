package issuance_test

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"testing"

	"github.com/caddyserver/certmagic"

	"github.com/edgefleet/edgefleet/fleet"
)

func TestACertificateIsRevokedByTheAccountThatOrderedIt(t *testing.T) {
	e, ca := world(t, 0)
	storage := &certmagic.FileStorage{Path: t.TempDir()}
	i := newIssuer(t, e, ca.Directory, ca.Roots, storage)
	chain, _, err := order(t, i, "stolen.example.com", fleet.ChallengeDNS01)
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(chain)
	leaf, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	if status, _ := ca.Status(t, leaf.SerialNumber); status != "Valid" {
		t.Fatalf("the certificate is %s", status)
	}
	// A leader that dies after it asked leaves it to the next one.
	for range 2 {
		if err := newIssuer(t, e, ca.Directory, ca.Roots, storage).Revoke(t.Context(), chain, fleet.RevokeKeyCompromise); err != nil {
			t.Fatal(err)
		}
	}
	if status, reason := ca.Status(t, leaf.SerialNumber); status != "Revoked" || reason != 1 {
		t.Errorf("the CA says %s, reason %d", status, reason)
	}

	if err := i.Revoke(t.Context(), chain, "bored"); !errors.Is(err, fleet.ErrInvalid) {
		t.Errorf("a reason of one's own: %v", err)
	}
	stranger := newIssuer(t, e, ca.Directory, ca.Roots, &certmagic.FileStorage{Path: t.TempDir()})
	if err := stranger.Revoke(t.Context(), chain, fleet.RevokeKeyCompromise); !errors.Is(err, fleet.ErrNotFound) {
		t.Errorf("without an account: %v", err)
	}
}
