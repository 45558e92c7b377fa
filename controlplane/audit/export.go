package audit

import (
	"context"
	"time"

	"github.com/edgefleet/edgefleet/controlplane/state"
	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/fleet/audit"
)

// Export asks for one part of an export.
type Export struct {
	Tenant fleet.TenantID
	// From is the first entry, at least 1; Until the last of the whole export, 0 for the newest.
	From, Until uint64
	Sign        fleet.AuditSigner
	Now         time.Time
}

const (
	// partBytes and partReads end a part: what a client asks for is held in memory.
	partBytes = 4 << 20
	partReads = 64
)

// Export makes the part from x.From on. ErrSealed on a member that cannot sign.
func (l *Log) Export(ctx context.Context, x Export) ([]byte, error) {
	v := l.o.State.Read()
	cluster, _ := v.Cluster()
	head := v.AuditHead()
	if x.Until == 0 {
		x.Until = head.Seq
	}
	if x.From == 0 || x.Until > head.Seq || x.From > x.Until+1 {
		return nil, fleet.Invalid("from", "there are no audit entries from %d to %d: the newest is %d", x.From, x.Until, head.Seq)
	}
	prev, err := l.hashAt(ctx, v, x.From-1)
	if err != nil {
		return nil, err
	}
	w := audit.NewWriter(audit.Part{
		Cluster: cluster.ID, Tenant: x.Tenant, From: x.From, Until: x.Until, Prev: prev, Key: cluster.AuditKey, Time: x.Now,
	})
	reads := 0
	for at := x.From; at <= x.Until && w.Len() < partBytes && reads < partReads; {
		b, err := l.block(ctx, v, x, at)
		if err != nil {
			return nil, err
		}
		at = b.checkpoint.Seq + 1
		if b.entries == nil {
			w.Skip(b.checkpoint.Seq, b.checkpoint.Hash)
			continue
		}
		reads++
		if err := w.Block(b.entries, b.checkpoint); err != nil {
			return nil, err
		}
	}
	return w.Close(x.Sign)
}

// block is a run of entries that one checkpoint covers; without entries, it holds none of the tenant's.
type block struct {
	entries    []fleet.AuditEntry
	checkpoint fleet.AuditCheckpoint
}

// block returns the entries from at to the end of their segment, or of the export. Where that is not a whole segment,
// its checkpoint is signed now.
func (l *Log) block(ctx context.Context, v *state.View, x Export, at uint64) (block, error) {
	s, sealed := v.AuditSegmentAt(at)
	if sealed = sealed && at <= s.To; !sealed {
		s = fleet.AuditSegment{From: at, To: at + fleet.MaxAuditSegment - 1}
	}
	to := min(s.To, x.Until)
	whole := sealed && at == s.From && to == s.To
	if i := l.index(s); whole && i != nil && !i.may(termTenant, string(x.Tenant)) {
		return block{checkpoint: s.Checkpoint}, nil
	}
	var entries []fleet.AuditEntry
	if at >= v.AuditFirst() {
		entries = v.AuditAfter("", at-1, int(to-at+1)) //nolint:gosec // at most MaxAuditSegment
	} else {
		all, err := l.read(ctx, s)
		if err != nil {
			return block{}, err
		}
		entries = all[at-s.From : to-s.From+1]
	}
	if whole {
		return block{entries, s.Checkpoint}, nil
	}
	cluster, _ := v.Cluster()
	part, _, err := audit.Seal(cluster.ID, entries)
	if err != nil {
		return block{}, err
	}
	part.Checkpoint.Time = x.Now
	c, err := part.Checkpoint.Sign(x.Sign)
	return block{entries, c}, err
}

// hashAt is the chain's hash at an entry.
func (l *Log) hashAt(ctx context.Context, v *state.View, seq uint64) (string, error) {
	if seq == 0 {
		return fleet.AuditGenesis, nil
	}
	if e, ok := v.AuditEntry(seq); ok {
		return e.Hash, nil
	}
	s, _ := v.AuditSegmentAt(seq)
	if s.To == seq {
		return s.Hash, nil
	}
	entries, err := l.read(ctx, s)
	if err != nil {
		return "", err
	}
	return entries[seq-s.From].Hash, nil
}
