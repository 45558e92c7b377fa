package command

import "github.com/edgefleet/edgefleet/fleet"

// The commands by which the audit chain leaves the state, and spent join tokens. Those of the chain are not audited:
// they change none of what it says, and an entry about each would never let it come to rest.
type (
	// AuditSeal records that the oldest unsealed entries are a segment, which each member now writes to its disk.
	AuditSeal struct {
		Segment fleet.AuditSegment `json:"segment"`
	}
	// AuditDrop takes the entries of the oldest segment that still has them out of the state, once a majority of the
	// members holds its file.
	AuditDrop struct {
		From uint64 `json:"from"`
	}
	// AuditCheckpoint records what was signed of the unsealed entries.
	AuditCheckpoint struct {
		Checkpoint fleet.AuditCheckpoint `json:"checkpoint"`
	}
	// JoinTokensReap removes join tokens that expired; one audit entry each.
	JoinTokensReap struct {
		IDs []fleet.TokenID `json:"ids"`
	}
)

// Type implements Body.
func (AuditSeal) Type() Type { return TypeAuditSeal }

// Type implements Body.
func (AuditDrop) Type() Type { return TypeAuditDrop }

// Type implements Body.
func (AuditCheckpoint) Type() Type { return TypeAuditCheckpoint }

// Type implements Body.
func (JoinTokensReap) Type() Type { return TypeJoinTokensReap }
