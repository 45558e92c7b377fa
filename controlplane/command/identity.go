package command

import (
	"time"

	"github.com/edgefleet/edgefleet/fleet"
)

type (
	// NodeRotate records a node's new key, signed for by the one before. A holder of an older key, or one that goes on from
	// the key before with another new one, is a second machine with the same identity: then the node is locked. Answers
	// fleet.Node, with its lock.
	NodeRotate struct {
		ID fleet.NodeID `json:"id"`
		// From is the SPKI of the key that signed the request, SPKI of the new one.
		From     string    `json:"from"`
		SPKI     string    `json:"spki"`
		NotAfter time.Time `json:"not_after"`
	}
	// NodeLock locks a node whose identity is in use by two machines. Answers fleet.Node.
	NodeLock struct {
		ID     fleet.NodeID `json:"id"`
		Reason string       `json:"reason"`
	}
	// NodeUnlock ends a lock. Answers fleet.Node.
	NodeUnlock struct {
		ID fleet.NodeID `json:"id"`
	}
)

// Type implements Body.
func (NodeRotate) Type() Type { return TypeNodeRotate }

// Type implements Body.
func (NodeLock) Type() Type { return TypeNodeLock }

// Type implements Body.
func (NodeUnlock) Type() Type { return TypeNodeUnlock }
