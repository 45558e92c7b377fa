package hosts

import (
	"net/netip"
	"time"

	"github.com/edgefleet/edgefleet/fleet"
)

// Facts are what Decide knows of a host.
type Facts struct {
	Host  fleet.Host
	Order *fleet.Order
	Cert  *fleet.Certificate
	// Deployed: every edge acknowledged the certificate; Laggards did not.
	Deployed bool
	Laggards []string
	Now      time.Time
}

// Decide is the plan for one host: what stands in the state then, and the names of what is done, at once.
func Decide(f Facts) (fleet.HostObserved, []string, time.Time) {
	d := &deployment{published: f.Deployed || len(f.Laggards) > 0, laggards: f.Laggards}
	if d.published {
		d.edges = []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1})}
	}
	o, t := decide(facts{host: f.Host, order: f.Order, cert: f.Cert, edges: d, now: f.Now}, schedule{1})
	var do []string
	for _, x := range []struct {
		name string
		due  bool
	}{{"dns", t.dns}, {"order", t.order}, {"issue", t.issue}, {"handshake", t.handshake}} {
		if x.due {
			do = append(do, x.name)
		}
	}
	return o, do, t.wake
}

// Look folds a finding into what is observed.
func Look(o fleet.HostObserved, f fleet.DNSFinding, now time.Time) fleet.HostObserved {
	return look(o, f, now, schedule{1})
}
