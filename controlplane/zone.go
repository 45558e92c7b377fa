package controlplane

import (
	"context"
	"iter"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/edgefleet/edgefleet/controlplane/dns"
	"github.com/edgefleet/edgefleet/controlplane/state"
	"github.com/edgefleet/edgefleet/fleet"
)

// zone is the edge zone as the local state has it: it answers also without quorum.
type zone struct {
	state *state.Store
	// extra are name servers beside the members; caa are the values of the zone's CAA records.
	extra []fleet.HostName
	caa   []string
	// heard is how long ago this member heard from a leader, or since its start.
	heard func() time.Duration
	// now is what was put together of the state last.
	now atomic.Pointer[assembled]
}

func newZone(s *state.Store, c DNS, heard func() time.Duration) *zone {
	z := &zone{state: s, caa: c.CAA, heard: heard}
	for _, sec := range c.Secondaries {
		if sec.Name != "" {
			z.extra = append(z.extra, sec.Name)
		}
	}
	return z
}

// assembled is the parts of the zone that many answers share. sets grows as they are asked for.
type assembled struct {
	index uint64
	apex  dns.Apex
	view  *state.View
	out   dns.Withdrawn
	sets  sync.Map // of keys to answering
}

// answering are the nodes that answer for a group and regions, and what DNS answers with.
type answering struct {
	nodes []fleet.Node
	edges []dns.Edge
}

// zoneTables are what assembled depends on.
var zoneTables = []state.Table{state.Clusters, state.Members, state.Nodes, state.Regions, state.DNSSets}

// assemble returns the shared parts as they are now.
func (z *zone) assemble() *assembled {
	last := z.now.Load()
	if last != nil && z.state.ChangedAt(zoneTables...) <= last.index {
		return last
	}
	v := z.state.Read()
	c, _ := v.Cluster()
	a := &assembled{index: v.Index(), view: v, out: v.Withdrawn(), apex: dns.Apex{Zone: c.Zone, CAA: z.caa}}
	for _, m := range v.Members() {
		host, _, err := net.SplitHostPort(m.DNS)
		if err != nil {
			continue
		}
		if addr, err := netip.ParseAddr(host); err == nil {
			a.apex.Servers = append(a.apex.Servers, dns.NameServer{Name: dns.MemberName(m.ID, c.Zone), Addr: addr})
		}
	}
	for _, name := range z.extra {
		a.apex.Servers = append(a.apex.Servers, dns.NameServer{Name: name})
	}
	z.now.Store(a)
	return a
}

// answering are those that answer for a group and regions.
func (a *assembled) answering(g fleet.GroupName, regions []fleet.RegionName) answering {
	key := fleet.DNSSetKey(g, regions)
	if found, ok := a.sets.Load(key); ok {
		w, _ := found.(answering)
		return w
	}
	set, known := a.view.DNSSet(key)
	w := answering{nodes: dns.Serving(set, known, a.view.NodesIn(g, regions), a.out)}
	w.edges = edgesOf(w.nodes)
	a.sets.Store(key, w)
	return w
}

func edgesOf(nodes []fleet.Node) []dns.Edge {
	var edges []dns.Edge
	for _, n := range nodes {
		edges = append(edges, dns.Edge{Addrs: n.Spec.Addresses, Weight: n.Spec.Share()})
	}
	return edges
}

// incarnationStep is by how much an incarnation moves the serial on: more than a cluster writes between its last backup
// and its loss.
const incarnationStep = 1 << 24

// Apex implements dns.Source.
func (z *zone) Apex() dns.Apex {
	apex := z.assemble().apex
	v := z.state.Read()
	c, _ := v.Cluster()
	apex.Serial = uint32(v.Index() + (max(c.Incarnation, 1)-1)*incarnationStep) //nolint:gosec // serials wrap around (RFC 1982)
	return apex
}

