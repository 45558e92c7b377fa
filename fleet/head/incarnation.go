package head

import (
	"crypto/ed25519"
	"encoding/json"
	"fmt"
	"time"

	"github.com/edgefleet/edgefleet/fleet"
)

// Incarnation is what a statement says: from now on, heads of this incarnation, signed by one of these keys, are the
// cluster's. A key that it does not name is revoked.
type Incarnation struct {
	Cluster fleet.ClusterID `json:"cluster"`
	Number  uint64          `json:"incarnation"`
	// HeadKeys are the Ed25519 public keys that sign heads of this incarnation.
	HeadKeys [][]byte `json:"head_keys"`
	// Time is the signer's clock; for people.
	Time time.Time `json:"time"`
}

const (
	// incarnationContext separates these signatures from any other use of the key.
	incarnationContext = "edgefleet incarnation v1\x00"
	// maxHeadKeys bounds the keys of one incarnation.
	maxHeadKeys = 8
)

// Validate checks the invariants of i.
func (i Incarnation) Validate() error {
	if err := fleet.ValidateID("cluster", i.Cluster); err != nil {
		return err
	}
	if i.Number < 2 {
		return fleet.Invalid("incarnation", "incarnation %d needs no statement: nodes know the first from enrolment", i.Number)
	}
	if len(i.HeadKeys) == 0 || len(i.HeadKeys) > maxHeadKeys {
		return fleet.Invalid("head_keys", "an incarnation has 1 to %d head keys, not %d", maxHeadKeys, len(i.HeadKeys))
	}
	for _, k := range i.HeadKeys {
		if len(k) != ed25519.PublicKeySize {
			return fleet.Invalid("head_keys", "a head key of %d bytes", len(k))
		}
	}
	return nil
}

// SignIncarnation encodes and signs i with the recovery key.
func SignIncarnation(i Incarnation, recovery ed25519.PrivateKey) (fleet.SignedIncarnation, error) {
	if err := i.Validate(); err != nil {
		return fleet.SignedIncarnation{}, fmt.Errorf("sign incarnation: %w", err)
	}
	b, err := json.Marshal(i)
	if err != nil {
		return fleet.SignedIncarnation{}, fmt.Errorf("sign incarnation: %w", err)
	}
	return fleet.SignedIncarnation{Statement: b, Signature: ed25519.Sign(recovery, append([]byte(incarnationContext), b...))}, nil
}

// VerifyIncarnation returns the statement in s if the recovery key of the cluster signed it, else ErrDenied. Whether it
// is newer than what is known is for the caller to say.
func VerifyIncarnation(s fleet.SignedIncarnation, recovery []byte, cluster fleet.ClusterID) (Incarnation, error) {
	if len(s.Statement) > maxEncoded {
		return Incarnation{}, fleet.NewError(fleet.ErrTooLarge, "incarnation", "statement of %d bytes; the limit is %d", len(s.Statement), maxEncoded)
	}
	if len(recovery) != ed25519.PublicKeySize || !ed25519.Verify(recovery, append([]byte(incarnationContext), s.Statement...), s.Signature) {
		return Incarnation{}, fleet.NewError(fleet.ErrDenied, "incarnation", "the statement of a new incarnation is not signed by the recovery key of cluster %s", cluster)
	}
	var i Incarnation
	if err := fleet.DecodeStrict(s.Statement, &i); err != nil {
		return Incarnation{}, fmt.Errorf("verify incarnation: %w", err)
	}
	if i.Cluster != cluster {
		return Incarnation{}, fleet.NewError(fleet.ErrDenied, "incarnation", "the statement of incarnation %d is for cluster %s, this is %s", i.Number, i.Cluster, cluster)
	}
	return i, i.Validate()
}
