package controlplane_test

import (
	"crypto/ed25519"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/edgefleet/edgefleet/controlplane"
	"github.com/edgefleet/edgefleet/controlplane/keys"
	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/tls/keyring"
	"github.com/edgefleet/edgefleet/tls/mtls"
)

func TestAMembersCertificatesAreRenewedAtHalfTheirLife(t *testing.T) {
	const day = 24 * time.Hour
	cfg := newConfig(t, "m1", "/nowhere")
	identity := filepath.Join(cfg.DataDir, "identity")
	if err := os.MkdirAll(identity, 0o700); err != nil {
		t.Fatal(err)
	}
	kek, err := keyring.NewKEK()
	if err != nil {
		t.Fatal(err)
	}
	recovery, _, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	rec, err := keys.Generate("c-1", "edge.example", kek, recovery, now)
	if err != nil {
		t.Fatal(err)
	}
	if err := controlplane.IssueOwn(cfg, rec, kek, now); err != nil {
		t.Fatal(err)
	}
	k, err := keys.Open(rec, kek)
	if err != nil {
		t.Fatal(err)
	}
	var own []*mtls.Source
	for _, name := range []string{"member", "api"} {
		src, err := mtls.OpenSource(filepath.Join(identity, name+".crt"), filepath.Join(identity, name+".key"))
		if err != nil {
			t.Fatal(err)
		}
		own = append(own, src)
	}
	first := []time.Time{own[0].Certificate().Leaf.NotAfter, own[1].Certificate().Leaf.NotAfter}

	if err := controlplane.RenewOwn(cfg, rec.ID, own[0], own[1], k, now.Add(180*day)); err != nil {
		t.Fatal(err)
	}
	for i, src := range own {
		if got := src.Certificate().Leaf.NotAfter; !got.Equal(first[i]) {
			t.Errorf("certificate %d was renewed before half of its life: %s", i, got)
		}
	}
	if err := controlplane.RenewOwn(cfg, rec.ID, own[0], own[1], nil, now.Add(190*day)); !errors.Is(err, fleet.ErrSealed) {
		t.Errorf("without the key-encryption key: %v", err)
	}
	if err := controlplane.RenewOwn(cfg, rec.ID, own[0], own[1], k, now.Add(190*day)); err != nil {
		t.Fatal(err)
	}
	for i, src := range own {
		if got := src.Certificate().Leaf.NotAfter; got.Sub(first[i]).Round(day) != 190*day {
			t.Errorf("certificate %d ends at %s, before it was %s", i, got, first[i])
		}
	}
	if uris := own[0].Certificate().Leaf.URIs; len(uris) != 1 || uris[0].String() != fleet.MemberSPIFFE(rec.ID, "m1") {
		t.Errorf("identity %v", uris)
	}
	if err := own[1].Certificate().Leaf.VerifyHostname(cfg.Advertise); err != nil {
		t.Error(err)
	}
}
