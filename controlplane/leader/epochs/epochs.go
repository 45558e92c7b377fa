// Package epochs is the leader's loop that begins a new epoch of a node group's keys: when the current one has lasted
// fleet.EpochLife, and at once when a node of the group was revoked, which knows the key of the current one.
//
// It owns neither the keys, which are derived (controlplane/keys), nor what is sealed by them (controlplane/blobs): a new
// epoch is one command, whatever the group serves. While the loop does not run, for want of a quorum say, nodes go on
// with the keys they have. What it decides by is in the state, so that a new leader neither skips an eviction nor begins
// a second epoch for it.
package epochs

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/edgefleet/edgefleet/controlplane/command"
	"github.com/edgefleet/edgefleet/controlplane/leader"
	"github.com/edgefleet/edgefleet/controlplane/state"
	"github.com/edgefleet/edgefleet/fleet"
)

const (
	// pause bounds how often nodes and groups are looked at: nodes' reports change all the time.
	pause = 250 * time.Millisecond
	// again is when an epoch that was refused is tried anew: some member does not know the command yet.
	again = time.Minute
)

// Loop is the loop.
type Loop struct {
	State    *state.Store
	Proposer leader.Proposer
	// Life is how long an epoch lasts; zero is fleet.EpochLife.
	Life   time.Duration
	Logger *slog.Logger
	Now    func() time.Time
}

// Run blocks until ctx ends or a proposal fails.
func (l *Loop) Run(ctx context.Context) error {
	watch := func() func(context.Context) error {
		return l.State.Watch(state.Groups, state.Nodes, state.Epochs).WatchCtx
	}
	return leader.Follow(ctx, pause, watch, l.step)
}

// step begins the epochs that are due and returns how long there will be nothing to do, unless something changes.
func (l *Loop) step(ctx context.Context) (time.Duration, error) {
	v, now := l.State.Read(), l.Now()
	if _, ok := v.Cluster(); !ok {
		return again, nil
	}
	wait := l.life()
	evicted := revoked(v)
	for _, g := range v.Groups() {
		e := v.Epoch(g.Name)
		b := command.GroupRekey{Group: g.Name, From: e.Number}
		left := e.Since.Add(l.life()).Sub(now)
		switch n, ok := evicted[g.Name]; {
		case ok && n.Revision > e.Revision:
			b.Cause, b.Node = fleet.EpochEvicted, n.ID
		case left <= 0:
			b.Cause = fleet.EpochDaily
		default:
			wait = min(wait, left)
			continue
		}
		began, err := l.begin(ctx, b)
		if err != nil {
			return 0, err
		}
		if !began {
			wait = min(wait, again)
		}
	}
	return wait, nil
}

// begin begins an epoch; false means that it was refused, and why is in the log.
func (l *Loop) begin(ctx context.Context, b command.GroupRekey) (bool, error) {
	_, err := l.Proposer.Propose(ctx, leader.Header("epochs", l.Now()), b)
	log := l.Logger.With("group", string(b.Group), "epoch", b.From+1, "cause", string(b.Cause))
	switch {
	case errors.Is(err, fleet.ErrChanged):
		return true, nil // an operator was faster: the state has it
	case errors.Is(err, fleet.ErrConflict):
		log.WarnContext(ctx, "no new epoch of group keys", "err", err)
		return false, nil
	case err != nil:
		return false, fmt.Errorf("begin epoch %d of group %s: %w", b.From+1, b.Group, err)
	}
	if b.Node != "" {
		log = log.With("node", string(b.Node))
	}
	log.InfoContext(ctx, "new epoch of group keys")
	return true, nil
}

// revoked returns the node of each group that was revoked last. A revoked node does not change any more, so that its
// revision says when that was.
func revoked(v *state.View) map[fleet.GroupName]fleet.Node {
	last := map[fleet.GroupName]fleet.Node{}
	for _, n := range v.Nodes() {
		if !n.Identity.RevokedAt.IsZero() && n.Revision > last[n.Spec.Group].Revision {
			last[n.Spec.Group] = n
		}
	}
	return last
}

func (l *Loop) life() time.Duration {
	if l.Life > 0 {
		return l.Life
	}
	return fleet.EpochLife
}