// Zone is the name of the zone.
func (z *zone) Zone() fleet.HostName { return z.assemble().apex.Zone }

// Servers are the zone's name servers.
func (z *zone) Servers() []dns.NameServer { return z.assemble().apex.Servers }

// Label implements dns.Source.
func (z *zone) Label(label string) ([]dns.Edge, bool) {
	v := z.state.Read()
	h, ok := hostOf(v, label)
	if !ok {
		return nil, false
	}
	t, _ := v.Tenant(h.Tenant)
	w := z.assemble().answering(t.Spec.Group, h.Spec.Regions)
	for _, c := range v.ChallengesOfHost(h.Name) {
		if late := c.OutAt(utcNow()); len(late) > 0 {
			return edgesOf(dns.Without(w.nodes, late)), true
		}
	}
	return w.edges, true
}

// dcvStale is after how long without a leader this member's answers to challenges may be out of date.
const dcvStale = 5 * time.Second

// DCV implements dns.Source.
func (z *zone) DCV(label string) (values []string, ok, current bool) {
	v := z.state.Read()
	current = z.heard() < dcvStale
	for _, h := range certifiedBy(v, label) {
		ok = true
		for _, c := range v.ChallengesOf(h.Name, fleet.ChallengeDNS01) {
			values = append(values, c.Response)
		}
	}
	return values, ok, current
}

// certifiedBy are the live hosts of which the certificate record leads to a label: the one that it was issued to, which
// may be gone, and the wildcard over it, or what it is the wildcard over.
func certifiedBy(v *state.View, label string) []fleet.Host {
	l, ok := v.Label(label)
	if !ok {
		return nil
	}
	var out []fleet.Host
	for _, name := range []fleet.HostName{l.Host, l.Host.Sibling()} {
		if h, ok := v.Host(name); ok && !h.Deleting() && h.Desired.DCV() == label {
			out = append(out, h)
		}
	}
	return out
}

// answers reports whether a label leads to a live host.
func (z *zone) answers(label string) bool {
	_, ok := hostOf(z.state.Read(), label)
	return ok
}

// Labels implements dns.Source.
func (z *zone) Labels() iter.Seq[string] {
	return func(yield func(string) bool) {
		for _, h := range z.state.Read().Hosts() {
			if h.Desired.Label == "" || h.Deleting() {
				continue
			}
			if !yield(h.Desired.Label) {
				return
			}
			if other := h.Desired.DCV(); other != h.Desired.Label && !z.answers(other) && !yield(other) {
				return
			}
		}
	}
}

// Issued implements dns.PushSource: labels stay known when their host is gone.
func (z *zone) Issued(label string) bool {
	_, ok := z.state.Read().Label(label)
	return ok
}

// hostOf finds the live host of a label; the label of a deleted host stays taken and answers nothing.
func hostOf(v *state.View, label string) (fleet.Host, bool) {
	l, ok := v.Label(label)
	if !ok {
		return fleet.Host{}, false
	}
	h, ok := v.Host(l.Host)
	return h, ok && h.Desired.Label == label && !h.Deleting()
}

// edgeAddresses are the addresses of all nodes.
func (z *zone) edgeAddresses() []netip.Addr {
	var out []netip.Addr
	for _, n := range z.state.Read().Nodes() {
		if n.Identity.RevokedAt.IsZero() {
			out = append(out, n.Spec.Addresses...)
		}
	}
	return out
}

// pointsHere says whether visitors of a host still come to the edge.
func (m *member) pointsHere(ctx context.Context, h fleet.Host) (bool, error) {
	z := m.zone
	f, err := m.check.CheckHost(ctx, h, z.Zone(), z.edgeAddresses())
	if err == nil && f.Traffic.Reason == fleet.ReasonDNSServfail {
		err = fleet.NewError(fleet.ErrUnavailable, "host", "%s", f.Traffic.Message)
	}
	return f.Traffic.OK, err
}
