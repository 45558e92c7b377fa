package dns

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"

	"github.com/edgefleet/edgefleet/fleet"
)

// Seen is what a name server says of the zone.
type Seen struct {
	Serial uint32
	// Servers are the names of its name servers, lower case, sorted.
	Servers []string
}

// askTimeout bounds one query to another name server.
const askTimeout = 2 * time.Second

// Ask asks a name server, by udp or tcp, for the zone. An answer that is not authoritative is an error.
func Ask(ctx context.Context, network, addr string, zone fleet.HostName) (Seen, error) {
	var out Seen
	c := dns.Client{Net: network, Timeout: askTimeout}
	for _, typ := range []uint16{dns.TypeSOA, dns.TypeNS} {
		req := new(dns.Msg).SetQuestion(dns.Fqdn(string(zone)), typ)
		req.RecursionDesired = false
		m, _, err := c.ExchangeContext(ctx, req, addr)
		if err != nil {
			return out, fmt.Errorf("ask for %s: %w", dns.TypeToString[typ], err)
		}
		if m.Rcode != dns.RcodeSuccess || !m.Authoritative || len(m.Answer) == 0 {
			return out, fleet.NewError(fleet.ErrUnavailable, "", "it answers %s for %s, and not with authority", dns.RcodeToString[m.Rcode], dns.TypeToString[typ])
		}
		for _, rr := range m.Answer {
			switch rr := rr.(type) {
			case *dns.SOA:
				out.Serial = rr.Serial
			case *dns.NS:
				out.Servers = append(out.Servers, strings.ToLower(strings.TrimSuffix(rr.Ns, ".")))
			}
		}
	}
	slices.Sort(out.Servers)
	return out, nil
}
