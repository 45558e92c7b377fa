package keyring

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/edgefleet/edgefleet/fleet"
)

const (
	kekPrefix = "edgefleet-kek-v1:"
	// maxKEKs is how many keys a file may hold: one that seals, and those before it while a rotation is under way.
	maxKEKs = 4
	// maxKEKFile bounds what is read from a file that may not be a KEK at all.
	maxKEKFile = maxKEKs * 128
)

// KEK is the key-encryption key of a cluster: it seals every secret in the replicated state, with AES-256-GCM and a
// random 96-bit nonce. A cluster seals far fewer than the 2^32 secrets at which random nonces become unsafe. While it is
// rotated, there are several: all of them open, one of them seals.
type KEK struct {
	keys []kekKey
	// sealing, if set, names the key that seals; the first one does otherwise.
	sealing func() string
}

type kekKey struct {
	// name is the key's in what it sealed: a part of its digest.
	name string
	key  [keySize]byte
}

var _ Sealer = (*KEK)(nil)

// NewKEK makes a random KEK.
func NewKEK() (*KEK, error) {
	var key [keySize]byte
	if _, err := rand.Read(key[:]); err != nil {
		return nil, fmt.Errorf("make key-encryption key: %w", err)
	}
	return &KEK{keys: []kekKey{named(key)}}, nil
}

func named(key [keySize]byte) kekKey {
	sum := sha256.Sum256([]byte(encode("edgefleet kek name", key[:])))
	return kekKey{"kek-" + hex.EncodeToString(sum[:8]), key}
}

// ParseKEK reads the format that Save writes: a line for each key, the newest at the end.
func ParseKEK(b []byte) (*KEK, error) {
	if len(b) > maxKEKFile {
		return nil, fleet.Invalid("kek", "the file has more than %d bytes: it is not a key-encryption key", maxKEKFile)
	}
	k := &KEK{}
	for line := range strings.Lines(strings.TrimSpace(string(b)) + "\n") {
		text, ok := strings.CutPrefix(strings.TrimSpace(line), kekPrefix)
		if !ok {
			return nil, fleet.Invalid("kek", "a key-encryption key is a line that begins with %s: use the file that `controlplane init` wrote", kekPrefix)
		}
		b, err := base64.StdEncoding.Strict().DecodeString(text)
		if err != nil || len(b) != keySize {
			// The decoder's error is left out, because it quotes what it was given.
			return nil, fleet.Invalid("kek", "what follows %s is not the base64 of %d bytes: the file is cut off or was edited; restore it from escrow", kekPrefix, keySize)
		}
		key := named([keySize]byte(b))
		if slices.Contains(k.Names(), key.name) || len(k.keys) == maxKEKs {
			return nil, fleet.Invalid("kek", "a file holds at most %d key-encryption keys, each once", maxKEKs)
		}
		k.keys = append(k.keys, key)
	}
	return k, nil
}

// Names are the names of the keys, the newest last.
func (k *KEK) Names() []string {
	out := make([]string, len(k.keys))
	for i, key := range k.keys {
		out[i] = key.name
	}
	return out
}

// Use makes the key seal that sealing names whenever something is sealed; with an empty name, the first one.
func (k *KEK) Use(sealing func() string) { k.sealing = sealing }

// With is the same KEK, sealing with the key of that name.
func (k *KEK) With(name string) Sealer { return &KEK{k.keys, func() string { return name }} }

// find returns the key of that name; the first without one.
func (k *KEK) find(name string) (kekKey, bool) {
	if name == "" && len(k.keys) > 0 {
		return k.keys[0], true
	}
	i := slices.IndexFunc(k.keys, func(key kekKey) bool { return key.name == name })
	if i < 0 {
		return kekKey{}, false
	}
	return k.keys[i], true
}

// LoadKEK reads the KEK from a file that only its owner can read.
func LoadKEK(path string) (*KEK, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("load key-encryption key: %w", err)
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("load key-encryption key: %w", err)
	}
	if !info.Mode().IsRegular() {
		return nil, fleet.Invalid("kek", "%s is not a regular file", path)
	}
	if perm := info.Mode().Perm(); perm&forbidden(path) != 0 {
		return nil, fleet.Invalid("kek", "%s can be used by others than its owner (mode %#o): run chmod 600 %s, and make a new key if others may have read it", path, perm, path)
	}
	b, err := io.ReadAll(io.LimitReader(f, maxKEKFile+1))
	if err != nil {
		return nil, fmt.Errorf("load key-encryption key: %w", err)
	}
	k, err := ParseKEK(b)
	if err != nil {
		return nil, fmt.Errorf("load %s: %w", path, err)
	}
	return k, nil
}

// forbidden returns the permission bits that a KEK's file must not have. systemd gives a service its credentials by
// an access-control list, whose mask shows as group permission: there, reading by the group bits is in order.
func forbidden(path string) fs.FileMode {
	if dir := os.Getenv("CREDENTIALS_DIRECTORY"); dir != "" && filepath.Dir(path) == filepath.Clean(dir) {
		return 0o037
	}
	return 0o077
}

// Save writes the KEK to a new file of mode 0600 and syncs it. It never overwrites: a KEK that is lost makes every
// backup useless.
func (k *KEK) Save(path string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return fleet.NewError(fleet.ErrConflict, "kek", "%s exists: a key-encryption key is never overwritten; move the file away if it is not needed", path)
	}
	if err != nil {
		return fmt.Errorf("save key-encryption key: %w", err)
	}
	_, err = f.WriteString(k.text())
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = syncDir(filepath.Dir(path))
	}
	if err != nil {
		return fmt.Errorf("save key-encryption key: %w", errors.Join(err, os.Remove(path)))
	}
	return nil
}

func (k *KEK) text() string {
	var lines strings.Builder
	for _, key := range k.keys {
		lines.WriteString(kekPrefix + base64.StdEncoding.EncodeToString(key.key[:]) + "\n")
	}
	return lines.String()
}

// Seal encrypts plaintext under a random nonce.
func (k *KEK) Seal(plaintext, aad []byte) (fleet.Sealed, error) {
	name := ""
	if k.sealing != nil {
		name = k.sealing()
	}
	key, ok := k.find(name)
	if !ok {
		return fleet.Sealed{}, fleet.NewError(fleet.ErrSealed, "kek_file", "this member has no key-encryption key %s, which seals in this cluster: copy kek_file from another member and restart this one", name)
	}
	aead, err := newGCM(key.key[:])
	if err != nil {
		return fleet.Sealed{}, fmt.Errorf("seal: %w", err)
	}
	nonce := make([]byte, gcmNonce)
	if _, err := rand.Read(nonce); err != nil {
		return fleet.Sealed{}, fmt.Errorf("seal: %w", err)
	}
	return fleet.Sealed{Key: key.name, Nonce: nonce, Ciphertext: aead.Seal(nil, nonce, plaintext, aad)}, nil
}

// Open decrypts what Seal made with the same aad.
func (k *KEK) Open(s fleet.Sealed, aad []byte) ([]byte, error) {
	key, ok := k.find(s.Key)
	if !ok || s.Key == "" {
		return nil, fleet.NewError(fleet.ErrCorrupt, "sealed", "the secret is sealed by the key %q; these are the keys %q", s.Key, k.Names())
	}
	if err := check(s, key.name, gcmNonce); err != nil {
		return nil, err
	}
	return open(key.key[:], s.Nonce, key.name, s, aad)
}

// String keeps the key out of logs and errors that print a KEK.
func (KEK) String() string { return "key-encryption key (hidden)" }

// GoString does the same for %#v.
func (k KEK) GoString() string { return k.String() }

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
