// Package check looks at the world's DNS as customers and certificate authorities see it: are a host's records as they
// should be, and is the edge zone delegated to us. It asks recursive resolvers; it never answers, caches or retries
// later (the leader's host loop does). When no resolver answers, the verdict is DNS_SERVFAIL.
package check

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
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
	// AuthorityPort is the port of authoritative servers; 53 by default.
	AuthorityPort uint16
	// HTTPPort is the port at which edges answer HTTP-01; 0 means that it is not tried.
	HTTPPort uint16
	// HTTPSPort is the same for TLS-ALPN-01.
	HTTPSPort uint16
	// Private are networks, not public, in which customers' name servers may be.
	Private []netip.Prefix
}

// bogusError is an answer that is refused only because its signatures do not verify.
type bogusError struct{ name string }

// Error implements error.
func (e bogusError) Error() string {
	return e.name + " does not validate: resolvers answer only with checking disabled"
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
		m, err := r.ask(ctx, server, name, qtype)
		if err == nil {
			return m, nil
		}
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if _, bogus := errors.AsType[bogusError](err); bogus {
			return nil, err
		}
		errs = append(errs, fmt.Errorf("resolver %s: %w", server, err))
	}
	return nil, errors.Join(errs...)
}

// ask asks one recursive resolver. One that refuses is asked once more without validation: an answer then says that
// DNSSEC is what is wrong.
func (r *Resolver) ask(ctx context.Context, server, name string, qtype uint16) (*dns.Msg, error) {
	m, err := ask(ctx, server, question(name, qtype))
	if failed, ok := errors.AsType[rcodeError](err); !ok || failed.rcode != dns.RcodeServerFailure {
		return m, err
	}
	again := question(name, qtype)
	again.CheckingDisabled = true
	if _, unchecked := ask(ctx, server, again); unchecked == nil {
		return nil, bogusError{plain(name)}
	}
	return nil, err
}

func question(name string, qtype uint16) *dns.Msg {
	req := new(dns.Msg)
	req.SetQuestion(dns.Fqdn(name), qtype)
	req.SetEdns0(ednsSize, false)
	return req
}

// rcodeError is an answer that is none.
type rcodeError struct {
	rcode int
	of    dns.Question
}

// Error implements error.
func (e rcodeError) Error() string {
	return fmt.Sprintf("%s for %s %s", dns.RcodeToString[e.rcode], strings.TrimSuffix(e.of.Name, "."), dns.TypeToString[e.of.Qtype])
}

// ask puts a question to one server.
func ask(ctx context.Context, server string, req *dns.Msg) (*dns.Msg, error) {
	m, err := roundTrip(ctx, "udp", server, req)
	if err == nil && m.Truncated {
		m, err = roundTrip(ctx, "tcp", server, req)
	}
	if err != nil {
		return nil, err
	}
	if m.Rcode != dns.RcodeSuccess && m.Rcode != dns.RcodeNameError {
		return nil, rcodeError{m.Rcode, req.Question[0]}
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
