package dns

import (
	"maps"
	"slices"
	"time"

	"github.com/edgefleet/edgefleet/fleet"
)

// Withdrawn are the regions that are out of DNS.
type Withdrawn = map[fleet.RegionName]*fleet.RegionWithdrawal

// Advance returns what a set should be now, and when it is to be looked at again (zero: when something changes). nodes are
// those of its group and regions; known is false for a set that is new. The time is the leader's.
//
// A node that was never in the set joins it as soon as it is healthy. One that left, for whatever reason, bakes: it must
// stay healthy for that long first, unless the set has nobody else. When more than half of the nodes that should serve are
// not healthy, nobody leaves for its health: that many failures are more likely ours (a cut between control plane and
// edge) than theirs, and edges serve without us.
func Advance(set fleet.DNSSet, known bool, nodes []fleet.Node, withdrawn Withdrawn, bake time.Duration, now time.Time) (fleet.DNSSet, time.Time) {
	p := newPlan(set, nodes, withdrawn)
	next := fleet.DNSSet{Key: set.Key, Group: set.Group, Regions: set.Regions, Meta: set.Meta}
	if 2*p.healthy < p.should {
		next.Held = &fleet.DNSHold{Since: now, Healthy: p.healthy, Should: p.should}
		if set.Held != nil {
			next.Held.Since = set.Held.Since
		}
	}
	if !known && next.Held != nil {
		// There is no last good set: who should serve does.
		for _, n := range p.wanted {
			next.Nodes = append(next.Nodes, n.ID)
		}
		slices.Sort(next.Nodes)
		return next, time.Time{}
	}
	var wake time.Time
	for _, n := range p.wanted {
		out, left := p.out[n.ID]
		switch {
		case n.Healthy() && !left, p.in[n.ID] && next.Held != nil:
			next.Nodes = append(next.Nodes, n.ID)
		case p.in[n.ID]:
			next.Out = append(next.Out, fleet.DNSOut{Node: n.ID, At: now, Why: ailment(n)})
		case left && n.Healthy() && !out.Returns.IsZero() && !now.Before(out.Returns):
			next.Nodes = append(next.Nodes, n.ID)
		case left:
			if !n.Healthy() {
				out.Returns, out.Why = time.Time{}, ailment(n)
			} else if out.Returns.IsZero() {
				out.Returns = now.Add(bake)
			}
			next.Out = append(next.Out, out)
		}
	}
	for _, id := range slices.Sorted(maps.Keys(p.off)) {
		if out, left := p.out[id]; left || p.in[id] {
			if !left {
				out = fleet.DNSOut{Node: id, At: now}
			}
			out.Why, out.Returns = p.off[id], time.Time{}
			next.Out = append(next.Out, out)
		}
	}
	if len(next.Nodes) == 0 { // better one that has not baked than none
		for i, o := range next.Out {
			if !o.Returns.IsZero() {
				next.Nodes, next.Out[i].Node = append(next.Nodes, o.Node), ""
			}
		}
		if next.Out = slices.DeleteFunc(next.Out, func(o fleet.DNSOut) bool { return o.Node == "" }); len(next.Out) == 0 {
			next.Out = nil
		}
	}
	slices.Sort(next.Nodes)
	slices.SortFunc(next.Out, func(a, b fleet.DNSOut) int { return compare(a.Node, b.Node) })
	for _, o := range next.Out {
		if !o.Returns.IsZero() && (wake.IsZero() || o.Returns.Before(wake)) {
			wake = o.Returns
		}
	}
	return next, wake
}

func compare(a, b fleet.NodeID) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

func ailment(n fleet.Node) string {
	if n.Observed.State != fleet.NodeUp {
		return fleet.DNSOutDown
	}
	return fleet.DNSOutNotServing
}

// plan is the nodes of a set by what is wanted of them.
type plan struct {
	// wanted should be in DNS, of which there are should, and of these some healthy.
	wanted          []fleet.Node
	should, healthy int
	// off are those that should not, and why.
	off map[fleet.NodeID]string
	in  map[fleet.NodeID]bool
	out map[fleet.NodeID]fleet.DNSOut
}

func newPlan(set fleet.DNSSet, nodes []fleet.Node, withdrawn Withdrawn) plan {
	p := plan{off: map[fleet.NodeID]string{}, in: map[fleet.NodeID]bool{}, out: map[fleet.NodeID]fleet.DNSOut{}}
	for _, id := range set.Nodes {
		p.in[id] = true
	}
	for _, o := range set.Out {
		p.out[o.Node] = o
	}
	for _, n := range nodes {
		why, known := n.WantedInDNS(withdrawn)
		switch {
		case !known:
		case why != "":
			p.off[n.ID] = why
		default:
			p.wanted = append(p.wanted, n)
			p.should++
			if n.Healthy() {
				p.healthy++
			}
		}
	}
	return p
}

// Without returns the nodes of serving that are not late, if that leaves at least half of them: when more are late, that is
// more likely ours than theirs, and nobody leaves DNS for it.
func Without(serving []fleet.Node, late []fleet.NodeID) []fleet.Node {
	left := slices.DeleteFunc(slices.Clone(serving), func(n fleet.Node) bool { return slices.Contains(late, n.ID) })
	if len(left) == 0 || 2*len(left) < len(serving) {
		return serving
	}
	return left
}

// Serving returns the nodes that DNS answers with now: of the last good set those that are wanted and healthy. What
// people and locks took out is out at once, before the leader has advanced the set; what only looks unhealthy stays while
// the set is held or more than half of it would go.
//
// Where nobody is wanted, a cordon or a lock is not honoured: a name that leads nowhere helps nobody. A withdrawal of a
// region is not either, unless it was forced.
func Serving(set fleet.DNSSet, known bool, nodes []fleet.Node, withdrawn Withdrawn) []fleet.Node {
	var in, up, rest, off, offUp []fleet.Node
	for _, n := range nodes {
		why, there := n.WantedInDNS(withdrawn)
		w := withdrawn[n.Spec.Region]
		switch {
		case !there:
		case why != "":
			if w == nil || !w.Forced {
				off = append(off, n)
				if n.Healthy() {
					offUp = append(offUp, n)
				}
			}
		case known && !slices.Contains(set.Nodes, n.ID):
			rest = append(rest, n)
		default:
			in = append(in, n)
			if n.Healthy() {
				up = append(up, n)
			}
		}
	}
	switch {
	case len(in) > 0 && (set.Held != nil || 2*len(up) < len(in)):
		return in
	case len(in) > 0:
		return up
	}
	if healthy := slices.DeleteFunc(slices.Clone(rest), func(n fleet.Node) bool { return !n.Healthy() }); len(healthy) > 0 {
		return healthy // they bake, or joined since the leader looked
	}
	switch {
	case len(offUp) > 0:
		return offUp
	case len(rest) > 0:
		return rest
	}
	return off
}
