package keyring_test

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/quick"

	"github.com/google/go-cmp/cmp"

	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/tls/keyring"
)

func newKEK(t *testing.T) *keyring.KEK {
	t.Helper()
	k, err := keyring.NewKEK()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func newMaster(t *testing.T) []byte {
	t.Helper()
	b := make([]byte, 32)
	if _, err := rand.Read(b); err != nil {
		t.Fatal(err)
	}
	return b
}

func derive(t *testing.T, master []byte, group fleet.GroupName, epoch uint64) keyring.GroupKey {
	t.Helper()
	g, err := keyring.DeriveGroupKey(master, group, epoch)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// sealers are the two kinds of key: both must keep what Sealer promises.
func sealers(t *testing.T) map[string]keyring.Sealer {
	t.Helper()
	return map[string]keyring.Sealer{"KEK": newKEK(t), "group key": derive(t, newMaster(t), "eu", 1)}
}

func TestWhatIsSealedOpensForItsOwnerOnly(t *testing.T) {
	plaintext, aad := []byte("private key"), keyring.CertKeyAAD("acme", "api.example.com", "ab", 1)
	for name, s := range sealers(t) {
		t.Run(name, func(t *testing.T) {
			sealed, err := s.Seal(plaintext, aad)
			if err != nil {
				t.Fatal(err)
			}
			if got, err := s.Open(sealed, aad); err != nil || !bytes.Equal(got, plaintext) {
				t.Fatalf("got %q, %v", got, err)
			}
			for what, other := range map[string][]byte{
				"another tenant":     keyring.CertKeyAAD("evil", "api.example.com", "ab", 1),
				"another host":       keyring.CertKeyAAD("acme", "www.example.com", "ab", 1),
				"another key":        keyring.CertKeyAAD("acme", "api.example.com", "ac", 1),
				"another generation": keyring.CertKeyAAD("acme", "api.example.com", "ab", 2),
				"shifted fields":     keyring.CertKeyAAD("acmea", "pi.example.com", "ab", 1),
				"a cluster secret":   keyring.SecretAAD("acme", "api.example.com"),
				"nothing":            nil,
			} {
				if _, err := s.Open(sealed, other); !errors.Is(err, fleet.ErrCorrupt) {
					t.Errorf("opens as %s: %v", what, err)
				}
			}
		})
	}
}

func TestChangedCiphertextsDoNotOpen(t *testing.T) {
	for name, s := range sealers(t) {
		t.Run(name, func(t *testing.T) {
			sealed, err := s.Seal([]byte("private key"), nil)
			if err != nil {
				t.Fatal(err)
			}
			for what, change := range map[string]func(*fleet.Sealed){
				"a flipped bit":            func(s *fleet.Sealed) { s.Ciphertext[0] ^= 1 },
				"a flipped bit of the tag": func(s *fleet.Sealed) { s.Ciphertext[len(s.Ciphertext)-1] ^= 1 },
				"a flipped nonce bit":      func(s *fleet.Sealed) { s.Nonce[0] ^= 1 },
				"a shorter nonce":          func(s *fleet.Sealed) { s.Nonce = s.Nonce[1:] },
				"no nonce":                 func(s *fleet.Sealed) { s.Nonce = nil },
				"no ciphertext":            func(s *fleet.Sealed) { s.Ciphertext = nil },
				"another key's name":       func(s *fleet.Sealed) { s.Key += "0" },
			} {
				changed := fleet.Sealed{Key: sealed.Key, Nonce: bytes.Clone(sealed.Nonce), Ciphertext: bytes.Clone(sealed.Ciphertext)}
				change(&changed)
				if _, err := s.Open(changed, nil); !errors.Is(err, fleet.ErrCorrupt) {
					t.Errorf("opens with %s: %v", what, err)
				}
			}
		})
	}
}

func TestSealedSecretsOpenAgainWhateverTheyHold(t *testing.T) {
	for name, s := range sealers(t) {
		property := func(plaintext, aad []byte) bool {
			sealed, err := s.Seal(plaintext, aad)
			if err != nil {
				return false
			}
			got, err := s.Open(sealed, aad)
			return err == nil && bytes.Equal(got, plaintext) && (len(plaintext) < 8 || !bytes.Contains(sealed.Ciphertext, plaintext))
		}
		if err := quick.Check(property, nil); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestAdditionalDataIsUnambiguous(t *testing.T) {
	property := func(a, b [3]string, x, y uint64) bool {
		same := a == b && x == y
		return same == bytes.Equal(
			keyring.CertKeyAAD(fleet.TenantID(a[0]), fleet.HostName(a[1]), a[2], x),
			keyring.CertKeyAAD(fleet.TenantID(b[0]), fleet.HostName(b[1]), b[2], y))
	}
	if err := quick.Check(property, nil); err != nil {
		t.Error(err)
	}
	split := func(s string, i, j uint8) bool {
		at := func(n uint8) []byte {
			k := int(n) % (len(s) + 1)
			return keyring.SecretAAD(fleet.ClusterID(s[:k]), fleet.SecretName(s[k:]))
		}
		same := int(i)%(len(s)+1) == int(j)%(len(s)+1)
		return same == bytes.Equal(at(i), at(j))
	}
	if err := quick.Check(split, nil); err != nil {
		t.Error(err)
	}
}

func TestTheKEKNeverSealsTheSameWayTwice(t *testing.T) {
	k := newKEK(t)
	a, errA := k.Seal([]byte("x"), nil)
	b, errB := k.Seal([]byte("x"), nil)
	if err := errors.Join(errA, errB); err != nil {
		t.Fatal(err)
	}
	if a.Key != k.Names()[0] || bytes.Equal(a.Nonce, b.Nonce) || bytes.Equal(a.Ciphertext, b.Ciphertext) {
		t.Errorf("%v and %v", a, b)
	}
	if _, err := newKEK(t).Open(a, nil); !errors.Is(err, fleet.ErrCorrupt) {
		t.Errorf("another cluster's key opens it: %v", err)
	}
}

func TestTwoMembersDeriveTheSameBundles(t *testing.T) {
	master := newMaster(t)
	property := func(plaintext, aad []byte, epoch uint64) bool {
		a, errA := derive(t, master, "eu", epoch).Seal(plaintext, aad)
		b, errB := derive(t, bytes.Clone(master), "eu", epoch).Seal(plaintext, aad)
		return errA == nil && errB == nil && cmp.Equal(a, b)
	}
	if err := quick.Check(property, nil); err != nil {
		t.Error(err)
	}
}

func TestNoTwoMessagesShareAKey(t *testing.T) {
	// The salt decides the message key: if two differ in plaintext, additional data, group, epoch or master, so must it.
	master := newMaster(t)
	seen := map[string]string{}
	for _, key := range []keyring.GroupKey{
		derive(t, master, "eu", 1), derive(t, master, "eu", 2), derive(t, master, "us", 1), derive(t, newMaster(t), "eu", 1),
	} {
		for _, m := range [][2]string{{"a", "b"}, {"ab", ""}, {"", "ab"}, {"b", "a"}, {"a", ""}, {"", ""}} {
			s, err := key.Seal([]byte(m[0]), []byte(m[1]))
			if err != nil {
				t.Fatal(err)
			}
			what := fmt.Sprintf("%v %q", key, m)
			if before, ok := seen[string(s.Nonce)]; ok {
				t.Errorf("%s and %s share a message key", before, what)
			}
			seen[string(s.Nonce)] = what
		}
	}
}

func TestAnotherGroupOrEpochDoesNotOpen(t *testing.T) {
	master := newMaster(t)
	sealed, err := derive(t, master, "eu", 7).Seal([]byte("private key"), nil)
	if err != nil {
		t.Fatal(err)
	}
	if sealed.Key != "group/eu/7" {
		t.Errorf("sealed by %q", sealed.Key)
	}
	for _, g := range []keyring.GroupKey{derive(t, master, "us", 7), derive(t, master, "eu", 8)} {
		if _, err := g.Open(sealed, nil); !errors.Is(err, fleet.ErrCorrupt) {
			t.Errorf("%v opens it: %v", g, err)
		}
		renamed := fleet.Sealed{Key: fmt.Sprintf("group/%s/%d", g.Group, g.Epoch), Nonce: sealed.Nonce, Ciphertext: sealed.Ciphertext}
		if _, err := g.Open(renamed, nil); !errors.Is(err, fleet.ErrCorrupt) {
			t.Errorf("%v opens it under its own name: %v", g, err)
		}
	}
}

func TestAGroupKeyThatWasNeverDerivedSealsNothing(t *testing.T) {
	g := keyring.GroupKey{Group: "eu", Epoch: 1}
	_, public, err := keyring.NewHPKEKey()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := g.Seal([]byte("x"), nil); !errors.Is(err, fleet.ErrSealed) {
		t.Errorf("seal: %v", err)
	}
	if _, err := g.Open(fleet.Sealed{Key: "group/eu/1", Nonce: make([]byte, 32)}, nil); !errors.Is(err, fleet.ErrSealed) {
		t.Errorf("open: %v", err)
	}
	if _, err := g.SealTo("n1", public); !errors.Is(err, fleet.ErrSealed) {
		t.Errorf("seal to a node: %v", err)
	}
}

func TestDerivationRefusesShortMastersAndBadGroups(t *testing.T) {
	if _, err := keyring.DeriveGroupKey(make([]byte, 16), "eu", 1); !errors.Is(err, fleet.ErrInvalid) {
		t.Errorf("short master: %v", err)
	}
	if _, err := keyring.DeriveGroupKey(make([]byte, 32), "e/u", 1); !errors.Is(err, fleet.ErrInvalid) {
		t.Errorf("bad group: %v", err)
	}
}

func TestKeysDoNotPrint(t *testing.T) {
	kek, group := newKEK(t), derive(t, bytes.Repeat([]byte{0xAA}, 32), "eu", 1)
	for _, v := range []any{kek, *kek, group, &group} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s"} {
			if s := fmt.Sprintf(verb, v); !strings.Contains(s, "hidden") || strings.Contains(s, "{") {
				t.Errorf("%T prints with %s as %s", v, verb, s)
			}
		}
	}
}

func TestKEKSurvivesItsFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "kek")
	kek := newKEK(t)
	if err := kek.Save(path); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("%v, %v", info.Mode(), err)
	}
	loaded, err := keyring.LoadKEK(path)
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := kek.Seal([]byte("x"), nil)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := loaded.Open(sealed, nil); err != nil || string(got) != "x" {
		t.Errorf("%q, %v", got, err)
	}
	if err := newKEK(t).Save(path); !errors.Is(err, fleet.ErrConflict) {
		t.Errorf("a KEK was overwritten: %v", err)
	}
}

