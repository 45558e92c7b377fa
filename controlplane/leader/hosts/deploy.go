package hosts

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"time"

	"github.com/edgefleet/edgefleet/controlplane/dns"
	"github.com/edgefleet/edgefleet/controlplane/state"
	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/fleet/bundle"
	"github.com/edgefleet/edgefleet/fleet/hoststate"
)

// deployment is how far one thing (a certificate or a challenge) has come to the edges of a host.
type deployment struct {
	hoststate.Deployment
	// edges are the addresses of the nodes, late the nodes that have not acknowledged it.
	edges []netip.Addr
	late  []fleet.NodeID
	nodes []fleet.Node
}

// content is what one tenant's certificate bundle has.
type content struct {
	generations map[fleet.HostName]uint64
	tokens      map[string]bool
}

// inspector looks into the bundles that heads name. It remembers one bundle of each tenant, the last; it is used by
// one goroutine.
type inspector struct {
	fetch bundle.Fetch
	index map[fleet.GroupName]indexed
	seen  map[fleet.TenantID]parsed
}

type indexed struct {
	root    fleet.Digest
	bundles map[fleet.TenantID]fleet.Digest
}

type parsed struct {
	digest  fleet.Digest
	content content
}

func newInspector(fetch bundle.Fetch) *inspector {
	return &inspector{fetch: fetch, index: map[fleet.GroupName]indexed{}, seen: map[fleet.TenantID]parsed{}}
}

// deployed reports how far what has looks for has come in the tenant of h. A bundle that is not here any more
// (the head just moved on) reads as not published: the next change of the state asks again.
func (i *inspector) deployed(v *state.View, h fleet.Host, now time.Time, has func(content) bool) *deployment {
	t, ok := v.Tenant(h.Tenant)
	if !ok {
		return &deployment{}
	}
	head, ok := v.Head(t.Spec.Group, fleet.HeadCerts)
	if !ok {
		return &deployment{}
	}
	c, err := i.content(t, head.Root)
	if err != nil || !has(c) {
		return &deployment{}
	}
	d := &deployment{Deployment: hoststate.Deployment{Published: true}}
	for _, n := range serving(v, t, h, now) {
		if r, _ := n.Observed.Head(fleet.HeadCerts); !r.Applied(head.Version) {
			d.Laggards, d.late = append(d.Laggards, string(n.ID)), append(d.late, n.ID)
		}
		d.Edges++
		d.nodes = append(d.nodes, n)
		d.edges = append(d.edges, n.Spec.Addresses...)
	}
	return d
}

// serving are the nodes that DNS answers with for h.
func serving(v *state.View, t fleet.Tenant, h fleet.Host, now time.Time) []fleet.Node {
	set, known := v.DNSSet(fleet.DNSSetKey(t.Spec.Group, h.Spec.Regions))
	nodes := dns.Serving(set, known, v.NodesIn(t.Spec.Group, h.Spec.Regions), v.Withdrawn())
	for _, c := range v.ChallengesOfHost(h.Name) {
		if late := c.OutAt(now); len(late) > 0 {
			return dns.Without(nodes, late)
		}
	}
	return nodes
}

// content reads the certificate bundle of t below root.
func (i *inspector) content(t fleet.Tenant, root fleet.Digest) (content, error) {
	x := i.index[t.Spec.Group]
	if x.root != root {
		bundles, err := bundle.Index(root, i.fetch)
		if err != nil {
			return content{}, fmt.Errorf("index of bundles: %w", err)
		}
		x = indexed{root: root, bundles: bundles}
		i.index[t.Spec.Group] = x
	}
	digest, ok := x.bundles[t.ID]
	if !ok {
		return content{}, nil
	}
	if p := i.seen[t.ID]; p.digest == digest {
		return p.content, nil
	}
	raw, err := bundle.Blob(digest, i.fetch)
	if err != nil {
		return content{}, fmt.Errorf("bundle of %s: %w", t.ID, err)
	}
	var b fleet.CertsBundle
	if err := json.Unmarshal(raw, &b); err != nil {
		return content{}, fmt.Errorf("bundle of %s: %w", t.ID, err)
	}
	c := content{generations: map[fleet.HostName]uint64{}, tokens: map[string]bool{}}
	for _, cert := range b.Certificates {
		c.generations[cert.Host] = cert.Generation
	}
	for _, ch := range b.Challenges {
		c.tokens[ch.Token] = true
	}
	i.seen[t.ID] = parsed{digest: digest, content: c}
	return c, nil
}
