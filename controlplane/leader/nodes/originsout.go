package nodes

import (
	"cmp"
	"slices"
	"sync"
	"time"

	"github.com/edgefleet/edgefleet/fleet"
)

// said is what a node said last of origins.
type said struct {
	at  time.Time
	out []fleet.OriginOut
}

// originsOut keeps what nodes say of origins, in memory: each report says all of it again.
type originsOut struct {
	mu    sync.Mutex
	nodes map[fleet.NodeID]said
}

func (o *originsOut) see(r fleet.Report, now time.Time) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.nodes == nil {
		o.nodes = map[fleet.NodeID]said{}
	}
	o.nodes[r.Node] = said{now, r.OriginsOut}
}

// OriginsOut is what the nodes say of a host's origins, and how many said something within the reaping age; it is known to
// every member that hears their reports.
func (l *Loop) OriginsOut(h fleet.HostName) (out map[fleet.NodeID][]fleet.OriginOut, heard []fleet.NodeID) {
	now := l.o.Now()
	l.outs.mu.Lock()
	defer l.outs.mu.Unlock()
	out = map[fleet.NodeID][]fleet.OriginOut{}
	for id, s := range l.outs.nodes {
		if now.Sub(s.at) > l.o.ReapAfter {
			delete(l.outs.nodes, id)
			continue
		}
		heard = append(heard, id)
		for _, o := range s.out {
			if o.Host == h {
				out[id] = append(out[id], o)
			}
		}
	}
	slices.SortFunc(heard, func(a, b fleet.NodeID) int { return cmp.Compare(a, b) })
	return out, heard
}
