package keyring_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/tls/keyring"
)

func TestAKEKIsRotatedInItsFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "kek")
	first, err := keyring.NewKEK()
	if err != nil {
		t.Fatal(err)
	}
	if err := first.Save(path); err != nil {
		t.Fatal(err)
	}
	old := first.Names()[0]
	sealed, err := first.Seal([]byte("secret"), []byte("aad"))
	if err != nil || sealed.Key != old {
		t.Fatalf("%+v %v", sealed, err)
	}
	both, err := keyring.AddKEK(path)
	if err != nil || len(both.Names()) != 2 || both.Names()[0] != old {
		t.Fatalf("%v %v", both.Names(), err)
	}
	newest := both.Names()[1]
	loaded, err := keyring.LoadKEK(path)
	if err != nil {
		t.Fatal(err)
	}
	seals := func(k keyring.Sealer, want string) fleet.Sealed {
		t.Helper()
		s, err := k.Seal([]byte("secret"), []byte("aad"))
		if err != nil || s.Key != want {
			t.Errorf("sealed by %q, %v; want %q", s.Key, err, want)
		}
		return s
	}
	seals(loaded, old) // until the cluster says otherwise
	current := ""
	loaded.Use(func() string { return current })
	seals(loaded, old)
	current = newest
	moved := seals(loaded, newest)
	seals(loaded.With(old), old)
	for _, s := range []fleet.Sealed{sealed, moved} {
		if plain, err := loaded.Open(s, []byte("aad")); err != nil || string(plain) != "secret" {
			t.Errorf("%s: %q %v", s.Key, plain, err)
		}
	}
	if _, err := first.Open(moved, []byte("aad")); !errors.Is(err, fleet.ErrCorrupt) {
		t.Errorf("opened by a key that did not seal: %v", err)
	}
	first.Use(func() string { return newest })
	if _, err := first.Seal([]byte("secret"), nil); !errors.Is(err, fleet.ErrSealed) {
		t.Errorf("sealed by a key that is not there: %v", err)
	}
	if _, err := keyring.DropKEK(path, newest); !errors.Is(err, fleet.ErrConflict) {
		t.Errorf("the newest was dropped: %v", err)
	}
	if _, err := keyring.DropKEK(path, "kek-0"); !errors.Is(err, fleet.ErrNotFound) {
		t.Errorf("an unknown one was dropped: %v", err)
	}
	if last, err := keyring.DropKEK(path, old); err != nil || len(last.Names()) != 1 || last.Names()[0] != newest {
		t.Errorf("%v %v", last, err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", info, err)
	}
	if left, err := os.ReadDir(filepath.Dir(path)); err != nil || len(left) != 1 {
		t.Errorf("files are left: %v %v", left, err)
	}
	for range 3 {
		if _, err := keyring.AddKEK(path); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := keyring.AddKEK(path); !errors.Is(err, fleet.ErrConflict) {
		t.Errorf("a fifth key: %v", err)
	}
}
