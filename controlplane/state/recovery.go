package state

import (
	"bytes"
	"io"
	"slices"

	"github.com/edgefleet/edgefleet/fleet"
)

// StagedPart is one part of a snapshot on its way into the state: it is larger than a log entry may be.
type StagedPart struct {
	// Seq counts the parts from 0.
	Seq uint64 `json:"seq"`
	// Restore names the upload that the part belongs to.
	Restore string `json:"restore"`
	Data    []byte `json:"data"`
}

// Statement is what nodes are shown of the current incarnation; nil in the first, which needs none.
func (v *View) Statement() *fleet.SignedIncarnation {
	c, _ := v.Cluster()
	rec, _ := v.Incarnation(c.Incarnation)
	return rec.Statement
}

// Incarnation returns the record of an incarnation after the first.
func (v *View) Incarnation(number uint64) (fleet.IncarnationRecord, bool) {
	return get[fleet.IncarnationRecord](v, Incarnations, indexID, number)
}

// Incarnations lists the records of incarnations after the first.
func (v *View) Incarnations() []fleet.IncarnationRecord {
	return list[fleet.IncarnationRecord](v, Incarnations, indexID)
}

// StagedParts are how many parts of a restore are staged, without a gap.
func (v *View) StagedParts(restore string) uint64 {
	n := uint64(0)
	for _, p := range list[StagedPart](v, Staged, indexID) {
		if p.Restore == restore && p.Seq == n {
			n++
		}
	}
	return n
}

// StagedReader reads the parts of a restore in their order.
func (v *View) StagedReader(restore string) io.Reader {
	var parts []io.Reader
	for _, p := range list[StagedPart](v, Staged, indexID) {
		if p.Restore == restore {
			parts = append(parts, bytes.NewReader(p.Data))
		}
	}
	return io.MultiReader(parts...)
}

// PutIncarnation stores the record of an incarnation.
func (t *Tx) PutIncarnation(r fleet.IncarnationRecord) { put(t, Incarnations, r) }

// Stage stores one part; Unstage removes all of them.
func (t *Tx) Stage(p StagedPart) { put(t, Staged, p) }

// Unstage removes every staged part.
func (t *Tx) Unstage() { t.clear(Staged) }

func (t *Tx) clear(table Table) {
	t.wrote(table)
	if _, err := t.txn.DeleteAll(string(table), indexID); err != nil {
		panic("state: clear " + string(table) + ": " + err.Error())
	}
}

// DeleteJoinTokens removes every join token.
func (t *Tx) DeleteJoinTokens() { t.clear(JoinTokens) }

// DeleteMembers removes every member.
func (t *Tx) DeleteMembers() { t.clear(Members) }

// Load reads a snapshot into a state of its own; a damaged one is ErrCorrupt.
func Load(r io.Reader) (*Store, error) {
	s := New()
	return s, s.Restore(r)
}

// ReplaceOnly takes over the given tables of from, whole.
func (t *Tx) ReplaceOnly(from *View, tables ...Table) {
	for _, table := range tables {
		t.clear(table)
		it, err := from.txn.Get(string(table), indexID)
		if err != nil {
			panic("state: read " + string(table) + ": " + err.Error())
		}
		for raw := it.Next(); raw != nil; raw = it.Next() {
			if err := t.txn.Insert(string(table), raw); err != nil {
				panic("state: insert into " + string(table) + ": " + err.Error()) // it was in a table of the same schema
			}
		}
	}
}

// Labels lists every label that was ever issued.
func (v *View) Labels() []fleet.Label { return list[fleet.Label](v, Labels, indexID) }

// Drill returns a drill.
func (v *View) Drill(id string) (fleet.Drill, bool) { return get[fleet.Drill](v, Drills, indexID, id) }

// Drills lists the drills, the oldest first.
func (v *View) Drills() []fleet.Drill {
	drills := list[fleet.Drill](v, Drills, indexID)
	slices.SortStableFunc(drills, func(a, b fleet.Drill) int { return a.CreatedAt.Compare(b.CreatedAt) })
	return drills
}

// PutDrill stores a drill.
func (t *Tx) PutDrill(d fleet.Drill) { put(t, Drills, d) }

// TrimDrills removes the oldest drills until keep are left.
func (t *Tx) TrimDrills(keep int) {
	drills := t.Drills()
	for _, d := range drills[:max(0, len(drills)-keep)] {
		del(t, Drills, indexID, d.ID)
	}
}

// DeleteHeads removes every head.
func (t *Tx) DeleteHeads() { t.clear(Heads) }
