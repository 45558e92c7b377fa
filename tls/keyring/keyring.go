// Package keyring seals secrets: the key-encryption key (KEK) seals what the replicated state stores, a group key
// derived for each node group and epoch seals what nodes receive, and HPKE carries the group key to each node.
//
// It owns formats and key derivation, on the standard library's cryptography only. It stores nothing but the KEK's
// file, it schedules no rotation, and it never logs. A member without a KEK has no Sealer: its callers answer
// fleet.ErrSealed.
package keyring

import (
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"fmt"

	"github.com/edgefleet/edgefleet/fleet"
)

const (
	// keySize is the size of every symmetric key here: AES-256.
	keySize = 32
	// gcmNonce is the nonce size of AES-GCM.
	gcmNonce = 12
)

// Sealer seals secrets before they are proposed to the replicated state. KEK is the one that reads a file; a key
// management service is the other implementation that this seam is for.
type Sealer interface {
	// Seal encrypts plaintext and binds it to aad, which is not stored.
	Seal(plaintext, aad []byte) (fleet.Sealed, error)
	// Open returns the plaintext if this key sealed it with the same aad, and fleet.ErrCorrupt otherwise.
	Open(s fleet.Sealed, aad []byte) ([]byte, error)
}

// CertKeyAAD is the additional data of a certificate's private key: a ciphertext that is moved to another tenant,
// host, key or generation does not open.
func CertKeyAAD(tenant fleet.TenantID, host fleet.HostName, spki string, generation uint64) []byte {
	return []byte(encode("edgefleet certificate key", []byte(tenant), []byte(host), []byte(spki), number(generation)))
}

// OriginKeyAAD is the additional data of the private key of a certificate that nodes show to an origin.
func OriginKeyAAD(c fleet.OriginCert) []byte {
	return []byte(encode("edgefleet origin key", []byte(c.Tenant), []byte(c.Host), []byte(c.Origin), []byte(c.SPKI), number(c.Generation)))
}

// SecretAAD is the additional data of one of the cluster's own secrets.
func SecretAAD(cluster fleet.ClusterID, name fleet.SecretName) []byte {
	return []byte(encode("edgefleet secret", []byte(cluster), []byte(name)))
}

// SnapshotAAD is the additional data of the seal of a cluster's snapshots.
func SnapshotAAD(cluster fleet.ClusterID) []byte {
	return []byte(encode("edgefleet snapshot", []byte(cluster)))
}

// StorageAAD is the additional data of a value of certmagic's storage.
func StorageAAD(key string) []byte { return []byte("edgefleet acme storage\x00" + key) }

// encode joins a purpose and its parts, each behind its length, so that no two lists have the same encoding.
func encode(purpose string, parts ...[]byte) string {
	b := binary.BigEndian.AppendUint64(nil, uint64(len(purpose)))
	b = append(b, purpose...)
	for _, p := range parts {
		b = binary.BigEndian.AppendUint64(b, uint64(len(p)))
		b = append(b, p...)
	}
	return string(b)
}

func number(n uint64) []byte {
	return binary.BigEndian.AppendUint64(nil, n)
}

func newGCM(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

// open decrypts s with key and nonce; name is the key that s must have been sealed by.
func open(key, nonce []byte, name string, s fleet.Sealed, aad []byte) ([]byte, error) {
	aead, err := newGCM(key)
	if err != nil {
		return nil, fmt.Errorf("open sealed secret: %w", err)
	}
	plaintext, err := aead.Open(nil, nonce, s.Ciphertext, aad)
	if err != nil {
		return nil, fleet.NewError(fleet.ErrCorrupt, "sealed", "the secret does not open with %s: another key of that name sealed it, it belongs to something else, or it was changed", name)
	}
	return plaintext, nil
}

// check refuses what was sealed by a key of another name, or whose nonce cipher.AEAD would panic on.
func check(s fleet.Sealed, name string, nonceSize int) error {
	if s.Key != name {
		return fleet.NewError(fleet.ErrCorrupt, "sealed", "the secret is sealed by the key %q; this is the key %q", s.Key, name)
	}
	if len(s.Nonce) != nonceSize {
		return fleet.NewError(fleet.ErrCorrupt, "sealed", "the sealed secret has a nonce of %d bytes instead of %d", len(s.Nonce), nonceSize)
	}
	return nil
}
