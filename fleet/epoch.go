package fleet

import "time"

// EpochLife is how long the key of a node group is used, unless something ends its epoch sooner.
const EpochLife = 24 * time.Hour

// EpochCause is why an epoch of a node group's keys began.
type EpochCause string

// Why an epoch begins.
const (
	// EpochFirst: the group is new.
	EpochFirst EpochCause = "first"
	// EpochDaily: the one before had lasted EpochLife.
	EpochDaily EpochCause = "daily"
	// EpochEvicted: a node was revoked, and knows the key of the one before.
	EpochEvicted EpochCause = "evicted"
	// EpochRekey: an operator asked for it.
	EpochRekey EpochCause = "rekey"
)

// GroupEpoch says which key of a node group is in use. The key itself is stored nowhere: it is derived from the cluster's
// sealed master, the group and the epoch.
type GroupEpoch struct {
	Group GroupName `json:"group"`
	// Number counts the group's epochs from 1.
	Number uint64 `json:"number"`
	// Since is when the epoch began, Cause why.
	Since time.Time  `json:"since"`
	Cause EpochCause `json:"cause"`
	// Node is the revoked node that ended the epoch before.
	Node NodeID `json:"node,omitempty"`
	// RekeyedAt is when somebody last asked that every certificate of the group's tenants get a new private key, and
	// RekeyedBefore the revision of that: certificates of lower ones are renewed now.
	RekeyedAt     time.Time `json:"rekeyed_at,omitzero"`
	RekeyedBefore uint64    `json:"rekeyed_before,omitempty"`
	Meta
}

// incarnationBits is where the incarnation stands in a key's epoch.
const incarnationBits = 32

// Key is the epoch as it goes into keys and envelopes. It grows with the cluster's incarnation too: a restored state begins
// with an old number, whose keys a node may know that was evicted after the backup.
func (e GroupEpoch) Key(incarnation uint64) uint64 {
	return (max(incarnation, 1)-1)<<incarnationBits + e.Number
}

// Rekeys reports whether c is to be renewed because somebody may know its private key.
func (e GroupEpoch) Rekeys(c Certificate) bool { return c.Revision < e.RekeyedBefore }
