package faulttest_test

import (
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	mathrand "math/rand/v2"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/edgefleet/edgefleet/controlplane/api"
	"github.com/edgefleet/edgefleet/controlplane/faulttest"
	"github.com/edgefleet/edgefleet/controlplane/keys"
	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/tls/keyring"
)

var damages = flag.Int("damages", 24, "how many seeded damages to a member's directory to try")

// TestADamagedDirectoryIsRefusedOrWhole damages the directory of a member that stopped, again and again: it must refuse to
// open, as corrupt, or come back with everything that it acknowledged.
func TestADamagedDirectoryIsRefusedOrWhole(t *testing.T) {
	good := filepath.Join(t.TempDir(), "raft")
	ledger := faulttest.NewLedger()
	synctest.Test(t, func(t *testing.T) { fill(t, good, ledger) })
	refused, whole := 0, 0
	for i := range *damages {
		seed := *first + uint64(i) //nolint:gosec // a small number
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			bad := filepath.Join(t.TempDir(), "raft")
			how, err := faulttest.Damaged(good, bad, mathrand.New(mathrand.NewPCG(seed, 3)))
			if err != nil {
				t.Fatal(err)
			}
			synctest.Test(t, func(t *testing.T) {
				if reopen(t, bad, ledger) {
					refused++
				} else {
					whole++
				}
			})
			if t.Failed() {
				t.Logf("seed %d: %s", seed, how)
			}
		})
	}
	t.Logf("%d were refused, %d came back whole", refused, whole)
	if *damages > 5 && refused == 0 || *damages > 20 && whole == 0 {
		t.Errorf("%d refused and %d whole: the damages prove nothing", refused, whole)
	}
}

func fill(t *testing.T, dir string, l *faulttest.Ledger) {
	t.Helper()
	kek, err := keyring.NewKEK()
	if err != nil {
		t.Fatal(err)
	}
	recovery, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	record, err := keys.Generate("c-fault", "edge.example", kek, recovery, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	token, _ := api.NewToken(fleet.Token{Role: fleet.RoleOperator})
	s, err := faulttest.OpenSolo("m1", dir, l)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Fill(t.Context(), record, token); err != nil {
		t.Error(err)
	}
	faulttest.CheckFleet(t, l, []faulttest.Standing{s.Standing()})
	if err := s.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

// reopen reports whether the directory was refused.
func reopen(t *testing.T, dir string, l *faulttest.Ledger) bool {
	t.Helper()
	s, err := faulttest.OpenSolo("m1", dir, l)
	if err != nil {
		if !errors.Is(err, fleet.ErrCorrupt) {
			t.Errorf("refused, but not as corrupt: %v", err)
		}
		return true
	}
	if err := s.Lead(t.Context()); err != nil {
		t.Error(err)
	}
	faulttest.CheckFleet(t, l, []faulttest.Standing{s.Standing()})
	if err := s.Close(t.Context()); err != nil {
		t.Error(err)
	}
	return false
}
