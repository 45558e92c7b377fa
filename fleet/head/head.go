// Package head signs, verifies and orders heads: the signed statements of what the nodes of a group, or one node,
// must run, one per kind.
//
// It owns the encoding and the rules of acceptance, not the keys' storage and not the transport. A head is safe to
// receive from anybody: what counts is its signature and its place in the order (incarnation, generation).
package head

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"

	"github.com/edgefleet/edgefleet/fleet"
)

// Head states what must run. Exactly one of Node and Group is set.
type Head struct {
	Node    fleet.NodeID    `json:"node,omitempty"`
	Group   fleet.GroupName `json:"group,omitempty"`
	Kind    fleet.HeadKind  `json:"kind"`
	Version fleet.Version   `json:"version"`
	// Root is the digest of the bundle tree to fetch.
	Root fleet.Digest `json:"root"`
}

// context separates head signatures from any other use of the key.
const context = "edgefleet head v1\x00"

// maxEncoded bounds what Verify looks at, in bytes.
const maxEncoded = 4 << 10

// Validate checks the invariants of h.
func (h Head) Validate() error {
	if (h.Node == "") == (h.Group == "") {
		return fleet.Invalid("head", "a head names either a node or a group")
	}
	if h.Version.Incarnation == 0 || h.Version.Generation == 0 {
		return fleet.Invalid("version", "incarnations and generations count from 1")
	}
	if err := h.Kind.Validate(); err != nil {
		return err
	}
	return h.Root.Validate()
}

// KeyID names a public key: the first 8 bytes of its SHA-256, hex.
func KeyID(pub ed25519.PublicKey) string {
	sum := sha256.Sum256(pub)
	return hex.EncodeToString(sum[:8])
}

// Sign encodes and signs h. The same head and key give the same bytes on every member.
func Sign(h Head, key ed25519.PrivateKey) (fleet.SignedHead, error) {
	if err := h.Validate(); err != nil {
		return fleet.SignedHead{}, fmt.Errorf("sign head: %w", err)
	}
	b, err := json.Marshal(h)
	if err != nil {
		return fleet.SignedHead{}, fmt.Errorf("sign head: %w", err)
	}
	pub, _ := key.Public().(ed25519.PublicKey)
	return fleet.SignedHead{Head: b, KeyID: KeyID(pub), Signature: ed25519.Sign(key, append([]byte(context), b...))}, nil
}

// Verify returns the head in s if one of keys signed it, else ErrDenied. It does not check the order: see Accept.
func Verify(s fleet.SignedHead, keys []ed25519.PublicKey) (Head, error) {
	if len(s.Head) > maxEncoded {
		return Head{}, fleet.NewError(fleet.ErrTooLarge, "head", "head of %d bytes; the limit is %d", len(s.Head), maxEncoded)
	}
	for _, k := range keys {
		if len(k) != ed25519.PublicKeySize || KeyID(k) != s.KeyID {
			continue
		}
		if !ed25519.Verify(k, append([]byte(context), s.Head...), s.Signature) {
			break
		}
		var h Head
		if err := fleet.DecodeStrict(s.Head, &h); err != nil {
			return Head{}, fmt.Errorf("verify head: %w", err)
		}
		return h, h.Validate()
	}
	return Head{}, fleet.NewError(fleet.ErrDenied, "head", "head is not signed by a key of this cluster (key %q)", s.KeyID)
}

// Accept reports whether a node whose current version and root of a kind are given may move to h: nil for a newer
// head, ErrStale for an older one or the same again, ErrConflict for the same version with another root.
func Accept(current fleet.Version, root fleet.Digest, h Head) error {
	switch c := h.Version.Compare(current); {
	case c > 0:
		return nil
	case c == 0 && h.Root != root:
		return fleet.NewError(fleet.ErrConflict, "head", "two heads of kind %s claim generation %d: %s and %s",
			h.Kind, h.Version.Generation, root.Short(), h.Root.Short())
	default:
		return fleet.NewError(fleet.ErrStale, "head", "head %d/%d of kind %s is not newer than %d/%d",
			h.Version.Incarnation, h.Version.Generation, h.Kind, current.Incarnation, current.Generation)
	}
}
