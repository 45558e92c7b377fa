// Package check looks at the world's DNS as customers and certificate authorities see it: are a host's records as they
// should be, and is the edge zone delegated to us. It asks recursive resolvers; it never answers, caches or retries
// later (the leader's host loop does). When no resolver answers, the verdict is DNS_SERVFAIL.
package check

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/miekg/dns"

	"github.com/edgefleet/edgefleet/fleet"
)

const (
	// timeout bounds one exchange with one resolver.
	timeout = 2 * time.Second
	// maxHops bounds a chain of CNAMEs.
	maxHops = 8
	// ednsSize is the UDP size that avoids fragmentation (DNS flag day 2020).
	ednsSize = 1232
)

// Resolver asks recursive resolvers in order until one answers.
type Resolver struct {
	// Servers are host:port addresses of recursive resolvers.
	Servers []string
}

// System returns the resolvers that this machine uses, from a file such as /etc/resolv.conf.
func System(path string) (*Resolver, error) {
	c, err := dns.ClientConfigFromFile(path)
	if err != nil {
		return nil, fmt.Errorf("read resolvers: %w", err)
	}
	r := &Resolver{}
	for _, s := range c.Servers {
		r.Servers = append(r.Servers, net.JoinHostPort(s, c.Port))
	}
	return r, nil
}

// exchange asks one question. An answer is NOERROR or NXDOMAIN; anything else is an error that says who said what.
func (r *Resolver) exchange(ctx context.Context, name string, qtype uint16) (*dns.Msg, error) {
	if len(r.Servers) == 0 {
		return nil, fleet.NewError(fleet.ErrUnavailable, "resolvers", "no resolvers are configured: set dns_resolvers")
	}
	var errs []error
	for _, server := range r.Servers {
		m, err := ask(ctx, server, name, qtype)
		if err == nil {
			return m, nil
		}
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		errs = append(errs, fmt.Errorf("resolver %s: %w", server, err))
	}
	return nil, errors.Join(errs...)
}

func ask(ctx context.Context, server, name string, qtype uint16) (*dns.Msg, error) {
	req := new(dns.Msg)
	req.SetQuestion(dns.Fqdn(name), qtype)
	req.SetEdns0(ednsSize, false)
	m, err := roundTrip(ctx, "udp", server, req)
	if err == nil && m.Truncated {
		m, err = roundTrip(ctx, "tcp", server, req)
	}
	if err != nil {
		return nil, err
	}
	if m.Rcode != dns.RcodeSuccess && m.Rcode != dns.RcodeNameError {
		return nil, fmt.Errorf("%s for %s %s", dns.RcodeToString[m.Rcode], strings.TrimSuffix(name, "."), dns.TypeToString[qtype])
	}
	return m, nil
}

func roundTrip(ctx context.Context, network, server string, req *dns.Msg) (*dns.Msg, error) {
	c := dns.Client{Net: network, Timeout: timeout}
	m, _, err := c.ExchangeContext(ctx, req, server)
	if op, ok := errors.AsType[*net.OpError](err); ok {
		// Without the local port: the text is stored, and must not differ between equal failures.
		return nil, fmt.Errorf("%s: %w", op.Op, op.Err)
	}
	if err != nil {
		return nil, err
	}
	if len(m.Question) != 1 || m.Question[0].Qtype != req.Question[0].Qtype || !strings.EqualFold(m.Question[0].Name, req.Question[0].Name) {
		return nil, errors.New("answer to another question")
	}
	return m, nil
}

// chain follows CNAMEs from name, one question a hop, and returns the targets. It stops at until, which need not
// resolve. The error is of the hop where resolvers stopped answering.
func (r *Resolver) chain(ctx context.Context, name, until string) ([]string, error) {
	var targets []string
	for range maxHops {
		m, err := r.exchange(ctx, name, dns.TypeCNAME)
		if err != nil {
			return targets, err
		}
		next := ""
		for _, rr := range m.Answer {
			if c, ok := rr.(*dns.CNAME); ok && same(c.Hdr.Name, name) {
				next = plain(c.Target)
			}
		}
		if next == "" {
			return targets, nil
		}
		targets = append(targets, next)
		if same(next, until) {
			return targets, nil
		}
		name = next
	}
	return targets, fmt.Errorf("more than %d CNAMEs in a row", maxHops)
}

// plain is a name as people write it.
func plain(name string) string { return strings.ToLower(strings.TrimSuffix(name, ".")) }

func same(a, b string) bool { return plain(a) == plain(b) }
