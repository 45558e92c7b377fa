package fleet

import (
	"slices"
	"time"
)

// DrillKind is what a drill rehearses.
type DrillKind string

// The kinds of drills.
const (
	// DrillLeaderLoss: the process of the leader is killed.
	DrillLeaderLoss DrillKind = "leader-loss"
	// DrillRegionLoss: the processes of all members of a region are killed at one time.
	DrillRegionLoss DrillKind = "region-loss"
	// DrillRestore: the newest backup is restored beside the running state, and thrown away.
	DrillRestore DrillKind = "restore"
)

// DrillKinds lists every kind.
var DrillKinds = []DrillKind{DrillLeaderLoss, DrillRegionLoss, DrillRestore}

// DrillState is how far a drill is.
type DrillState string

// The states of a drill.
const (
	// DrillRunning: it has begun; one that stays so was broken off.
	DrillRunning DrillState = "running"
	// DrillPassed: nothing acknowledged was lost.
	DrillPassed DrillState = "passed"
	// DrillFailed: something was, or the fleet did not come back in time.
	DrillFailed DrillState = "failed"
)

// Drill is one rehearsal of a disaster and what was measured.
type Drill struct {
	ID    string     `json:"id"`
	Kind  DrillKind  `json:"kind"`
	State DrillState `json:"state"`
	// Target is what was lost: a member, or the members of a region with a comma between; or the backup that was restored.
	Target string `json:"target,omitempty"`
	// RTO is how long no write was acknowledged, or how long the restore took, in milliseconds.
	RTO int64 `json:"rto_ms"`
	// RPO is how old the newest thing is that was lost, in milliseconds: 0 when nothing acknowledged was.
	RPO int64 `json:"rpo_ms"`
	// Acknowledged writes were made during the drill, of which Lost are not there afterwards.
	Acknowledged int `json:"acknowledged"`
	Lost         int `json:"lost"`
	// Detail is for people.
	Detail string `json:"detail,omitempty"`
	// Marker is the number of the last write made for the drill.
	Marker uint64 `json:"marker,omitempty"`
	// EndedAt is when it ended.
	EndedAt time.Time `json:"ended_at,omitzero"`
	Meta
}

// maxDrillText bounds the texts of a drill, in bytes.
const maxDrillText = 1 << 10

// Validate checks the invariants of d.
func (d Drill) Validate() error {
	if err := ValidateID("drill", d.ID); err != nil {
		return err
	}
	if !slices.Contains(DrillKinds, d.Kind) {
		return Invalid("kind", "%q is not a kind of drill: use leader-loss, region-loss or restore", string(d.Kind))
	}
	if !slices.Contains([]DrillState{DrillRunning, DrillPassed, DrillFailed}, d.State) {
		return Invalid("state", "%q is not a state of a drill: use running, passed or failed", string(d.State))
	}
	if len(d.Target) > maxDrillText || len(d.Detail) > maxDrillText {
		return NewError(ErrTooLarge, "detail", "the texts of a drill have at most %d bytes", maxDrillText)
	}
	if d.RTO < 0 || d.RPO < 0 || d.Acknowledged < 0 || d.Lost < 0 {
		return Invalid("rto_ms", "what a drill measures is not negative")
	}
	return nil
}
