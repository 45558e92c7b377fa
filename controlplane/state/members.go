package state

import "github.com/edgefleet/edgefleet/fleet"

// RemovedMembers is the table of members that were removed.
const RemovedMembers Table = "removed_members"

// RemovedMember returns what is kept of a member that was removed.
func (v *View) RemovedMember(id fleet.MemberID, join fleet.TokenID) (fleet.RemovedMember, bool) {
	return get[fleet.RemovedMember](v, RemovedMembers, indexID, fleet.RemovedKey(id, join))
}

// RemovedMembers lists the members that were removed.
func (v *View) RemovedMembers() []fleet.RemovedMember {
	return list[fleet.RemovedMember](v, RemovedMembers, indexID)
}

// PutRemovedMember stores what is kept of a member that is removed.
func (t *Tx) PutRemovedMember(m fleet.RemovedMember) { put(t, RemovedMembers, m) }
