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

// MemberRetire removes a member for good: the state forgets it, and refuses its certificates from then on.
type MemberRetire struct {
	ID fleet.MemberID `json:"id"`
}

// Type implements Body.
func (MemberRetire) Type() Type { return TypeMemberRetire }
