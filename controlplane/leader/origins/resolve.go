package origins

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/edgefleet/edgefleet/controlplane/state"
	"github.com/edgefleet/edgefleet/fleet"
)

// maxText bounds what is kept of an instance that was refused, and why, in bytes: a registry may say anything.
const maxText = 256

// resolver turns answers into what hosts get, by one view of the state.
type resolver struct {
	heard   map[string]answer
	allowed map[fleet.TenantID][]netip.Prefix
	zone    fleet.HostName
	own     []netip.Addr
	now     time.Time
}

func (l *Loop) resolver(v *state.View) resolver {
	l.mu.Lock()
	defer l.mu.Unlock()
	c, _ := v.Cluster()
	r := resolver{heard: maps.Clone(l.heard), allowed: map[fleet.TenantID][]netip.Prefix{}, zone: c.Zone, now: l.o.Now()}
	for _, t := range v.Tenants() {
		r.allowed[t.ID] = t.Spec.AllowedOrigins
	}
	for _, n := range v.Nodes() {
		if n.Identity.RevokedAt.IsZero() {
			r.own = append(r.own, n.Spec.Addresses...)
		}
	}
	return r
}

// host is what a host's services stand for now; no services when it has none.
func (r resolver) host(h fleet.Host, before fleet.HostOrigins) fleet.HostOrigins {
	next := fleet.HostOrigins{Host: h.Name, Tenant: h.Tenant}
	for _, o := range h.Spec.Origins {
		c, err := o.ParseConsul()
		if err != nil || slices.ContainsFunc(next.Services, func(s fleet.ResolvedOrigin) bool { return s.URL == o.URL }) {
			continue
		}
		i := slices.IndexFunc(before.Services, func(s fleet.ResolvedOrigin) bool { return s.URL == o.URL })
		var was fleet.ResolvedOrigin
		if i >= 0 {
			was = before.Services[i]
		}
		next.Services = append(next.Services, r.service(h, o, c, was))
	}
	return next
}

// service is what one service stands for, given what it stood for until now.
func (r resolver) service(h fleet.Host, o fleet.Origin, c fleet.ConsulOrigin, was fleet.ResolvedOrigin) fleet.ResolvedOrigin {
	next := fleet.ResolvedOrigin{URL: o.URL}
	may := func(o fleet.Origin) error { return h.CheckInstance(o, r.zone, r.allowed[h.Tenant], r.own) }
	a := r.heard[c.Query()]
	for _, i := range a.instances {
		server := i.Origin(c.Scheme)
		if err := may(server); err == nil {
			next.Instances = append(next.Instances, server)
		} else if len(next.Refused) < fleet.MaxInstances {
			next.Refused = append(next.Refused, fleet.RefusedInstance{Instance: clip(server.URL), Reason: clip(err.Error())})
		}
	}
	left := max(0, len(next.Instances)-fleet.MaxInstances)
	next.Instances = next.Instances[:len(next.Instances)-left]
	kept := len(next.Instances) == 0
	if kept { // the last good ones, as far as they may still be
		for _, server := range was.Instances {
			if may(server) == nil {
				next.Instances = append(next.Instances, server)
			}
		}
	}
	if !a.known {
		next.Refused = was.Refused
	}
	next.Condition = r.condition(c, a, next, was, kept, left)
	return next
}

// condition says how a service stands.
func (r resolver) condition(c fleet.ConsulOrigin, a answer, next, was fleet.ResolvedOrigin, kept bool, left int) fleet.Condition {
	out := fleet.Condition{State: fleet.ConditionTrue, Since: r.now}
	switch {
	case !a.known && was.URL != "" && (a.err == nil || len(next.Instances) > 0):
		return was.Condition // nothing was learned that changes it
	case kept && len(next.Instances) == 0:
		out.State, out.Reason = fleet.ConditionWaiting, fleet.ReasonOriginUnresolved
		out.Message = fmt.Sprintf("Consul knows no healthy instance of %s", c.Query())
		out.Action = "register the service, or see why its checks fail; until then the edge answers for this host as for one that it does not know"
		switch {
		case len(next.Refused) > 0:
			out.State, out.Reason, out.Message = fleet.ConditionFalse, fleet.ReasonOriginRefused, refusal(next.Refused)
			out.Action = "correct the registration, or ask an operator to allow the range for this tenant"
		case a.err != nil:
			out.Message, out.Action = "Consul does not answer, so that the instances of "+c.Query()+" are not known yet", "nothing; the vendor sees it in 'fleetctl cluster check'"
		case !a.known:
			out.Message = "Consul is being asked for " + c.Query()
		}
	case kept:
		out.State, out.Reason = fleet.ConditionFalse, fleet.ReasonOriginNoInstance
		out.Message = fmt.Sprintf("Consul knows no healthy instance of %s any more; the last %d stay", c.Query(), len(next.Instances))
		out.Action = "see why the service's checks fail"
		if len(next.Refused) > 0 {
			out.Reason, out.Message = fleet.ReasonOriginRefused, refusal(next.Refused)+"; the last good instances stay"
		}
	case len(next.Refused) > 0:
		out.State, out.Reason, out.Message = fleet.ConditionFalse, fleet.ReasonOriginRefused, refusal(next.Refused)
		out.Action = "correct the registration, or ask an operator to allow the range for this tenant"
	case left > 0:
		out.Message = fmt.Sprintf("%d more healthy instances are not used: a host has at most %d servers", left, fleet.MaxInstances)
	}
	if out.State == was.Condition.State && out.Reason == was.Condition.Reason {
		out.Since = was.Condition.Since
	}
	return out
}

func refusal(refused []fleet.RefusedInstance) string {
	if len(refused) == 1 {
		return "instance " + refused[0].Instance + " is refused: " + refused[0].Reason
	}
	return fmt.Sprintf("%d instances are refused, the first is %s: %s", len(refused), refused[0].Instance, refused[0].Reason)
}

func clip(s string) string {
	return strings.ToValidUTF8(s[:min(len(s), maxText)], "")
}

// equal reports whether a host's row need not be written. A host without services has no row.
func equal(a, b fleet.HostOrigins) bool {
	return slices.EqualFunc(a.Services, b.Services, func(x, y fleet.ResolvedOrigin) bool {
		return x.URL == y.URL && slices.Equal(x.Instances, y.Instances) && slices.Equal(x.Refused, y.Refused) &&
			x.Condition.State == y.Condition.State && x.Condition.Reason == y.Condition.Reason && x.Condition.Message == y.Condition.Message
	})
}
