package fleet

import (
	"net/netip"
	"time"
)

// Node is an edge node: an edge process and its host.
type Node struct {
	ID       NodeID       `json:"id"`
	Spec     NodeSpec     `json:"spec"`
	Identity NodeIdentity `json:"identity"`
	Observed NodeObserved `json:"observed"`
	// Renewal is where the node's chain of keys stands.
	Renewal NodeRenewal `json:"renewal,omitzero"`
	// Lock is set while the node is locked: its identity was found on two machines.
	Lock *NodeLock `json:"lock,omitempty"`
	Meta
}

// NodeSpec is what people decide about a node.
type NodeSpec struct {
	Group  GroupName  `json:"group"`
	Region RegionName `json:"region"`
	// Addresses are the public addresses that DNS answers with.
	Addresses []netip.Addr `json:"addresses"`
	// Cordoned nodes leave DNS and take no new assignments.
	Cordoned bool `json:"cordoned,omitempty"`
	// Weight is the node's share of DNS answers beside others', 1 to 100; none is 10.
	Weight int `json:"weight,omitempty"`
}

// NodeIdentity is what the control plane knows of the node's keys.
type NodeIdentity struct {
	// SPKI is the SHA-256 of the node's public key, hex: a node that was away for long comes back by it.
	SPKI string `json:"spki"`
	// HPKE is the node's public HPKE key, to which group keys are sealed.
	HPKE []byte `json:"hpke"`
	// NotAfter is when the current certificate ends.
	NotAfter time.Time `json:"not_after"`
	// RevokedAt is set when the node was revoked; it never comes back under this id.
	RevokedAt time.Time `json:"revoked_at,omitzero"`
}

// NodeState is whether a node is heard from.
type NodeState string

// The states of a node.
const (
	// NodeEnrolled: has an identity, has not reported yet.
	NodeEnrolled NodeState = "enrolled"
	// NodeUp: heartbeats arrive.
	NodeUp NodeState = "up"
	// NodeDown: no heartbeat for longer than the reaping age.
	NodeDown NodeState = "down"
)

// NodeObserved is what a node reported last, folded into state by the leader. Heartbeats that change nothing are not stored.
type NodeObserved struct {
	State NodeState `json:"state"`
	// Since is when State last changed.
	Since time.Time `json:"since"`
	// Boot names the node's current boot.
	Boot string `json:"boot,omitempty"`
	// Software is the version the node runs.
	Software string `json:"software,omitempty"`
	// Serving says whether the worker answers requests.
	Serving bool `json:"serving"`
	// ClockSkew is how far the node's clock is behind ours, as a duration; empty within MaxClockSkew.
	ClockSkew string `json:"clock_skew,omitempty"`
	// Heads is what the node applied or refused, by kind.
	Heads []HeadReport `json:"heads,omitempty"`
}

// Head returns the report about one kind.
func (o NodeObserved) Head(k HeadKind) (HeadReport, bool) {
	for _, h := range o.Heads {
		if h.Kind == k {
			return h, true
		}
	}
	return HeadReport{}, false
}

// HeadReport is a node's ACK or NACK of a head.
type HeadReport struct {
	Kind    HeadKind `json:"kind"`
	Version Version  `json:"version"`
	Root    Digest   `json:"root"`
	// Reason is why the node refused the head (NACK); empty means applied (ACK).
	Reason string `json:"reason,omitempty"`
	// AppliedAt is the node's clock when it swapped or refused.
	AppliedAt time.Time `json:"applied_at"`
}

// Applied reports whether the node runs at least version v of the kind.
func (r HeadReport) Applied(v Version) bool { return r.Reason == "" && r.Version.Compare(v) >= 0 }

// Validate checks the invariants of n.
func (n Node) Validate() error {
	if err := ValidateID("node", n.ID); err != nil {
		return err
	}
	if err := ValidateID("group", n.Spec.Group); err != nil {
		return err
	}
	if len(n.Spec.Addresses) == 0 || len(n.Spec.Addresses) > 16 {
		return Invalid("addresses", "node %s has %d addresses: give 1 to 16", n.ID, len(n.Spec.Addresses))
	}
	if n.Spec.Weight < 0 || n.Spec.Weight > MaxNodeWeight {
		return Invalid("weight", "%d is not a weight from 1 to %d; 0 is the usual %d", n.Spec.Weight, MaxNodeWeight, DefaultNodeWeight)
	}
	return ValidateID("region", n.Spec.Region)
}

// JoinToken admits one node or one member; only the hash of its secret is stored.
type JoinToken struct {
	ID TokenID `json:"id"`
	// Kind is node or member.
	Kind   JoinKind   `json:"kind"`
	Group  GroupName  `json:"group,omitempty"`
	Region RegionName `json:"region,omitempty"`
	// ExpiresAt is 15 minutes after creation unless the operator asked for less.
	ExpiresAt time.Time `json:"expires_at"`
	// UsedBy is the node or member that consumed it.
	UsedBy string `json:"used_by,omitempty"`
	Meta
}

// JoinKind is what a join token admits.
type JoinKind string

// What a join token admits.
const (
	JoinNode   JoinKind = "node"
	JoinMember JoinKind = "member"
)
