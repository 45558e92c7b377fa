// Package sets is the leader's loop that decides which nodes are in DNS: it keeps one set for each group, and for each
// combination of regions that hosts are bound to, up to what nodes report.
//
// It owns when sets are looked at; what they should be is dns.Advance. What it decided is in the state, the deadlines of
// nodes that bake too, so that a successor goes on with it. Without a quorum nothing is decided: members go on answering
// with the last good sets.
package sets

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/edgefleet/edgefleet/controlplane/command"
	"github.com/edgefleet/edgefleet/controlplane/dns"
	"github.com/edgefleet/edgefleet/controlplane/leader"
	"github.com/edgefleet/edgefleet/controlplane/state"
	"github.com/edgefleet/edgefleet/fleet"
)

const (
	// pause bounds how often sets are looked at, hostsPause how often the hosts are that are bound to regions.
	pause      = 50 * time.Millisecond
	hostsPause = time.Second
	// batch bounds the sets of one command.
	batch = 32
)

// Loop is the loop.
type Loop struct {
	State    *state.Store
	Proposer leader.Proposer
	// Bake is how long a node that left DNS must be healthy before it is back.
	Bake   time.Duration
	Logger *slog.Logger
	Now    func() time.Time
}

// wanted are the sets that there should be, as of an index of the state.
type wanted struct {
	sets  map[string]fleet.DNSSet
	index uint64
	at    time.Time
	known bool
}

// Run keeps the sets until ctx ends; an error is one of proposing.
func (l *Loop) Run(ctx context.Context) error {
	var w wanted
	for {
		ws := l.State.Watch(state.Nodes, state.Regions, state.DNSSets, state.Hosts, state.Tenants, state.Groups)
		later := l.refresh(&w)
		wake, err := l.pass(ctx, w)
		if err != nil {
			return err
		}
		if !later.IsZero() && (wake.IsZero() || later.Before(wake)) {
			wake = later
		}
		if !l.wait(ctx, ws.WatchCtx, wake) {
			return nil
		}
	}
}

// wait blocks until the state changes or it is time, and at least for pause; false means that ctx ended.
func (l *Loop) wait(ctx context.Context, changed func(context.Context) error, wake time.Time) bool {
	until, cancel := ctx, context.CancelFunc(func() {})
	if !wake.IsZero() {
		until, cancel = context.WithTimeout(ctx, max(wake.Sub(l.Now()), pause))
	}
	_ = changed(until) // it says that the context ended, which is looked at below
	cancel()
	select {
	case <-ctx.Done():
		return false
	case <-time.After(pause):
		return true
	}
}

// refresh looks which sets hosts need, not too often. It returns when to look again, if it was too early.
func (l *Loop) refresh(w *wanted) time.Time {
	now := l.Now()
	if w.known && l.State.ChangedAt(state.Hosts, state.Tenants, state.Groups) <= w.index {
		return time.Time{}
	}
	if next := w.at.Add(hostsPause); w.known && now.Before(next) && now.After(w.at) {
		return next
	}
	v := l.State.Read()
	*w = wanted{sets: map[string]fleet.DNSSet{}, index: v.Index(), at: now, known: true}
	for _, g := range v.Groups() {
		key := fleet.DNSSetKey(g.Name, nil)
		w.sets[key] = fleet.DNSSet{Key: key, Group: g.Name}
	}
	groups := map[fleet.TenantID]fleet.GroupName{}
	for _, t := range v.Tenants() {
		groups[t.ID] = t.Spec.Group
	}
	for _, h := range v.HostsInRegions() {
		g := groups[h.Tenant]
		key := fleet.DNSSetKey(g, h.Spec.Regions)
		if _, ok := w.sets[key]; !ok && len(w.sets) < fleet.MaxDNSSets {
			w.sets[key] = fleet.DNSSet{Key: key, Group: g, Regions: slices.Compact(slices.Sorted(slices.Values(h.Spec.Regions)))}
		}
	}
	return time.Time{}
}

// pass advances every set once, and returns when the next one is due.
func (l *Loop) pass(ctx context.Context, w wanted) (time.Time, error) {
	v, now := l.State.Read(), l.Now()
	out := v.Withdrawn()
	var wake time.Time
	var changed []fleet.DNSSet
	for _, key := range slices.Sorted(maps.Keys(w.sets)) {
		set, known := v.DNSSet(key)
		if !known {
			set = w.sets[key]
		}
		next, due := dns.Advance(set, known, v.NodesIn(set.Group, set.Regions), out, l.Bake, now)
		if !due.IsZero() && (wake.IsZero() || due.Before(wake)) {
			wake = due
		}
		if !known && len(next.Nodes) == 0 && next.Held == nil || cmp.Equal(set, next) {
			continue
		}
		l.tell(ctx, set, next)
		changed = append(changed, next)
	}
	var gone []string
	for _, s := range v.DNSSets() {
		if _, ok := w.sets[s.Key]; !ok {
			gone = append(gone, s.Key)
		}
	}
	for part := range slices.Chunk(changed, batch) {
		if err := l.propose(ctx, command.DNSSetsPut{Sets: part}, now); err != nil {
			return wake, err
		}
	}
	if len(gone) == 0 {
		return wake, nil
	}
	return wake, l.propose(ctx, command.DNSSetsPut{Gone: gone}, now)
}

func (l *Loop) propose(ctx context.Context, b command.Body, now time.Time) error {
	if _, err := l.Proposer.Propose(ctx, leader.Header("zone", now), b); err != nil {
		return fmt.Errorf("advance the nodes in DNS: %w", err)
	}
	return nil
}

// tell logs who leaves and returns, and when the panic threshold is reached.
func (l *Loop) tell(ctx context.Context, before, after fleet.DNSSet) {
	for _, id := range after.Nodes {
		if !slices.Contains(before.Nodes, id) {
			l.Logger.InfoContext(ctx, "node is in dns", "node", id, "set", after.Key)
		}
	}
	for _, o := range after.Out {
		if slices.Contains(before.Nodes, o.Node) {
			l.Logger.WarnContext(ctx, "node leaves dns", "node", o.Node, "set", after.Key, "reason", o.Why)
		}
	}
	switch {
	case before.Held == nil && after.Held != nil:
		l.Logger.ErrorContext(ctx, "too many nodes are unhealthy at once, none leaves dns", "set", after.Key, "healthy", after.Held.Healthy, "should", after.Held.Should)
	case before.Held != nil && after.Held == nil:
		l.Logger.InfoContext(ctx, "enough nodes are healthy again, dns follows them", "set", after.Key)
	}
}
