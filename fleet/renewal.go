package fleet

import (
	"crypto/sha256"
	"fmt"
	"time"
)

// MaxNodeAbsence is how long after its last certificate ended a node may come back by its key. A disk that was away for
// longer is more likely somebody else's.
const MaxNodeAbsence = 90 * 24 * time.Hour

// NodeRenewal is where a node stands in its chain of keys: every renewal is signed by the key of the one before and brings
// the next, so that of two machines with the same identity only one goes on, and the other is seen.
type NodeRenewal struct {
	// Generation counts the keys that the node had since it enrolled.
	Generation uint64 `json:"generation,omitempty"`
}

// NodeLock says why a node is locked. Whoever shows its identity is refused until an operator decides.
type NodeLock struct {
	At     time.Time `json:"at"`
	Reason string    `json:"reason"`
}

// Refusal says why nothing is answered to the node: it was revoked, or is locked. Nil when it is welcome.
func (n Node) Refusal() error {
	switch {
	case !n.Identity.RevokedAt.IsZero():
		return NewError(ErrDenied, "node", "node %s was revoked at %s: it never comes back under this name; enrol the machine as a new node with the token of `fleetctl node join-token`", n.ID, n.Identity.RevokedAt.UTC().Format(time.RFC3339))
	case n.Lock != nil:
		return NewError(ErrDenied, "node", "node %s is locked since %s: %s; it serves on with what it has. Find and stop the other machine, then `fleetctl node unlock %[1]s`; or `fleetctl node revoke %[1]s` and enrol anew",
			n.ID, n.Lock.At.UTC().Format(time.RFC3339), n.Lock.Reason)
	}
	return nil
}

// RenewRequest asks for a certificate for a new key. The key of the node's last certificate signs it, so that it is good
// also after that certificate ended.
type RenewRequest struct {
	Node NodeID `json:"node" maxLength:"63"`
	// CSR is PEM; only its public key is used.
	CSR string `json:"csr" maxLength:"16384"`
	// Certificate is the node's last certificate, PEM.
	Certificate string `json:"certificate" maxLength:"16384"`
	// Sent is the node's clock; a difference over MaxClockSkew is refused.
	Sent time.Time `json:"sent"`
	// Signature is by the key of Certificate, over Statement.
	Signature []byte `json:"signature" maxLength:"1024"`
}

// Statement is what is signed: this node of this cluster asked for this key, then.
func (r RenewRequest) Statement(c ClusterID) []byte {
	return fmt.Appendf(nil, "edgefleet node renewal\n%s\n%s\n%s\n%x\n", c, r.Node, r.Sent.UTC().Format(time.RFC3339Nano), sha256.Sum256([]byte(r.CSR)))
}
