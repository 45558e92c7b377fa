package fleet

import (
	"crypto/ed25519"
	"encoding/json"
	"fmt"
	"time"
)

// AuditCheckpoint is what the control plane signs of its audit chain: the entries From to Seq are the leaves of the
// Merkle tree with that Root, and the chain has that Hash at Seq. Whoever rewrites an entry needs the audit key.
type AuditCheckpoint struct {
	Cluster ClusterID `json:"cluster"`
	From    uint64    `json:"from"`
	Seq     uint64    `json:"seq"`
	Hash    string    `json:"hash"`
	Root    string    `json:"root"`
	Time    time.Time `json:"time"`
	// Signature is Ed25519 by the audit key, over everything above.
	Signature []byte `json:"signature"`
}

// checkpointContext keeps a signature of one kind of statement from being shown as one of another.
const checkpointContext = "edgefleet audit checkpoint 1\n"

func (c AuditCheckpoint) signed() ([]byte, error) {
	c.Signature = nil
	b, err := json.Marshal(c)
	if err != nil {
		return nil, fmt.Errorf("encode audit checkpoint %d: %w", c.Seq, err)
	}
	return append([]byte(checkpointContext), b...), nil
}

// AuditSigner signs as the control plane: with the audit key.
type AuditSigner func(message []byte) (signature []byte, err error)

// Sign returns c with its signature.
func (c AuditCheckpoint) Sign(sign AuditSigner) (AuditCheckpoint, error) {
	b, err := c.signed()
	if err != nil {
		return c, err
	}
	c.Signature, err = sign(b)
	return c, err
}

// Verify refuses, with ErrCorrupt, a checkpoint that the key did not sign.
func (c AuditCheckpoint) Verify(key ed25519.PublicKey) error {
	b, err := c.signed()
	if err != nil {
		return err
	}
	if len(key) != ed25519.PublicKeySize || !ed25519.Verify(key, b, c.Signature) {
		return NewError(ErrCorrupt, "checkpoint", "the audit checkpoint at entry %d is not signed by this cluster's audit key: it was forged or changed", c.Seq)
	}
	return nil
}

// AuditSegment is a sealed run of the audit chain: an immutable file on the members' disks, named by its digest. State
// keeps this row only, once a majority of the members holds the file.
type AuditSegment struct {
	From uint64 `json:"from"`
	To   uint64 `json:"to"`
	// Prev is the hash before entry From, Hash that of entry To.
	Prev string `json:"prev"`
	Hash string `json:"hash"`
	// Bytes and Digest are those of the entries as they stand in the file.
	Bytes  int64  `json:"bytes"`
	Digest Digest `json:"digest"`
	// Checkpoint is signed over exactly these entries.
	Checkpoint AuditCheckpoint `json:"checkpoint"`
	// Dropped: the entries left the state, and are in the file only.
	Dropped bool `json:"dropped,omitempty"`
}

// MaxAuditSegment bounds the entries of one segment, so that dropping one stalls nobody.
const MaxAuditSegment = 1000

// Validate checks what a segment says of itself; whether it fits the chain is for the state machine to say.
func (s AuditSegment) Validate() error {
	c := s.Checkpoint
	switch {
	case s.From == 0 || s.To < s.From || s.To-s.From >= MaxAuditSegment:
		return Invalid("to", "an audit segment has 1 to %d entries, not those from %d to %d", MaxAuditSegment, s.From, s.To)
	case c.From != s.From || c.Seq != s.To || c.Hash != s.Hash:
		return Invalid("checkpoint", "the checkpoint is of the audit entries %d to %d with the hash %s, the segment of %d to %d with %s", c.From, c.Seq, c.Hash, s.From, s.To, s.Hash)
	case s.Bytes <= 0:
		return Invalid("bytes", "an audit segment is not empty")
	}
	return s.Digest.Validate()
}
