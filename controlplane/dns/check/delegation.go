package check

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/miekg/dns"

	authority "github.com/edgefleet/edgefleet/controlplane/dns"
	"github.com/edgefleet/edgefleet/fleet"
)

// CheckDelegation reports whether the world finds the edge zone at our name servers.
func (r *Resolver) CheckDelegation(ctx context.Context, zone fleet.HostName, want []authority.NameServer) fleet.Check {
	c := fleet.Check{Name: "edge zone delegation", State: fleet.CheckFail}
	m, err := r.exchange(ctx, string(zone), dns.TypeNS)
	if err != nil {
		c.Detail = fmt.Sprintf("%s cannot be looked up: %v; %s", zone, err, records(zone, want))
		return c
	}
	var seen, ours []string
	for _, rr := range m.Answer {
		if ns, ok := rr.(*dns.NS); ok && same(ns.Hdr.Name, string(zone)) {
			seen = append(seen, plain(ns.Ns))
		}
	}
	for _, s := range want {
		ours = append(ours, string(s.Name))
	}
	slices.Sort(seen)
	slices.Sort(ours)
	seen, ours = slices.Compact(seen), slices.Compact(ours)
	switch {
	case len(seen) == 0:
		c.Detail = fmt.Sprintf("%s is not delegated; %s", zone, records(zone, want))
	case !slices.Equal(seen, ours):
		c.Detail = fmt.Sprintf("%s is delegated to %s; %s", zone, strings.Join(seen, ", "), records(zone, want))
	default:
		c.State, c.Detail = fleet.CheckOK, fmt.Sprintf("%s is delegated to %s", zone, strings.Join(ours, ", "))
	}
	return c
}

// records are what the owner of the parent zone has to set.
func records(zone fleet.HostName, want []authority.NameServer) string {
	_, parent, _ := strings.Cut(string(zone), ".")
	var set []string
	for _, s := range want {
		typ := "A"
		if s.Addr.Is6() && !s.Addr.Is4In6() {
			typ = "AAAA"
		}
		set = append(set, fmt.Sprintf("%s NS %s", zone, s.Name), fmt.Sprintf("%s %s %s", s.Name, typ, s.Addr.Unmap()))
	}
	return fmt.Sprintf("set in the zone %s: %s", parent, strings.Join(set, "; "))
}
