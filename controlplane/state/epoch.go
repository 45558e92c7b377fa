package state

import "github.com/edgefleet/edgefleet/fleet"

// Epochs has the epochs of node groups after their first.
const Epochs Table = "epochs"

// Epoch returns the current epoch of a group's keys: the first, which is written nowhere, until another began.
func (v *View) Epoch(g fleet.GroupName) fleet.GroupEpoch {
	if e, ok := get[fleet.GroupEpoch](v, Epochs, indexID, string(g)); ok {
		return e
	}
	group, _ := v.Group(g)
	return fleet.GroupEpoch{Group: g, Number: 1, Since: group.CreatedAt, Cause: fleet.EpochFirst}
}

// EpochKey returns the epoch as it goes into the keys of a group.
func (v *View) EpochKey(g fleet.GroupName) uint64 {
	c, _ := v.Cluster()
	return v.Epoch(g).Key(c.Incarnation)
}

// PutEpoch stores the epoch of a group's keys.
func (t *Tx) PutEpoch(e fleet.GroupEpoch) { put(t, Epochs, e) }
