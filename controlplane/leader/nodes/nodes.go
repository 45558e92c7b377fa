// Package nodes is the leader's loop that knows which nodes are alive: it folds their reports into the state in
// batches, marks nodes down that have not been heard of, and locks those that two machines claim to be.
//
// Heartbeats themselves stay in memory and never reach the log: only what changed is committed. A new leader gives
// every node a full reaping age before it calls one down, so that an election never withdraws nodes.
package nodes

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/edgefleet/edgefleet/controlplane/command"
	"github.com/edgefleet/edgefleet/controlplane/leader"
	"github.com/edgefleet/edgefleet/controlplane/state"
	"github.com/edgefleet/edgefleet/fleet"
)

// Options configure the loop.
type Options struct {
	State    *state.Store
	Proposer leader.Proposer
	// Fold is how long reports are gathered into one command; default 250 ms.
	Fold time.Duration
	// ReapAfter is the heartbeat age at which a node is down; default 15 s.
	ReapAfter time.Duration
	// Recheck has a host's DNS looked at: clients came for it, and it has no certificate. Nil: nobody looks.
	Recheck func(fleet.HostName)
	// Logger says which nodes are locked; none by default.
	Logger *slog.Logger
	Now    func() time.Time
}

const (
	// queue bounds the reports that wait for the next fold; more are dropped, the next heartbeat tells the same.
	queue = 4096
	// batch bounds the reports of one command, so that it stays below command.MaxBytes whatever nodes report.
	batch = 256
	// maxReason bounds what is kept of the reason of a refused head, in bytes.
	maxReason = 512
	// skewStep is the least change of a node's clock skew that is recorded: it varies with every message.
	skewStep = 10 * time.Second
)

// Loop is the loop. Report may be called at any time, also when this member does not lead.
type Loop struct {
	o       Options
	reports chan fleet.Report
	outs    originsOut
}

// New makes the loop.
func New(o Options) *Loop {
	if o.Fold == 0 {
		o.Fold = 250 * time.Millisecond
	}
	if o.ReapAfter == 0 {
		o.ReapAfter = 15 * time.Second
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return &Loop{o: o, reports: make(chan fleet.Report, queue)}
}

// Report takes a node's report; it never blocks. A report over the limits is dropped.
func (l *Loop) Report(r fleet.Report) {
	if r.Validate() != nil {
		return
	}
	l.outs.see(r, l.o.Now())
	r.Counters, r.OriginsOut = nil, nil // of no use here, and a follower keeps its queue
	select {
	case l.reports <- r:
	default:
	}
}

// Run blocks until ctx ends or a proposal fails.
func (l *Loop) Run(ctx context.Context) error {
	l.drain()
	started := l.o.Now()
	seen := map[fleet.NodeID]time.Time{}
	latest := map[fleet.NodeID]fleet.Report{}
	watched, doubled := twins{}, []fleet.NodeID(nil)
	first := &firstHits{recheck: l.o.Recheck, seen: map[fleet.HostName]time.Time{}}
	tick := time.NewTicker(l.o.Fold)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case r := <-l.reports:
			seen[r.Node] = l.o.Now()
			latest[r.Node] = r
			if len(r.Uncertified) > 0 {
				first.came(l.o.State.Read(), r, l.o.Now())
			}
			if watched.see(r, l.o.Now()) {
				delete(watched, r.Node) // whatever comes of it, it is watched anew
				doubled = append(doubled, r.Node)
			}
		case <-tick.C:
			cmd := l.fold(started, seen, latest)
			clear(latest)
			if err := l.lock(ctx, doubled); err != nil {
				return err
			}
			doubled = nil
			for part := range slices.Chunk(cmd.Reports, batch) {
				if _, err := l.o.Proposer.Propose(ctx, leader.Header("nodes", l.o.Now()), command.NodesReport{Reports: part}); err != nil {
					return fmt.Errorf("fold reports: %w", err)
				}
			}
		}
	}
}

// drain drops what was queued while another member led: it may be old.
func (l *Loop) drain() {
	for {
		select {
		case <-l.reports:
		default:
			return
		}
	}
}

// fold is the command that brings the state up to what was heard: nil reports when nothing changed.
func (l *Loop) fold(started time.Time, seen map[fleet.NodeID]time.Time, latest map[fleet.NodeID]fleet.Report) command.NodesReport {
	v, now := l.o.State.Read(), l.o.Now()
	var cmd command.NodesReport
	for _, id := range slices.Sorted(maps.Keys(latest)) {
		n, ok := v.Node(id)
		if !ok || !n.Identity.RevokedAt.IsZero() {
			continue
		}
		if next := observe(n.Observed, latest[id], now); changed(n.Observed, next) {
			cmd.Reports = append(cmd.Reports, command.NodeReport{ID: id, Observed: next})
		}
	}
	for _, n := range v.Nodes() {
		last, heard := seen[n.ID]
		if !heard {
			last = started
		}
		if n.Observed.State != fleet.NodeUp || now.Sub(last) < l.o.ReapAfter || !n.Identity.RevokedAt.IsZero() {
			continue
		}
		next := n.Observed
		next.State, next.Since = fleet.NodeDown, now
		cmd.Reports = append(cmd.Reports, command.NodeReport{ID: n.ID, Observed: next})
	}
	return cmd
}

// observe is what the state should say after a report.
func observe(before fleet.NodeObserved, r fleet.Report, now time.Time) fleet.NodeObserved {
	next := fleet.NodeObserved{State: fleet.NodeUp, Since: before.Since, Boot: r.Boot, Software: r.Software, Serving: r.Serving}
	for _, h := range r.Heads {
		if h.Root.Validate() != nil {
			h.Root = "" // of a head that was refused, and may be anything
		}
		h.Reason = strings.ToValidUTF8(h.Reason[:min(len(h.Reason), maxReason)], "")
		next.Heads = append(next.Heads, h)
	}
	if skew := now.Sub(r.Sent); skew.Abs() > fleet.MaxClockSkew {
		next.ClockSkew = skew.Round(time.Second).String()
		if known, err := time.ParseDuration(before.ClockSkew); err == nil && (known-skew).Abs() < skewStep {
			next.ClockSkew = before.ClockSkew
		}
	}
	if before.State != fleet.NodeUp {
		next.Since = now
	}
	return next
}

func changed(a, b fleet.NodeObserved) bool {
	return a.State != b.State || a.Boot != b.Boot || a.Software != b.Software || a.Serving != b.Serving || a.ClockSkew != b.ClockSkew ||
		!slices.EqualFunc(a.Heads, b.Heads, func(x, y fleet.HeadReport) bool {
			return x.Kind == y.Kind && x.Version == y.Version && x.Root == y.Root && x.Reason == y.Reason
		})
}
