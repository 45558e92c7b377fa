package check

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/miekg/dns"

	"github.com/edgefleet/edgefleet/fleet"
)

// CheckHost looks up the two records that h's owner was asked to set below zone. edge are the addresses that the zone
// would answer with for h: an apex, or a provider that flattens CNAMEs, shows these instead. The error is ctx's only:
// everything that DNS does wrong is a verdict.
func (r *Resolver) CheckHost(ctx context.Context, h fleet.Host, zone fleet.HostName, edge []netip.Addr) (fleet.DNSFinding, error) {
	f := fleet.DNSFinding{Certificate: r.certificate(ctx, h, zone), Traffic: r.traffic(ctx, h, zone, edge)}
	_, f.DNSOnly = h.Name.Wildcard()
	if ctx.Err() != nil {
		return fleet.DNSFinding{}, fmt.Errorf("check DNS of %s: %w", h.Name, context.Cause(ctx))
	}
	return f, nil
}

func (r *Resolver) certificate(ctx context.Context, h fleet.Host, zone fleet.HostName) fleet.DNSVerdict {
	name, want := h.Name.ChallengeName(), h.DCVName(zone)
	action := fmt.Sprintf("set %s CNAME %s", name, want)
	targets, err := r.chain(ctx, name, want)
	switch {
	case len(targets) > 0 && targets[len(targets)-1] == want:
		return fleet.DNSVerdict{OK: true}
	case err != nil:
		return servfail(name, err)
	case len(targets) == 0:
		return fleet.DNSVerdict{Reason: fleet.ReasonDNSMissing, Message: name + " has no CNAME", Action: action}
	}
	return fleet.DNSVerdict{Reason: fleet.ReasonDNSWrongTarget, Message: fmt.Sprintf("%s is a CNAME to %s", name, targets[0]), Action: action}
}

func (r *Resolver) traffic(ctx context.Context, h fleet.Host, zone fleet.HostName, edge []netip.Addr) fleet.DNSVerdict {
	name, want := string(h.Name.Probe()), h.TrafficName(zone)
	targets, err := r.chain(ctx, name, want)
	if len(targets) > 0 && targets[len(targets)-1] == want {
		return fleet.DNSVerdict{OK: true}
	}
	if err != nil {
		return servfail(name, err)
	}
	v4, err := r.addresses(ctx, name, dns.TypeA)
	if err != nil {
		return servfail(name, err)
	}
	v6, err := r.addresses(ctx, name, dns.TypeAAAA)
	if err != nil {
		return servfail(name, err)
	}
	return judge(string(h.Name), want, targets, v4, v6, edge)
}

// judge compares the addresses of name with those of the edge.
func judge(name, want string, targets []string, v4, v6, edge []netip.Addr) fleet.DNSVerdict {
	ours := func(a netip.Addr) bool { return slices.Contains(edge, a) }
	foreign := func(a netip.Addr) bool { return !ours(a) }
	all := slices.Concat(v4, v6)
	set := fmt.Sprintf("set %s CNAME %s", name, want)
	switch {
	case len(all) == 0 && len(targets) == 0:
		return fleet.DNSVerdict{Reason: fleet.ReasonDNSMissing, Message: name + " has no CNAME and no address", Action: set}
	case !slices.ContainsFunc(all, ours) && proxyOf(targets, all) != "":
		return fleet.DNSVerdict{
			Reason: fleet.ReasonDNSProxied, Message: fmt.Sprintf("%s has the addresses %s of %s, which answers in its stead", name, list(all), proxyOf(targets, all)),
			Action: fmt.Sprintf("switch the proxy of %s off (DNS only), and %s", name, set),
		}
	case len(all) == 0:
		return fleet.DNSVerdict{Reason: fleet.ReasonDNSWrongTarget, Message: fmt.Sprintf("%s is a CNAME to %s, which has no address", name, targets[len(targets)-1]), Action: set}
	case !slices.ContainsFunc(all, foreign):
		return fleet.DNSVerdict{OK: true}
	case len(v4) > 0 && !slices.ContainsFunc(v4, foreign):
		bad := list(slices.DeleteFunc(v6, ours))
		return fleet.DNSVerdict{
			Reason: fleet.ReasonDNSConflictAAAA, Message: fmt.Sprintf("%s has the edge's IPv4 addresses, but its AAAA record %s is not the edge's", name, bad),
			Action: fmt.Sprintf("remove %s AAAA %s", name, bad),
		}
	case slices.ContainsFunc(all, ours):
		bad := list(slices.DeleteFunc(all, ours))
		return fleet.DNSVerdict{
			Reason: fleet.ReasonDNSPartial, Message: fmt.Sprintf("%s has addresses of the edge and others: %s", name, bad),
			Action: fmt.Sprintf("remove %s, or %s", bad, set),
		}
	case len(targets) > 0:
		return fleet.DNSVerdict{Reason: fleet.ReasonDNSWrongTarget, Message: fmt.Sprintf("%s is a CNAME to %s", name, targets[0]), Action: set}
	}
	return fleet.DNSVerdict{Reason: fleet.ReasonDNSWrongTarget, Message: fmt.Sprintf("%s has the addresses %s, which are not the edge's", name, list(all)), Action: set}
}

func (r *Resolver) addresses(ctx context.Context, name string, qtype uint16) ([]netip.Addr, error) {
	m, err := r.exchange(ctx, name, qtype)
	if err != nil {
		return nil, err
	}
	var addrs []netip.Addr
	for _, rr := range m.Answer {
		switch rr := rr.(type) {
		case *dns.A:
			addrs = appendAddr(addrs, rr.A)
		case *dns.AAAA:
			addrs = appendAddr(addrs, rr.AAAA)
		}
	}
	return addrs, nil
}

func appendAddr(addrs []netip.Addr, ip []byte) []netip.Addr {
	if a, ok := netip.AddrFromSlice(ip); ok {
		return append(addrs, a.Unmap())
	}
	return addrs
}

func servfail(name string, err error) fleet.DNSVerdict {
	if bogus, ok := errors.AsType[bogusError](err); ok {
		return fleet.DNSVerdict{
			Reason: fleet.ReasonDNSSECBogus, Message: bogus.Error(),
			Action: fmt.Sprintf("repair DNSSEC of the zone of %s: the DS record at the registrar has to fit the zone's keys, or remove the DS record", bogus.name),
		}
	}
	return fleet.DNSVerdict{
		Reason: fleet.ReasonDNSServfail, Message: fmt.Sprintf("%s cannot be looked up: %v", name, err),
		Action: "check the name servers (and DNSSEC, if used) of the domain of " + name,
	}
}

// list shows a few addresses.
func list(addrs []netip.Addr) string {
	const most = 4
	s := make([]string, 0, most+1)
	for i, a := range addrs {
		if i == most {
			s = append(s, fmt.Sprintf("and %d more", len(addrs)-most))
			break
		}
		s = append(s, a.String())
	}
	return strings.Join(s, ", ")
}
