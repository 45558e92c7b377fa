package nodes

import (
	"time"

	"github.com/edgefleet/edgefleet/controlplane/state"
	"github.com/edgefleet/edgefleet/fleet"
)

const (
	// firstHitPause is the least time between two looks at a host's DNS because clients came for it.
	firstHitPause = 30 * time.Second
	// maxFirstHits bounds the hosts that are remembered for it.
	maxFirstHits = 10_000
)

// firstHits has the DNS of hosts looked at when clients came to an edge for one that has no certificate: its record was
// set a moment ago. It is used by one goroutine.
type firstHits struct {
	recheck func(fleet.HostName)
	seen    map[fleet.HostName]time.Time
}

// came takes what a node reported. A node can make nobody look at what it does not serve, at hosts that have their
// certificate, or at one host again and again.
func (f *firstHits) came(v *state.View, r fleet.Report, now time.Time) {
	n, ok := v.Node(r.Node)
	if f.recheck == nil || !ok || !n.Identity.RevokedAt.IsZero() {
		return
	}
	for _, name := range r.Uncertified {
		h, ok := v.Host(name)
		if !ok || h.Deleting() {
			continue
		}
		t, _ := v.Tenant(h.Tenant)
		if _, certified := v.Certificate(name); certified || t.Spec.Group != n.Spec.Group || !f.due(name, now) {
			continue
		}
		f.recheck(name)
	}
}

func (f *firstHits) due(h fleet.HostName, now time.Time) bool {
	if last, ok := f.seen[h]; ok && now.Sub(last) < firstHitPause {
		return false
	}
	if len(f.seen) >= maxFirstHits {
		for name, last := range f.seen {
			if now.Sub(last) >= firstHitPause {
				delete(f.seen, name)
			}
		}
	}
	if len(f.seen) >= maxFirstHits {
		return false
	}
	f.seen[h] = now
	return true
}
