package command

import "github.com/edgefleet/edgefleet/fleet"

// GroupRekey begins the next epoch of a node group's keys. It holds no key: that is derived.
type GroupRekey struct {
	Group fleet.GroupName `json:"group"`
	// From is the number of the epoch that it ends.
	From  uint64           `json:"from"`
	Cause fleet.EpochCause `json:"cause"`
	// Node is the revoked node that is the cause.
	Node fleet.NodeID `json:"node,omitempty"`
	// Certificates asks for new private keys of all certificates too.
	Certificates bool `json:"certificates,omitempty"`
}

// Type implements Body.
func (GroupRekey) Type() Type { return TypeGroupRekey }
