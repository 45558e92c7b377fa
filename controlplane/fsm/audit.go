package fsm

import (
	"github.com/edgefleet/edgefleet/controlplane/command"
	"github.com/edgefleet/edgefleet/fleet"
)

// auditSeal records a segment. Its hash is the chain's, which commits to every entry before it, so that no entry is
// read here; each member compares its own entries with the digest when it writes the file, outside of Apply.
func (p *processor) auditSeal(b *command.AuditSeal) error {
	s := b.Segment
	if err := s.Validate(); err != nil {
		return err
	}
	if next := p.tx.AuditSealed() + 1; s.From != next {
		return fleet.NewError(fleet.ErrStale, "from", "the next audit segment begins with entry %d, not %d", next, s.From)
	}
	first, known := p.tx.AuditEntry(s.From)
	if !known || first.Prev != s.Prev {
		return fleet.NewError(fleet.ErrStale, "from", "audit entry %d does not follow %s", s.From, s.Prev)
	}
	if err := p.checkCheckpoint(s.Checkpoint); err != nil {
		return err
	}
	s.Dropped = false
	p.tx.PutAuditSegment(s)
	p.tx.DeleteAuditCheckpoints(s.To)
	return nil
}

// checkCheckpoint refuses a checkpoint that is not of this chain, or not signed by this cluster's key.
func (p *processor) checkCheckpoint(c fleet.AuditCheckpoint) error {
	cluster, _ := p.tx.Cluster()
	e, known := p.tx.AuditEntry(c.Seq)
	if c.Cluster != cluster.ID || !known || e.Hash != c.Hash {
		return fleet.NewError(fleet.ErrStale, "hash", "the audit chain of cluster %s does not have the hash %.80q at entry %d", cluster.ID, c.Hash, c.Seq)
	}
	return c.Verify(cluster.AuditKey)
}

func (p *processor) auditDrop(b *command.AuditDrop) error {
	s, ok := p.tx.AuditSegmentAt(b.From)
	if !ok || s.From != b.From || s.Dropped || p.tx.AuditFirst() != b.From {
		return fleet.NewError(fleet.ErrStale, "from", "no segment of audit entries from %d is the oldest in the state", b.From)
	}
	if s.To >= p.tx.AuditHead().Seq {
		return fleet.Invalid("from", "the head of the audit chain, entry %d, stays in the state", s.To)
	}
	s.Dropped = true
	p.tx.PutAuditSegment(s)
	p.tx.DeleteAudit(s.From, s.To)
	return nil
}

func (p *processor) auditCheckpoint(b *command.AuditCheckpoint) error {
	c := b.Checkpoint
	if c.From != p.tx.AuditSealed()+1 || c.Seq < c.From {
		return fleet.NewError(fleet.ErrStale, "from", "the unsealed audit entries begin with %d, not %d", p.tx.AuditSealed()+1, c.From)
	}
	if err := p.checkCheckpoint(c); err != nil {
		return err
	}
	p.tx.PutAuditCheckpoint(c)
	return nil
}

// maxReap bounds the join tokens that one command removes.
const maxReap = 256

// joinTokensReap removes tokens that expired, used or not. A replay of one is refused as before: it is not known.
func (p *processor) joinTokensReap(b *command.JoinTokensReap) error {
	if len(b.IDs) > maxReap {
		return fleet.NewError(fleet.ErrTooLarge, "ids", "one command removes at most %d join tokens", maxReap)
	}
	for _, id := range b.IDs {
		t, ok := p.tx.JoinToken(id)
		if !ok || p.header.Time.Before(t.ExpiresAt) {
			return fleet.NewError(fleet.ErrStale, "ids", "join token %s is gone, or good until %s", id, t.ExpiresAt.Format("15:04:05 MST"))
		}
		p.tx.DeleteJoinToken(id)
		if err := p.audit(b, "join_token/"+string(id), "", t.JoinToken, nil); err != nil {
			return err
		}
	}
	return nil
}
