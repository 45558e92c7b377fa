package nodes

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/edgefleet/edgefleet/controlplane/command"
	"github.com/edgefleet/edgefleet/controlplane/leader"
	"github.com/edgefleet/edgefleet/fleet"
)

const (
	// returns is how often lives of one node must have come back after another took their place, over span at least and
	// with no more than window between two, until that is taken for two machines. Once or twice, a message of one that ended is late.
	returns = 4
	span    = 10 * time.Second
	window  = time.Minute
	// maxLives bounds the lives that are remembered of one node.
	maxLives = 8
)

// twinReason is why a node is locked that two machines are.
const twinReason = "two machines with its identity report at the same time"

// twins finds nodes that two machines are at one time. Every start of a supervisor is a life with an id of its own; one
// that was followed by another has ended, unless both go on. It is kept in memory: a new leader watches anew.
type twins map[fleet.NodeID]*lives

type lives struct {
	// known are the lives that were heard of, the latest last.
	known []string
	// first and last are when one came back.
	first, last time.Time
	count       int
}

// see takes a report and says whether the node is two.
func (t twins) see(r fleet.Report, now time.Time) bool {
	if r.Instance == "" {
		return false
	}
	l := t[r.Node]
	if l == nil {
		l = &lives{}
		t[r.Node] = l
	}
	at := slices.Index(l.known, r.Instance)
	if at >= 0 && at == len(l.known)-1 {
		return false
	}
	if at < 0 {
		l.known = append(l.known[max(0, len(l.known)-maxLives+1):], r.Instance)
		return false
	}
	l.known = append(slices.Delete(l.known, at, at+1), r.Instance)
	if now.Sub(l.last) > window {
		l.first, l.count = now, 0
	}
	l.last = now
	l.count++
	return l.count >= returns && now.Sub(l.first) >= span
}

// lock locks nodes that are two machines. What the state says against it, that the node is locked or gone, is no failure.
func (l *Loop) lock(ctx context.Context, ids []fleet.NodeID) error {
	for _, id := range ids {
		_, err := l.o.Proposer.Propose(ctx, leader.Header("nodes", l.o.Now()), command.NodeLock{ID: id, Reason: twinReason})
		switch {
		case err == nil:
			l.o.Logger.ErrorContext(ctx, "node locked: its identity is on two machines", "node", string(id), "reason", twinReason)
		case errors.Is(err, fleet.ErrConflict), errors.Is(err, fleet.ErrNotFound), errors.Is(err, fleet.ErrDenied):
			l.o.Logger.WarnContext(ctx, "node not locked", "node", string(id), "reason", twinReason, "err", err)
		default:
			return fmt.Errorf("lock node %s: %w", id, err)
		}
	}
	return nil
}
