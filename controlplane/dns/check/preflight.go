package check

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"syscall"

	"github.com/miekg/dns"

	"github.com/edgefleet/edgefleet/fleet"
)

// maxProbes bounds the edges of which a port is tried.
const maxProbes = 4

// Preflight looks for what would make a certificate authority refuse h by the challenge via, before it is asked: every
// authoritative server has the record, port 80 (HTTP-01) or 443 (TLS-ALPN-01) of the edges answers, and CAA allows the
// authority. A ca without domains is one that CAA is not asked about. The error is ctx's only.
func (r *Resolver) Preflight(ctx context.Context, h fleet.Host, zone fleet.HostName, edge []netip.Addr, via fleet.ChallengeType, ca fleet.CAIdentity) (fleet.DNSVerdict, error) {
	v := r.preflight(ctx, h, zone, edge, via, ca)
	if ctx.Err() != nil {
		return fleet.DNSVerdict{}, fmt.Errorf("preflight of %s: %w", h.Name, context.Cause(ctx))
	}
	return v, nil
}

func (r *Resolver) preflight(ctx context.Context, h fleet.Host, zone fleet.HostName, edge []netip.Addr, via fleet.ChallengeType, ca fleet.CAIdentity) fleet.DNSVerdict {
	name, want := h.Name.ChallengeName(), h.DCVName(zone)
	if via != fleet.ChallengeDNS01 {
		name, want = string(h.Name), h.TrafficName(zone)
	}
	v := r.everywhere(ctx, name, want, edge)
	if port := r.port(via); v.OK && port != 0 {
		v = r.answers(ctx, h, zone, edge, port)
	}
	if v.OK && len(ca.Domains) > 0 {
		v = r.CAA(ctx, h.Name, via, ca)
	}
	return v
}

// everywhere holds each hop from name to want against what every name server of the hop says; without a CNAME, the
// addresses have to be the edge's.
func (r *Resolver) everywhere(ctx context.Context, name, want string, edge []netip.Addr) fleet.DNSVerdict {
	targets, err := r.chain(ctx, name, want)
	if err != nil && !slices.Contains(targets, want) {
		return servfail(name, err)
	}
	hop := name
	for _, target := range targets {
		v := r.agree(ctx, hop, []uint16{dns.TypeCNAME}, func(rrs []dns.RR) string { return notCNAME(rrs, hop, target) })
		if !v.OK {
			return v
		}
		if hop = target; same(hop, want) {
			return v
		}
	}
	return r.agree(ctx, hop, []uint16{dns.TypeA, dns.TypeAAAA}, func(rrs []dns.RR) string { return notEdge(rrs, hop, edge) })
}

func notCNAME(rrs []dns.RR, name, target string) string {
	for _, rr := range rrs {
		if c, ok := rr.(*dns.CNAME); ok && same(c.Hdr.Name, name) {
			if same(c.Target, target) {
				return ""
			}
			return fmt.Sprintf("%s is a CNAME to %s", name, plain(c.Target))
		}
	}
	return name + " has no CNAME"
}

func notEdge(rrs []dns.RR, name string, edge []netip.Addr) string {
	var bad []netip.Addr
	n := 0
	for _, rr := range rrs {
		var a []netip.Addr
		switch rr := rr.(type) {
		case *dns.A:
			a = appendAddr(nil, rr.A)
		case *dns.AAAA:
			a = appendAddr(nil, rr.AAAA)
		}
		n += len(a)
		bad = append(bad, slices.DeleteFunc(a, func(a netip.Addr) bool { return slices.Contains(edge, a) })...)
	}
	switch {
	case n == 0:
		return name + " has no address"
	case len(bad) > 0:
		return fmt.Sprintf("%s has the address %s", name, list(bad))
	}
	return ""
}

// port is where the certificate authority looks for the answer to a challenge; 0 if it does not, or if that is not tried.
func (r *Resolver) port(via fleet.ChallengeType) uint16 {
	switch via {
	case fleet.ChallengeHTTP01:
		return r.HTTPPort
	case fleet.ChallengeTLSALPN01:
		return r.HTTPSPort
	case fleet.ChallengeDNS01: // it looks at no edge
		return 0
	default:
		return 0
	}
}

// answers connects to a port of the edges that DNS answers with for h, and to nothing else.
func (r *Resolver) answers(ctx context.Context, h fleet.Host, zone fleet.HostName, edge []netip.Addr, port uint16) fleet.DNSVerdict {
	var addrs []netip.Addr
	for _, t := range []uint16{dns.TypeA, dns.TypeAAAA} {
		a, err := r.addresses(ctx, string(h.Name), t)
		if err != nil {
			return servfail(string(h.Name), err)
		}
		addrs = append(addrs, slices.DeleteFunc(a, func(a netip.Addr) bool { return !slices.Contains(edge, a) })...)
	}
	for _, a := range addrs[:min(len(addrs), maxProbes)] {
		dialing, cancel := context.WithTimeout(ctx, timeout)
		conn, err := (&net.Dialer{}).DialContext(dialing, "tcp", net.JoinHostPort(a.String(), strconv.Itoa(int(port))))
		cancel()
		if err == nil {
			_ = conn.Close() // nothing was sent
			continue
		}
		if errors.Is(err, syscall.ENETUNREACH) || errors.Is(err, syscall.EHOSTUNREACH) || errors.Is(err, syscall.EADDRNOTAVAIL) {
			continue // this member has no way there, such as no IPv6: that says nothing about others
		}
		return fleet.DNSVerdict{
			Reason: fleet.ReasonHTTPUnreachable, Message: fmt.Sprintf("port %d of the edge %s does not answer: %v", port, a, reason(err)),
			Action: fmt.Sprintf("open it, or set %s CNAME %s", h.Name.ChallengeName(), h.DCVName(zone)),
		}
	}
	return fleet.DNSVerdict{OK: true}
}

// reason is what a connection failed of, without its ports: the text is stored, and must not differ between equal failures.
func reason(err error) error {
	if op, ok := errors.AsType[*net.OpError](err); ok {
		return op.Err
	}
	return err
}
