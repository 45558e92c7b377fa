package command

import "github.com/edgefleet/edgefleet/fleet"

// LeaderTransfer records that someone had leadership handed over; it changes nothing else. An empty To leaves the choice
// to the cluster.
type LeaderTransfer struct {
	From fleet.MemberID `json:"from"`
	To   fleet.MemberID `json:"to,omitempty"`
}

// Type implements Body.
func (LeaderTransfer) Type() Type { return TypeLeaderTransfer }