func TestLoadKEKRefuses(t *testing.T) {
	good, dir := filepath.Join(t.TempDir(), "kek"), t.TempDir()
	if err := newKEK(t).Save(good); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(good)
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		content string
		mode    os.FileMode
		want    string
	}{
		"a file that the group can read":  {string(text), 0o640, "run chmod 600"},
		"a file that all can read":        {string(text), 0o604, "run chmod 600"},
		"a file that the group can write": {string(text), 0o620, "run chmod 600"},
		"an empty file":                   {"", 0o600, "is a line that begins with"},
		"another format":                  {"edgefleet-kek-v2:AAAA\n", 0o600, "is a line that begins with"},
		"a file that is cut off":          {string(text[:40]), 0o600, "cut off or was edited"},
		"two keys":                        {string(text) + string(text), 0o600, "each once"},
		"a large file":                    {strings.Repeat("x", 1<<20), 0o600, "more than"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(dir, strings.ReplaceAll(name, " ", "-"))
			if err := os.WriteFile(path, []byte(tc.content), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(path, tc.mode); err != nil {
				t.Fatal(err)
			}
			_, err := keyring.LoadKEK(path)
			if !errors.Is(err, fleet.ErrInvalid) || !strings.Contains(err.Error(), tc.want) || !strings.Contains(err.Error(), path) {
				t.Errorf("got %v, want %q", err, tc.want)
			}
			if secret := strings.TrimPrefix(strings.TrimSpace(string(text)), "edgefleet-kek-v1:"); strings.Contains(err.Error(), secret[:16]) {
				t.Errorf("the error shows the key: %v", err)
			}
		})
	}
	if _, err := keyring.LoadKEK(filepath.Join(dir, "absent")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("absent: %v", err)
	}
	if _, err := keyring.LoadKEK(dir); !errors.Is(err, fleet.ErrInvalid) {
		t.Errorf("a directory: %v", err)
	}
}

