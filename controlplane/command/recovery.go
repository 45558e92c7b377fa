package command

import "github.com/edgefleet/edgefleet/fleet"

type (
	// SnapshotStage stores one part of a snapshot that is to be restored: it is larger than a log entry may be. Part 0
	// removes the parts of every other restore; without data it only does that. Not audited: nothing is restored yet.
	SnapshotStage struct {
		Restore string `json:"restore"`
		Seq     uint64 `json:"seq"`
		Data    []byte `json:"data,omitempty"`
	}
	// ClusterRestore replaces the desired state by the staged snapshot and begins a new incarnation, in one step. Answers
	// fleet.IncarnationRecord.
	ClusterRestore struct {
		Restore string `json:"restore"`
		Parts   uint64 `json:"parts"`
		// SHA256 is the digest of the snapshot's envelope.
		SHA256    string                  `json:"sha256"`
		Statement fleet.SignedIncarnation `json:"statement"`
	}
	// IncarnationStart begins a new incarnation. Answers fleet.IncarnationRecord.
	IncarnationStart struct {
		Number uint64                 `json:"number"`
		Cause  fleet.IncarnationCause `json:"cause"`
		// Statement is what nodes are shown; without it they stay with what they have.
		Statement fleet.SignedIncarnation `json:"statement,omitzero"`
		// Snapshot is the snapshot that the state came from, if it did.
		Snapshot fleet.SnapshotOrigin `json:"snapshot,omitzero"`
		// Members take the place of all members, if there are any.
		Members []fleet.Member `json:"members,omitempty"`
		// Token is a new operator token, if it has an id.
		Token fleet.TokenRecord `json:"token,omitzero"`
	}
	// DrillPut stores a drill as it is now. Answers fleet.Drill.
	DrillPut struct {
		Put
		Drill fleet.Drill `json:"drill"`
	}
)

// Type implements Body.
func (SnapshotStage) Type() Type { return TypeSnapshotStage }

// Type implements Body.
func (ClusterRestore) Type() Type { return TypeClusterRestore }

// Type implements Body.
func (IncarnationStart) Type() Type { return TypeIncarnationStart }

// Type implements Body.
func (DrillPut) Type() Type { return TypeDrillPut }
