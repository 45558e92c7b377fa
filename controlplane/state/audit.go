package state

import (
	"fmt"
	"iter"
	"math"

	"github.com/hashicorp/go-memdb"

	"github.com/edgefleet/edgefleet/fleet"
)

// indexTenantSeq finds a tenant's audit entries in order, without those of others.
const indexTenantSeq = "tenant_seq"

var auditOfTenant = &memdb.IndexSchema{
	Name: indexTenantSeq, AllowMissing: true,
	Indexer: &memdb.CompoundIndex{Indexes: []memdb.Indexer{field("Tenant"), &memdb.UintFieldIndex{Field: "Seq"}}},
}

// PutAudit appends an audit entry.
func (t *Tx) PutAudit(e fleet.AuditEntry) { put(t, Audit, e) }

// DeleteAudit removes the entries from one to another, which a segment holds.
func (t *Tx) DeleteAudit(from, to uint64) {
	for seq := from; seq <= to; seq++ {
		del(t, Audit, indexID, seq)
	}
}

// PutAuditSegment stores the row of a segment.
func (t *Tx) PutAuditSegment(s fleet.AuditSegment) { put(t, AuditSegments, s) }

// PutAuditCheckpoint stores a signed checkpoint.
func (t *Tx) PutAuditCheckpoint(c fleet.AuditCheckpoint) { put(t, AuditCheckpoints, c) }

// DeleteAuditCheckpoints removes the checkpoints up to seq, which a segment's covers.
func (t *Tx) DeleteAuditCheckpoints(seq uint64) {
	for _, c := range t.AuditCheckpoints() {
		if c.Seq <= seq {
			del(t, AuditCheckpoints, indexID, c.Seq)
		}
	}
}

// AuditHead is the end of the audit chain; its entry never leaves the state.
func (v *View) AuditHead() AuditHead {
	raw, err := v.txn.Last(string(Audit), indexID)
	if err != nil {
		panic(fmt.Sprintf("state: audit head: %v", err))
	}
	e, ok := raw.(*fleet.AuditEntry)
	if !ok {
		return AuditHead{Hash: fleet.AuditGenesis}
	}
	return AuditHead{Seq: e.Seq, Hash: e.Hash}
}

// AuditEntry returns an audit entry that is in the state.
func (v *View) AuditEntry(seq uint64) (fleet.AuditEntry, bool) {
	return get[fleet.AuditEntry](v, Audit, indexID, seq)
}

// AuditFirst is the first entry that is in the state; older ones are in segments. 0 when there is none.
func (v *View) AuditFirst() uint64 {
	for e := range rows[fleet.AuditEntry](v.txn.Get(string(Audit), indexID)) {
		return e.Seq
	}
	return 0
}

// AuditFrom gives the entries in the state from seq on; with a tenant, only its own, which are found by an index.
func (v *View) AuditFrom(tenant fleet.TenantID, seq uint64) iter.Seq[fleet.AuditEntry] {
	if tenant == "" {
		return rows[fleet.AuditEntry](v.txn.LowerBound(string(Audit), indexID, seq))
	}
	return while(rows[fleet.AuditEntry](v.txn.LowerBound(string(Audit), indexTenantSeq, string(tenant), seq)),
		func(e fleet.AuditEntry) bool { return e.Tenant == tenant })
}

// AuditBack gives them from seq backwards.
func (v *View) AuditBack(tenant fleet.TenantID, seq uint64) iter.Seq[fleet.AuditEntry] {
	if tenant == "" {
		return rows[fleet.AuditEntry](v.txn.ReverseLowerBound(string(Audit), indexID, seq))
	}
	// The index goes on by the id, so that an entry sorts after the bound of its own number: ask for the number after it.
	bound := seq + min(1, math.MaxUint64-seq)
	return while(rows[fleet.AuditEntry](v.txn.ReverseLowerBound(string(Audit), indexTenantSeq, string(tenant), bound)),
		func(e fleet.AuditEntry) bool { return e.Tenant == tenant })
}

func while[T any](in iter.Seq[T], ok func(T) bool) iter.Seq[T] {
	return func(yield func(T) bool) {
		for v := range in {
			if !ok(v) || !yield(v) {
				return
			}
		}
	}
}

// AuditAfter lists at most limit entries in the state after seq; with a tenant, only its own.
func (v *View) AuditAfter(tenant fleet.TenantID, seq uint64, limit int) []fleet.AuditEntry {
	var out []fleet.AuditEntry
	if seq == math.MaxUint64 {
		return nil // nothing is after it, and seq+1 would be the beginning
	}
	for e := range v.AuditFrom(tenant, seq+1) {
		if len(out) == limit {
			break
		}
		out = append(out, e)
	}
	return out
}

// AuditSegments gives the segments from the one that holds seq on.
func (v *View) AuditSegments(seq uint64) iter.Seq[fleet.AuditSegment] {
	from := uint64(0)
	if s, ok := v.AuditSegmentAt(seq); ok {
		from = s.From
	}
	return rows[fleet.AuditSegment](v.txn.LowerBound(string(AuditSegments), indexID, from))
}

// AuditSegmentsBack gives the segments from the one that holds seq backwards.
func (v *View) AuditSegmentsBack(seq uint64) iter.Seq[fleet.AuditSegment] {
	return rows[fleet.AuditSegment](v.txn.ReverseLowerBound(string(AuditSegments), indexID, seq))
}

// AuditSegmentAt returns the segment that holds seq, or else the last before it.
func (v *View) AuditSegmentAt(seq uint64) (fleet.AuditSegment, bool) {
	for s := range v.AuditSegmentsBack(seq) {
		return s, true
	}
	return fleet.AuditSegment{}, false
}

// AuditSealed is the last entry that a segment holds.
func (v *View) AuditSealed() uint64 {
	s, _ := v.AuditSegmentAt(math.MaxUint64)
	return s.To
}

// AuditCheckpoints lists what was signed since the last segment.
func (v *View) AuditCheckpoints() []fleet.AuditCheckpoint {
	return list[fleet.AuditCheckpoint](v, AuditCheckpoints, indexID)
}

// JoinTokens lists the join tokens.
func (v *View) JoinTokens() []fleet.JoinTokenRecord {
	return list[fleet.JoinTokenRecord](v, JoinTokens, indexID)
}

// DeleteJoinToken removes a join token.
func (t *Tx) DeleteJoinToken(id fleet.TokenID) { del(t, JoinTokens, indexID, string(id)) }
