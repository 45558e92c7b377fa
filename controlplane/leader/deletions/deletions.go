// Package deletions is the leader's loop that ends hosts that were deleted: a host keeps its name until every edge of its
// group that is up has acknowledged bundles without it, so that no edge serves one name for two tenants.
//
// It does not decide what may be deleted (controlplane/api asks DNS), and it wipes nothing: the command that retires a
// host takes its certificate, keys, orders and challenges out of the state at once. While the loop does not run, for want
// of a quorum or of the key that bundles are made with, hosts stay in the phase deleting. What it decides by is in the
// state, so that a new leader goes on where the last one was. An edge that is up and takes nothing new holds a name for
// Patience at most.
package deletions

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/edgefleet/edgefleet/controlplane/command"
	"github.com/edgefleet/edgefleet/controlplane/leader"
	"github.com/edgefleet/edgefleet/controlplane/state"
	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/fleet/bundle"
)

const (
	// pause bounds how often the state is looked at: nodes' reports change all the time.
	pause = 500 * time.Millisecond
	// again is when it is looked at without news: a member derives a bundle a moment after the head that names it.
	again = time.Second
	// idle is the same while nothing is being deleted.
	idle = time.Minute
)

// Patience is how long an edge that is up may keep a name from being free.
const Patience = 10 * time.Minute

// kinds are the heads whose bundles name hosts.
var kinds = []fleet.HeadKind{fleet.HeadConfig, fleet.HeadCerts}

// Loop is the loop.
type Loop struct {
	State    *state.Store
	Proposer leader.Proposer
	// Fetch returns a blob of the bundles that heads name.
	Fetch  bundle.Fetch
	Logger *slog.Logger
	Now    func() time.Time
}

// Run blocks until ctx ends or a proposal fails.
func (l *Loop) Run(ctx context.Context) error {
	watch := func() func(context.Context) error {
		return l.State.Watch(state.Hosts, state.Heads, state.Nodes).WatchCtx
	}
	return leader.Follow(ctx, pause, watch, l.step)
}

// step ends the hosts that no edge has any more and returns how long there will be nothing to do, unless something changes.
func (l *Loop) step(ctx context.Context) (time.Duration, error) {
	v := l.State.Read()
	retired := v.HostsDeleting()
	if len(retired) == 0 {
		return idle, nil
	}
	wait := idle
	p := &pass{view: v, fetch: l.Fetch, seen: map[bundleOf]naming{}}
	for _, h := range retired {
		holders, err := p.holders(h)
		late := l.Now().Sub(h.Desired.DeletingSince) >= Patience
		if (err != nil || len(holders) > 0) && !late {
			wait = again
			continue
		}
		if len(holders) > 0 || err != nil {
			l.Logger.WarnContext(ctx, "a deleted host is forgotten although edges may still have it", "host", string(h.Name), "tenant", string(h.Tenant), "nodes", holders, "err", err)
		}
		if err := l.end(ctx, h); err != nil {
			return 0, err
		}
	}
	return wait, nil
}

func (l *Loop) end(ctx context.Context, h fleet.Host) error {
	_, err := l.Proposer.Propose(ctx, leader.Header("deletions", l.Now()), command.HostDelete{Name: h.Name, Tenant: h.Tenant, IfRevision: h.Revision})
	switch {
	case err == nil, errors.Is(err, fleet.ErrNotFound), errors.Is(err, fleet.ErrConflict):
		return nil // it changed meanwhile: the next step sees it
	}
	return fmt.Errorf("end host %s: %w", h.Name, err)
}

// pass is one look at the state; it reads each bundle once.
type pass struct {
	view  *state.View
	fetch bundle.Fetch
	seen  map[bundleOf]naming
}

type bundleOf struct {
	tenant fleet.TenantID
	kind   fleet.HeadKind
}

// naming is which hosts a bundle names, and which head it is of. unknown is before a new incarnation's first heads: then
// edges may have whatever they had of the one before.
type naming struct {
	unknown bool
	hosts   map[fleet.HostName]bool
	version fleet.Version
	err     error
}

// holders are the nodes that may still have h: all that are up while a bundle names it or there is none yet, else those that have not
// acknowledged the bundles that do not.
func (p *pass) holders(h fleet.Host) ([]string, error) {
	t, ok := p.view.Tenant(h.Tenant)
	if !ok {
		return nil, nil
	}
	nodes := p.view.NodesOf(t.Spec.Group)
	holds := map[fleet.NodeID]bool{}
	for _, kind := range kinds {
		n := p.naming(t, kind)
		if n.err != nil {
			return nil, n.err
		}
		for _, node := range nodes {
			r, _ := node.Observed.Head(kind)
			holds[node.ID] = holds[node.ID] || n.unknown || n.hosts[h.Name] || !r.Applied(n.version)
		}
	}
	var out []string
	for _, node := range nodes {
		if holds[node.ID] && node.Observed.State == fleet.NodeUp {
			out = append(out, string(node.ID))
		}
	}
	return out, nil
}

func (p *pass) naming(t fleet.Tenant, kind fleet.HeadKind) naming {
	key := bundleOf{t.ID, kind}
	if n, ok := p.seen[key]; ok {
		return n
	}
	n := naming{unknown: true}
	if head, ok := p.view.Head(t.Spec.Group, kind); ok {
		n.unknown = false
		n.version = head.Version
		n.hosts, n.err = named(head.Root, t.ID, p.fetch)
	}
	p.seen[key] = n
	return n
}

// named reads which hosts the bundle of a tenant names.
func named(root fleet.Digest, of fleet.TenantID, fetch bundle.Fetch) (map[fleet.HostName]bool, error) {
	bundles, err := bundle.Index(root, fetch)
	if err != nil {
		return nil, fmt.Errorf("index of bundles: %w", err)
	}
	digest, ok := bundles[of]
	if !ok {
		return nil, nil
	}
	raw, err := bundle.Blob(digest, fetch)
	if err != nil {
		return nil, fmt.Errorf("bundle of %s: %w", of, err)
	}
	var b struct {
		Hosts []struct {
			Name fleet.HostName `json:"name"`
		} `json:"hosts"`
		Certificates []struct {
			Host fleet.HostName `json:"host"`
		} `json:"certificates"`
	}
	if err := json.Unmarshal(raw, &b); err != nil {
		return nil, fmt.Errorf("bundle of %s: %w", of, err)
	}
	hosts := map[fleet.HostName]bool{}
	for _, h := range b.Hosts {
		hosts[h.Name] = true
	}
	for _, c := range b.Certificates {
		hosts[c.Host] = true
	}
	return hosts, nil
}
