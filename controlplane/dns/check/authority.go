package check

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/miekg/dns"

	"github.com/edgefleet/edgefleet/fleet"
)

const (
	// maxAuthorities bounds the name servers of one zone that are asked.
	maxAuthorities = 13
	// maxAddresses bounds the addresses of one name server that are tried.
	maxAddresses = 4
	dnsPort      = 53
)

// errPrivate is a name server that is not asked because its address is not public.
var errPrivate = errors.New("its address is not public")

// nameServer is one name server of a customer's zone.
type nameServer struct {
	name  string
	addrs []netip.Addr
}

// String names it as people know it.
func (a nameServer) String() string {
	if len(a.addrs) == 0 {
		return a.name
	}
	return fmt.Sprintf("%s (%s)", a.name, a.addrs[0])
}

// authorities are the name servers of the zone that name lies in; none when resolvers know of none, as in a network
// that has only a resolver of its own.
func (r *Resolver) authorities(ctx context.Context, name string) (zone string, servers []nameServer, err error) {
	for n := plain(name); strings.Contains(n, "."); _, n, _ = strings.Cut(n, ".") {
		m, err := r.exchange(ctx, n, dns.TypeNS)
		if err != nil {
			return "", nil, err
		}
		var names []string
		for _, rr := range m.Answer {
			if ns, ok := rr.(*dns.NS); ok && same(ns.Hdr.Name, n) {
				names = append(names, plain(ns.Ns))
			}
		}
		if len(names) == 0 {
			continue
		}
		slices.Sort(names)
		names = slices.Compact(names)
		servers, err = r.locate(ctx, names[:min(len(names), maxAuthorities)])
		return n, servers, err
	}
	return "", nil, nil
}

// locate looks the addresses of name servers up, all at once.
func (r *Resolver) locate(ctx context.Context, names []string) ([]nameServer, error) {
	out := make([]nameServer, len(names))
	var asked sync.WaitGroup
	for i, n := range names {
		out[i].name = n
		asked.Go(func() {
			for _, t := range []uint16{dns.TypeA, dns.TypeAAAA} {
				addrs, err := r.addresses(ctx, n, t)
				if err == nil { // one without addresses is one that does not answer
					out[i].addrs = append(out[i].addrs, addrs...)
				}
			}
			out[i].addrs = out[i].addrs[:min(len(out[i].addrs), maxAddresses)]
		})
	}
	asked.Wait()
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	return out, nil
}

// ask puts one question to the first address of a that answers.
func (r *Resolver) askAuthority(ctx context.Context, a nameServer, name string, qtype uint16) (*dns.Msg, error) {
	if len(a.addrs) == 0 {
		return nil, errors.New("it has no address")
	}
	var last error
	for _, addr := range a.addrs {
		// Whoever owns a domain says where its name servers are: they must not lead us into our own network.
		if err := fleet.CheckOriginAddr(addr, r.Private, nil); err != nil {
			last = cmp.Or(last, errPrivate)
			continue
		}
		port := r.AuthorityPort
		if port == 0 {
			port = dnsPort
		}
		req := question(name, qtype)
		req.RecursionDesired = false
		m, err := ask(ctx, net.JoinHostPort(addr.String(), strconv.Itoa(int(port))), req)
		if err == nil {
			return m, nil
		}
		if last = err; ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
	}
	return nil, last
}

// answer is what one name server says: wrong is empty when it is right.
type answer struct {
	server nameServer
	wrong  string
	silent error
}

// agree asks every name server of name's zone, and holds what each says against what judge wants: judge returns what is
// wrong. Those that do not answer are passed over as resolvers pass them over, as long as one does.
func (r *Resolver) agree(ctx context.Context, name string, types []uint16, judge func([]dns.RR) string) fleet.DNSVerdict {
	zone, servers, err := r.authorities(ctx, name)
	if err != nil {
		return servfail(name, err)
	}
	if len(servers) == 0 {
		return fleet.DNSVerdict{OK: true}
	}
	answers := make([]answer, len(servers))
	var asked sync.WaitGroup
	for i, s := range servers {
		asked.Go(func() {
			answers[i].server = s
			var rrs []dns.RR
			for _, t := range types {
				m, err := r.askAuthority(ctx, s, name, t)
				if err != nil {
					answers[i].silent = err
					return
				}
				rrs = append(rrs, m.Answer...)
			}
			answers[i].wrong = judge(rrs)
		})
	}
	asked.Wait()
	return verdict(name, zone, answers)
}

func verdict(name, zone string, answers []answer) fleet.DNSVerdict {
	var right, wrong, silent []string
	private := 0
	for _, a := range answers {
		switch {
		case errors.Is(a.silent, errPrivate):
			private++
		case a.silent != nil:
			silent = append(silent, fmt.Sprintf("%s: %v", a.server, a.silent))
		case a.wrong != "":
			wrong = append(wrong, fmt.Sprintf("%s says that %s", a.server, a.wrong))
		default:
			right = append(right, a.server.String())
		}
	}
	switch {
	case len(wrong) > 0 && len(right) > 0:
		return fleet.DNSVerdict{
			Reason: fleet.ReasonDNSPartial, Message: fmt.Sprintf("the name servers of %s differ about %s: %s; %s has the right record", zone, name, few(wrong), few(right)),
			Action: "see that every name server of " + zone + " has the same zone",
		}
	case len(wrong) > 0:
		return fleet.DNSVerdict{
			Reason: fleet.ReasonDNSPartial, Message: fmt.Sprintf("resolvers still remember a record of %s that its name servers do not have: %s", name, few(wrong)),
			Action: "set the record at the name servers of " + zone,
		}
	case len(right) == 0 && private < len(answers): // all in a network of their own: resolvers there are believed
		return fleet.DNSVerdict{
			Reason: fleet.ReasonDNSServfail, Message: fmt.Sprintf("no name server of %s answers: %s", zone, few(silent)),
			Action: "check the name servers of " + zone,
		}
	}
	return fleet.DNSVerdict{OK: true}
}

// few shows the first of many.
func few(s []string) string {
	const most = 3
	if len(s) > most {
		return fmt.Sprintf("%s, and %d more", strings.Join(s[:most], ", "), len(s)-most)
	}
	return strings.Join(s, ", ")
}
