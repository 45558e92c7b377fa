// Package audit has the forms in which the audit chain leaves the state: sealed segments, inclusion proofs, and
// exports that are verified offline.
//
// It owns bytes and their verification, and no disk, network or key: auditors run the same code as members. Whatever
// was edited, removed, inserted, reordered, cut off or forged is ErrCorrupt, and the error names the first bad place.
package audit

import (
	"crypto/sha256"
	"encoding/hex"
	"math/bits"

	"github.com/edgefleet/edgefleet/fleet"
)

// The hashes of leaves and inner nodes differ in kind (RFC 6962, section 2.1), so that neither passes for the other.
const (
	leafPrefix  = 0
	innerPrefix = 1
)

type node = [sha256.Size]byte

func leaf(hash string) node { return sha256.Sum256(append([]byte{leafPrefix}, hash...)) }

func inner(left, right node) node {
	b := make([]byte, 0, 1+2*sha256.Size)
	b = append(b, innerPrefix)
	b = append(b, left[:]...)
	return sha256.Sum256(append(b, right[:]...))
}

// split is where a tree of n > 1 leaves divides: the largest power of two below n.
func split(n int) int { return 1 << (bits.Len(uint(n-1)) - 1) } //nolint:gosec // a count

// Root is the root of the Merkle tree over the hashes of entries, in hex.
func Root(hashes []string) string {
	if len(hashes) == 0 {
		return ""
	}
	r := root(hashes)
	return hex.EncodeToString(r[:])
}

func root(hashes []string) node {
	if len(hashes) == 1 {
		return leaf(hashes[0])
	}
	k := split(len(hashes))
	return inner(root(hashes[:k]), root(hashes[k:]))
}

// Prove is the proof that hashes[i] is in the tree: the neighbours on the way to the root, from the leaf up.
func Prove(hashes []string, i int) []string {
	if len(hashes) <= 1 {
		return nil
	}
	k := split(len(hashes))
	if i < k {
		return append(Prove(hashes[:k], i), Root(hashes[k:]))
	}
	return append(Prove(hashes[k:], i-k), Root(hashes[:k]))
}

// CheckProof verifies that the entry with that hash is number i of the n entries under root.
func CheckProof(hash string, i, n int, proof []string, want string) error {
	got, err := climb(hash, i, n, proof)
	if err == nil && hex.EncodeToString(got[:]) != want {
		err = fleet.NewError(fleet.ErrCorrupt, "proof", "the proof does not lead to the signed root")
	}
	return err
}

func climb(hash string, i, n int, proof []string) (node, error) {
	if i < 0 || i >= n || n == 1 && len(proof) != 0 || n > 1 && len(proof) == 0 {
		return node{}, fleet.NewError(fleet.ErrCorrupt, "proof", "the proof has the wrong length for entry %d of %d", i+1, n)
	}
	if n == 1 {
		return leaf(hash), nil
	}
	var side node
	last := len(proof) - 1
	if b, err := hex.DecodeString(proof[last]); err != nil || copy(side[:], b) != sha256.Size || len(b) != sha256.Size {
		return node{}, fleet.NewError(fleet.ErrCorrupt, "proof", "the proof holds something that is no hash")
	}
	k := split(n)
	if i < k {
		below, err := climb(hash, i, k, proof[:last])
		return inner(below, side), err
	}
	below, err := climb(hash, i-k, n-k, proof[:last])
	return inner(side, below), err
}
