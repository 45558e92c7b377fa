package consensus

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// growthRetry is the pause after a snapshot that failed, for want of space say.
const growthRetry = 10 * time.Second

// growth counts what was applied since the last snapshot. Raft counts entries only, and looks now and then: a few
// thousand large ones would fill a disk before it does.
type growth struct {
	limit int64
	// over has a signal when the limit was passed.
	over chan struct{}

	mu      sync.Mutex
	bytes   int64
	entries uint64
}

func newGrowth(limit int64) *growth { return &growth{limit: limit, over: make(chan struct{}, 1)} }

// add counts entries that were applied.
func (g *growth) add(logs []*raft.Log) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, l := range logs {
		g.bytes += int64(len(l.Data))
	}
	g.entries += uint64(len(logs))
	if g.bytes < g.limit {
		return
	}
	select {
	case g.over <- struct{}{}:
	default: // it is known
	}
}

// begin starts over: a snapshot is taken of all that was counted, or took its place.
func (g *growth) begin() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.bytes, g.entries = 0, 0
}

// passed says how many entries made the limit, 0 if it was not passed.
func (g *growth) passed() uint64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.bytes < g.limit {
		return 0
	}
	return g.entries
}

// bound takes a snapshot whenever the log has grown by the limit, until Close, and keeps no more entries behind it than
// made the limit. A snapshot takes its time until the log has grown by the limit again: the log stays below three times
// the limit, what arrives while a snapshot is written at full speed, and what TrailingLogs small entries take.
func (n *Node) bound(trailing uint64) {
	for {
		select {
		case <-n.fsm.growth.over:
		case <-n.closing:
			return
		}
		for entries := n.fsm.growth.passed(); entries > 0; {
			err := n.shorten(min(trailing, entries), trailing)
			if err == nil {
				break
			}
			if errors.Is(err, raft.ErrRaftShutdown) {
				return
			}
			select {
			case <-n.closing:
				return // which gave up the snapshot
			default:
			}
			n.log.WarnContext(context.Background(), "log not shortened, trying again", "member", n.member, "err", err)
			select {
			case <-time.After(growthRetry):
			case <-n.closing:
				return
			}
		}
	}
}

// shorten takes a snapshot and keeps that many entries behind it, this one time.
func (n *Node) shorten(keep, usually uint64) error {
	if err := n.keep(keep); err != nil {
		return err
	}
	return errors.Join(n.Snapshot(), n.keep(usually))
}

func (n *Node) keep(trailing uint64) error {
	c := n.raft.ReloadableConfig()
	c.TrailingLogs = trailing
	return n.raft.ReloadConfig(c)
}
