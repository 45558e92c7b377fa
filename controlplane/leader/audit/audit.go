// Package audit is the leader's loop over the audit chain: it seals the oldest entries into segments, takes them out of
// the state once a majority of the voters holds their files, signs checkpoints, and removes join tokens long expired.
//
// It owns no file (package controlplane/audit). Without the audit key nothing is sealed or signed and the state keeps
// all entries; while a majority does not hold a segment, its entries stay in the state.
package audit

import (
	"context"
	"fmt"
	"time"

	"github.com/edgefleet/edgefleet/controlplane/command"
	"github.com/edgefleet/edgefleet/controlplane/leader"
	"github.com/edgefleet/edgefleet/controlplane/state"
	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/fleet/audit"
)

// Options configure the loop.
type Options struct {
	State    *state.Store
	Proposer leader.Proposer
	// Sign is nil on a member without the KEK.
	Sign fleet.AuditSigner
	// Voters lists the voting members; Held says which segments one of them has on its disk.
	Voters func() []fleet.MemberID
	Held   func(ctx context.Context, m fleet.MemberID) (map[fleet.Digest]bool, error)
	// Keep is how many entries stay in the state; default 10,000. Segments have a tenth of it, at most 1,000.
	Keep int
	// Checkpoint is how long entries wait for a signature; default 15 min.
	Checkpoint time.Duration
	// Pause is the time between two looks; default 1 s.
	Pause time.Duration
	Now   func() time.Time
}

const (
	// DefaultKeep is the default of Options.Keep.
	DefaultKeep = 10_000
	// keepBytes bounds the sealed entries that stay in the state, whatever Keep says.
	keepBytes = 64 << 20
	// tokenLife is how long an expired join token is still known by its name, for people who ask why it is refused.
	tokenLife = 24 * time.Hour
	// maxReap is what one command may remove.
	maxReap = 256
	// overhead is about what an entry has beside before and after, in bytes.
	overhead = 512
)

// Loop is the loop.
type Loop struct{ o Options }

// New makes the loop.
func New(o Options) *Loop {
	if o.Keep == 0 {
		o.Keep = DefaultKeep
	}
	if o.Checkpoint == 0 {
		o.Checkpoint = 15 * time.Minute
	}
	if o.Pause == 0 {
		o.Pause = time.Second
	}
	return &Loop{o}
}

// Run blocks until ctx ends or a proposal fails.
func (l *Loop) Run(ctx context.Context) error {
	tick := time.NewTicker(l.o.Pause)
	defer tick.Stop()
	for {
		for _, step := range []func(context.Context) error{l.seal, l.drop, l.checkpoint, l.reap} {
			if err := step(ctx); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func (l *Loop) propose(ctx context.Context, b command.Body) error {
	if _, err := l.o.Proposer.Propose(ctx, leader.Header("audit", l.o.Now()), b); err != nil {
		return fmt.Errorf("propose %s: %w", b.Type(), err)
	}
	return nil
}

// seal seals what is ready, segment by segment.
func (l *Loop) seal(ctx context.Context) error {
	for l.o.Sign != nil && ctx.Err() == nil {
		v := l.o.State.Read()
		cluster, _ := v.Cluster()
		entries := l.ready(v)
		if len(entries) == 0 {
			return nil
		}
		s, _, err := audit.SealSlowly(cluster.ID, entries, func() { time.Sleep(time.Millisecond) })
		if err != nil {
			return err
		}
		s.Checkpoint.Time = l.o.Now()
		if s.Checkpoint, err = s.Checkpoint.Sign(l.o.Sign); err != nil {
			return err
		}
		if err := l.propose(ctx, command.AuditSeal{Segment: s}); err != nil {
			return err
		}
	}
	return nil
}

// size is how many entries a segment has.
func (l *Loop) size() int { return min(max(l.o.Keep/10, 1), fleet.MaxAuditSegment) }

// ready are the entries of the next segment, when there are enough of them in number or in bytes.
func (l *Loop) ready(v *state.View) []fleet.AuditEntry {
	var entries []fleet.AuditEntry
	bytes := 0
	for e := range v.AuditFrom("", v.AuditSealed()+1) {
		entries = append(entries, e)
		if bytes += overhead + len(e.Before) + len(e.After); len(entries) == l.size() || bytes >= audit.MaxSegmentBytes {
			return entries
		}
	}
	return nil
}

// drop takes the oldest segments out of the state while there is more than is to be kept.
func (l *Loop) drop(ctx context.Context) error {
	var held []map[fleet.Digest]bool
	voters := l.o.Voters()
	for ctx.Err() == nil {
		v := l.o.State.Read()
		s, over := l.oldest(v)
		if !over {
			return nil
		}
		if held == nil {
			for _, m := range voters {
				if h, err := l.o.Held(ctx, m); err == nil { // one that is away holds nothing
					held = append(held, h)
				}
			}
		}
		holders := 0
		for _, h := range held {
			if h[s.Digest] {
				holders++
			}
		}
		if 2*holders <= len(voters) {
			return nil
		}
		if err := l.propose(ctx, command.AuditDrop{From: s.From}); err != nil {
			return err
		}
	}
	return nil
}

// oldest is the oldest segment whose entries are still in the state, and whether they should leave it.
func (l *Loop) oldest(v *state.View) (fleet.AuditSegment, bool) {
	first, head := v.AuditFirst(), v.AuditHead().Seq
	s, ok := v.AuditSegmentAt(first)
	if !ok || s.From != first || s.Dropped || s.To >= head {
		return s, false
	}
	bytes := int64(0)
	for other := range v.AuditSegments(first) {
		bytes += other.Bytes
	}
	return s, head-s.To >= uint64(l.o.Keep) || bytes > keepBytes //nolint:gosec // a positive setting
}

// checkpoint signs entries that have waited long enough without a segment.
func (l *Loop) checkpoint(ctx context.Context) error {
	v := l.o.State.Read()
	head := v.AuditHead()
	s, _ := v.AuditSegmentAt(head.Seq)
	last := s.Checkpoint
	for _, c := range v.AuditCheckpoints() {
		if c.Seq > last.Seq {
			last = c
		}
	}
	oldest, ok := v.AuditEntry(last.Seq + 1)
	if l.o.Sign == nil || !ok || l.o.Now().Sub(oldest.Time) < l.o.Checkpoint {
		return nil
	}
	cluster, _ := v.Cluster()
	next, _, err := audit.Seal(cluster.ID, v.AuditAfter("", s.To, fleet.MaxAuditSegment))
	if err != nil {
		return err
	}
	next.Checkpoint.Time = l.o.Now()
	c, err := next.Checkpoint.Sign(l.o.Sign)
	if err != nil {
		return err
	}
	return l.propose(ctx, command.AuditCheckpoint{Checkpoint: c})
}

// reap removes join tokens that expired a while ago.
func (l *Loop) reap(ctx context.Context) error {
	var cmd command.JoinTokensReap
	for _, t := range l.o.State.Read().JoinTokens() {
		if l.o.Now().Sub(t.ExpiresAt) >= tokenLife && len(cmd.IDs) < maxReap {
			cmd.IDs = append(cmd.IDs, t.ID)
		}
	}
	if len(cmd.IDs) == 0 {
		return nil
	}
	return l.propose(ctx, cmd)
}