func TestSystemdCredentialsMayShowGroupRead(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "kek")
	if err := newKEK(t).Save(path); err != nil {
		t.Fatal(err)
	}
	t.Setenv("CREDENTIALS_DIRECTORY", dir)
	for mode, ok := range map[os.FileMode]bool{0o440: true, 0o400: true, 0o460: false, 0o444: false} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		if _, err := keyring.LoadKEK(path); (err == nil) != ok {
			t.Errorf("mode %#o: %v", mode, err)
		}
	}
}

func FuzzParseKEK(f *testing.F) {
	f.Add([]byte("edgefleet-kek-v1:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n"))
	f.Add([]byte("edgefleet-kek-v1:AAAA"))
	f.Add([]byte(""))
	f.Fuzz(func(t *testing.T, b []byte) {
		k, err := keyring.ParseKEK(b)
		if err != nil {
			if !errors.Is(err, fleet.ErrInvalid) {
				t.Errorf("unclassified: %v", err)
			}
			return
		}
		path := filepath.Join(t.TempDir(), "kek")
		if err := k.Save(path); err != nil {
			t.Fatal(err)
		}
		again, err := keyring.LoadKEK(path)
		if err != nil || !slices.Equal(again.Names(), k.Names()) {
			t.Errorf("does not come back: %v", err)
		}
	})
}
