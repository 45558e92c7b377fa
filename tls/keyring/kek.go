package keyring

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/edgefleet/edgefleet/fleet"
)

const (
	kekName   = "kek"
	kekPrefix = "edgefleet-kek-v1:"
	// maxKEKFile bounds what is read from a file that may not be a KEK at all.
	maxKEKFile = 256
)

// KEK is the key-encryption key of a cluster: it seals every secret in the replicated state, with AES-256-GCM and a
// random 96-bit nonce. A cluster seals far fewer than the 2^32 secrets at which random nonces become unsafe.
type KEK struct {
	key [keySize]byte
}

var _ Sealer = (*KEK)(nil)

// NewKEK makes a random KEK.
func NewKEK() (*KEK, error) {
	k := &KEK{}
	if _, err := rand.Read(k.key[:]); err != nil {
		return nil, fmt.Errorf("make key-encryption key: %w", err)
	}
	return k, nil
}

// ParseKEK reads the one-line format that Save writes.
func ParseKEK(b []byte) (*KEK, error) {
	if len(b) > maxKEKFile {
		return nil, fleet.Invalid("kek", "the file has more than %d bytes: it is not a key-encryption key", maxKEKFile)
	}
	text, ok := strings.CutPrefix(strings.TrimSpace(string(b)), kekPrefix)
	if !ok {
		return nil, fleet.Invalid("kek", "a key-encryption key is one line that begins with %s: use the file that `controlplane init` wrote", kekPrefix)
	}
	key, err := base64.StdEncoding.Strict().DecodeString(text)
	if err != nil || len(key) != keySize {
		// The decoder's error is left out, because it quotes what it was given.
		return nil, fleet.Invalid("kek", "what follows %s is not the base64 of %d bytes: the file is cut off or was edited; restore it from escrow", kekPrefix, keySize)
	}
	k := &KEK{}
	copy(k.key[:], key)
	return k, nil
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
	_, err = f.WriteString(kekPrefix + base64.StdEncoding.EncodeToString(k.key[:]) + "\n")
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = syncDir(filepath.Dir(path))
	}
	if err != nil {
		return fmt.Errorf("save key-encryption key: %w", errors.Join(err, os.Remove(path)))
	}
	return nil
}

// Seal encrypts plaintext under a random nonce.
func (k *KEK) Seal(plaintext, aad []byte) (fleet.Sealed, error) {
	aead, err := newGCM(k.key[:])
	if err != nil {
		return fleet.Sealed{}, fmt.Errorf("seal: %w", err)
	}
	nonce := make([]byte, gcmNonce)
	if _, err := rand.Read(nonce); err != nil {
		return fleet.Sealed{}, fmt.Errorf("seal: %w", err)
	}
	return fleet.Sealed{Key: kekName, Nonce: nonce, Ciphertext: aead.Seal(nil, nonce, plaintext, aad)}, nil
}

// Open decrypts what Seal made with the same aad.
func (k *KEK) Open(s fleet.Sealed, aad []byte) ([]byte, error) {
	if err := check(s, kekName, gcmNonce); err != nil {
		return nil, err
	}
	return open(k.key[:], s.Nonce, kekName, s, aad)
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
