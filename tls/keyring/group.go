package keyring

import (
	"crypto/hkdf"
	"crypto/sha256"
	"fmt"
	"strconv"

	"github.com/edgefleet/edgefleet/fleet"
)

// GroupKey seals what all nodes of one group receive during one epoch.
type GroupKey struct {
	// Group and Epoch name the key; both are bound into its derivation.
	Group fleet.GroupName
	Epoch uint64

	key [keySize]byte
}

const (
	// minMaster is the least size of a master.
	minMaster = 32
	// saltSize is the size of the salt that stands in a group-sealed secret for the nonce.
	saltSize = 32
)

// DeriveGroupKey derives the key of a group and epoch from the cluster's master secret with HKDF-SHA256, so that every
// member that can open the master has the same key and nothing more needs storing.
func DeriveGroupKey(master []byte, group fleet.GroupName, epoch uint64) (GroupKey, error) {
	if len(master) < minMaster {
		return GroupKey{}, fleet.Invalid("master", "a group master of %d bytes; it needs %d", len(master), minMaster)
	}
	if err := fleet.ValidateID("group", group); err != nil {
		return GroupKey{}, err
	}
	info := encode("edgefleet group key", []byte(group), number(epoch))
	key, err := hkdf.Key(sha256.New, master, nil, info, keySize)
	if err != nil {
		return GroupKey{}, fmt.Errorf("derive group key: %w", err)
	}
	g := GroupKey{Group: group, Epoch: epoch}
	copy(g.key[:], key)
	return g, nil
}

// Seal encrypts deterministically: the same key, plaintext and aad give the same bytes, so that every member derives
// the same bundles, with the same digests, from the same state.
//
// AES-GCM is broken by two messages under one key and nonce. Here every message has a key of its own, as in the
// synthetic-IV modes (RFC 5297, RFC 8452): HKDF, keyed by the group key, turns aad and the SHA-256 of the plaintext
// into a 256-bit salt, and then aad and that salt into the message key, used once with a zero nonce. Two messages
// share a message key only if both aad and plaintext are equal, and then their ciphertexts are equal as well, or if
// a 256-bit value collides. The salt travels in place of the nonce, for the opener has no plaintext yet; being the
// output of a keyed pseudorandom function, it says nothing about the plaintext. What an observer learns is only
// that two ciphertexts hold the same secret for the same purpose.
func (g GroupKey) Seal(plaintext, aad []byte) (fleet.Sealed, error) {
	sum := sha256.Sum256(plaintext)
	salt, err := g.derive("edgefleet sealing salt", aad, sum[:])
	if err != nil {
		return fleet.Sealed{}, fmt.Errorf("seal: %w", err)
	}
	key, err := g.derive("edgefleet message key", aad, salt)
	if err != nil {
		return fleet.Sealed{}, fmt.Errorf("seal: %w", err)
	}
	aead, err := newGCM(key)
	if err != nil {
		return fleet.Sealed{}, fmt.Errorf("seal: %w", err)
	}
	return fleet.Sealed{Key: g.name(), Nonce: salt, Ciphertext: aead.Seal(nil, make([]byte, gcmNonce), plaintext, aad)}, nil
}

// Open decrypts what Seal of the same group and epoch made with the same aad, and is fleet.ErrCorrupt otherwise.
func (g GroupKey) Open(s fleet.Sealed, aad []byte) ([]byte, error) {
	if err := check(s, g.name(), saltSize); err != nil {
		return nil, err
	}
	key, err := g.derive("edgefleet message key", aad, s.Nonce)
	if err != nil {
		return nil, fmt.Errorf("open sealed secret: %w", err)
	}
	return open(key, make([]byte, gcmNonce), g.name(), s, aad)
}

// derive is a pseudorandom function keyed by the group key, separated by purpose.
func (g GroupKey) derive(purpose string, aad, input []byte) ([]byte, error) {
	if g.key == [keySize]byte{} {
		return nil, fleet.NewError(fleet.ErrSealed, "group", "the key of group %s is not known: derive it from the master or open the node's envelope", g.Group)
	}
	return hkdf.Expand(sha256.New, g.key[:], encode(purpose, aad, input), keySize)
}

// name is the Key of everything that g seals.
func (g GroupKey) name() string {
	return "group/" + string(g.Group) + "/" + strconv.FormatUint(g.Epoch, 10)
}

// String keeps the key out of logs and errors that print it.
func (g GroupKey) String() string { return g.name() + " (hidden)" }

// GoString does the same for %#v.
func (g GroupKey) GoString() string { return g.String() }
