package proxy

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/edgefleet/edgefleet/fleet"
)

// outage is why an origin is out, and since when.
type outage struct {
	reason string
	since  time.Time
}

// outOf notes that o is out; the first reason of an outage stays until o answers.
func (o *origin) outOf(reason string, now time.Time) {
	o.outage.CompareAndSwap(nil, &outage{fleet.CutReason(reason), now})
}

// healthReason is why a health check failed, as a report says it.
func (o *origin) healthReason(err error) string {
	if text := err.Error(); strings.HasPrefix(text, "status ") {
		return "health check: " + text
	}
	return "health check: " + o.reason(err)
}

// OriginsOut lists the origins that are out, those of the first hosts by name where there are too many for a report. An
// origin that had its time out, and has not answered since, is among them.
func (p *Proxy) OriginsOut() []fleet.OriginOut {
	var out []fleet.OriginOut
	p.origins.mu.RLock()
	for name, pool := range p.origins.pools {
		for _, m := range pool.members {
			if why := m.outage.Load(); why != nil {
				out = append(out, fleet.OriginOut{Host: name, Server: m.endpoint.Address(), Reason: why.reason, Since: why.since.UTC()})
			}
		}
	}
	p.origins.mu.RUnlock()
	slices.SortFunc(out, func(a, b fleet.OriginOut) int {
		return cmp.Or(cmp.Compare(a.Host, b.Host), cmp.Compare(a.Server, b.Server))
	})
	return out[:min(len(out), fleet.MaxOriginsOut)]
}
