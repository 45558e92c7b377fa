package check_test

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"

	"github.com/edgefleet/edgefleet/controlplane/dns/check"
	"github.com/edgefleet/edgefleet/fleet"
)

// universe is a customer's DNS: a resolver, and authoritative servers on addresses of their own that may differ.
type universe struct {
	t    *testing.T
	port uint16
	// zones are the records of each authoritative server, by its address; the resolver sees those of "resolver".
	servers map[string][]string
	// rcodes make a server answer with an error.
	rcodes map[string]int
	// bogus makes the resolver refuse names below it unless checking is disabled.
	bogus string
	// asked counts the questions to authoritative servers.
	asked atomic.Int64
}

// resolverAddr is where the resolver is; others are authoritative.
const resolverAddr = "127.0.0.1"

func (u *universe) start() *check.Resolver {
	u.t.Helper()
	for range 20 {
		if u.listen() {
			return &check.Resolver{
				Servers: []string{net.JoinHostPort(resolverAddr, fmt.Sprint(u.port))}, AuthorityPort: u.port,
				Private: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")},
			}
		}
	}
	u.t.Fatal("no port is free at all addresses")
	return nil
}

func (u *universe) listen() bool {
	u.port = 0
	var begun []*dns.Server
	for _, addr := range append([]string{resolverAddr}, u.authorities()...) {
		p, err := net.ListenPacket("udp", net.JoinHostPort(addr, fmt.Sprint(u.port)))
		if err != nil {
			for _, s := range begun {
				_ = s.Shutdown()
			}
			return false
		}
		u.port = p.LocalAddr().(*net.UDPAddr).AddrPort().Port()
		started := make(chan struct{})
		s := &dns.Server{PacketConn: p, Handler: u.handler(addr), NotifyStartedFunc: func() { close(started) }}
		go func() { _ = s.ActivateAndServe() }()
		<-started
		u.t.Cleanup(func() { _ = s.Shutdown() })
		begun = append(begun, s)
	}
	return true
}

func (u *universe) authorities() []string {
	var out []string
	for a := range u.servers {
		if a != resolverAddr {
			out = append(out, a)
		}
	}
	slices.Sort(out)
	return out
}

func (u *universe) handler(addr string) dns.HandlerFunc {
	var rrs []dns.RR
	for _, r := range u.servers[addr] {
		rr, err := dns.NewRR(r)
		if err != nil || rr == nil {
			u.t.Fatalf("%q: %v", r, err)
		}
		rrs = append(rrs, rr)
	}
	return func(w dns.ResponseWriter, req *dns.Msg) {
		m := new(dns.Msg).SetReply(req)
		q := req.Question[0]
		m.Answer = follow(rrs, q.Name, q.Qtype)
		switch rcode, broken := u.rcodes[addr+" "+dns.TypeToString[q.Qtype]+" "+q.Name]; {
		case broken:
			m.Answer, m.Rcode = nil, rcode
		case u.rcodes[addr] != 0:
			m.Answer, m.Rcode = nil, u.rcodes[addr]
		case u.bogus != "" && strings.HasSuffix(q.Name, u.bogus) && !req.CheckingDisabled:
			m.Answer, m.Rcode = nil, dns.RcodeServerFailure
		}
		if addr != resolverAddr {
			u.asked.Add(1)
		}
		if addr != resolverAddr && req.RecursionDesired {
			m.Answer, m.Rcode = nil, dns.RcodeRefused
		}
		_ = w.WriteMsg(m) // the client sees a missing answer
	}
}

// names are the records by which resolvers find the two name servers of example.com.
var names = []string{
	"example.com. NS ns1.example.com.", "example.com. NS ns2.example.com.", "ns1.example.com. A 127.0.0.2", "ns2.example.com. A 127.0.0.3",
}

const (
	dcv     = "_acme-challenge.api.example.com. CNAME x.dcv.edge.example."
	traffic = "api.example.com. CNAME x.edge.example."
	edges   = "x.edge.example. A 192.0.2.1"
)

func with(more ...string) []string { return append(slices.Clone(names), more...) }

var pebble = fleet.CAIdentity{Domains: []string{"letsencrypt.org"}, Account: "https://ca.example/acct/1"}

func TestPreflight(t *testing.T) {
	for _, tc := range []struct {
		name   string
		via    fleet.ChallengeType
		world  *universe
		reason string
		says   []string
		do     string
	}{
		{name: "every name server has the record", world: &universe{servers: map[string][]string{"127.0.0.1": with(dcv), "127.0.0.2": {dcv}, "127.0.0.3": {dcv}}}},
		{
			name: "one name server does not have it", world: &universe{servers: map[string][]string{"127.0.0.1": with(dcv), "127.0.0.2": {dcv}, "127.0.0.3": {}}},
			reason: fleet.ReasonDNSPartial, says: []string{"ns2.example.com (127.0.0.3) says that _acme-challenge.api.example.com has no CNAME", "ns1.example.com (127.0.0.2) has the right record"}, do: "every name server of example.com",
		},
		{
			name: "one name server has an older one", world: &universe{servers: map[string][]string{"127.0.0.1": with(dcv), "127.0.0.2": {dcv}, "127.0.0.3": {"_acme-challenge.api.example.com. CNAME y.dcv.edge.example."}}},
			reason: fleet.ReasonDNSPartial, says: []string{"is a CNAME to y.dcv.edge.example"},
		},
		{
			name: "resolvers remember what is gone", world: &universe{servers: map[string][]string{"127.0.0.1": with(dcv), "127.0.0.2": {}, "127.0.0.3": {}}},
			reason: fleet.ReasonDNSPartial, says: []string{"still remember"}, do: "set the record at the name servers of example.com",
		},
		{name: "a name server that is broken is passed over", world: &universe{servers: map[string][]string{"127.0.0.1": with(dcv), "127.0.0.2": {dcv}, "127.0.0.3": {}}, rcodes: map[string]int{"127.0.0.3": dns.RcodeServerFailure}}},
		{
			name: "unless all are", world: &universe{servers: map[string][]string{"127.0.0.1": with(dcv), "127.0.0.2": {}, "127.0.0.3": {}}, rcodes: map[string]int{"127.0.0.2": dns.RcodeRefused, "127.0.0.3": dns.RcodeServerFailure}},
			reason: fleet.ReasonDNSServfail, says: []string{"no name server of example.com answers", "ns1.example.com (127.0.0.2): REFUSED", "SERVFAIL"},
		},
		{
			name: "each hop is asked about", world: &universe{servers: map[string][]string{
				"127.0.0.1": with("_acme-challenge.api.example.com. CNAME a.example.com.", "a.example.com. CNAME x.dcv.edge.example."),
				"127.0.0.2": {"_acme-challenge.api.example.com. CNAME a.example.com.", "a.example.com. CNAME x.dcv.edge.example."},
				"127.0.0.3": {"_acme-challenge.api.example.com. CNAME a.example.com."},
			}},
			reason: fleet.ReasonDNSPartial, says: []string{"a.example.com has no CNAME"},
		},
		{name: "addresses are the edge's everywhere", via: fleet.ChallengeHTTP01, world: &universe{servers: map[string][]string{"127.0.0.1": with("api.example.com. A 192.0.2.1"), "127.0.0.2": {"api.example.com. A 192.0.2.1"}, "127.0.0.3": {"api.example.com. AAAA 2001:db8::1"}}}},
		{
			name: "or not", via: fleet.ChallengeHTTP01, world: &universe{servers: map[string][]string{"127.0.0.1": with("api.example.com. A 192.0.2.1"), "127.0.0.2": {"api.example.com. A 192.0.2.1"}, "127.0.0.3": {"api.example.com. A 203.0.113.1"}}},
			reason: fleet.ReasonDNSPartial, says: []string{"ns2.example.com (127.0.0.3) says that api.example.com has the address 203.0.113.1"},
		},
		{
			name: "a loop", world: &universe{servers: map[string][]string{"127.0.0.1": with("_acme-challenge.api.example.com. CNAME b.example.com.", "b.example.com. CNAME _acme-challenge.api.example.com.")}},
			reason: fleet.ReasonDNSServfail, says: []string{"CNAMEs in a row"},
		},
		{name: "without known name servers resolvers are believed", world: &universe{servers: map[string][]string{"127.0.0.1": {dcv}}}},
		{
			name: "CAA allows another authority only", world: &universe{servers: map[string][]string{"127.0.0.1": {dcv, `example.com. CAA 0 issue "digicert.com"`}}},
			reason: fleet.ReasonCAAForbidden, says: []string{"example.com allows only digicert.com"}, do: `add example.com CAA 0 issue "letsencrypt.org"`,
		},
		{name: "CAA allows ours", world: &universe{servers: map[string][]string{"127.0.0.1": {dcv, `example.com. CAA 0 issue "digicert.com"`, `example.com. CAA 0 issue "LetsEncrypt.org; validationmethods=dns-01"`}}}},
		{
			name: "CAA allows ours by another method", world: &universe{servers: map[string][]string{"127.0.0.1": {dcv, `example.com. CAA 0 issue "letsencrypt.org; validationmethods=http-01,tls-alpn-01"`}}},
			reason: fleet.ReasonCAAForbidden, says: []string{"example.com allows letsencrypt.org only by http-01,tls-alpn-01"},
		},
		{
			name: "CAA allows another's account", world: &universe{servers: map[string][]string{"127.0.0.1": {dcv, `example.com. CAA 0 issue "letsencrypt.org; accounturi=https://ca.example/acct/2"`}}},
			reason: fleet.ReasonCAAForbidden, says: []string{"only for the account https://ca.example/acct/2"},
		},
		{name: "CAA allows our account", world: &universe{servers: map[string][]string{"127.0.0.1": {dcv, `example.com. CAA 0 issue "letsencrypt.org; accounturi=https://ca.example/acct/1"`}}}},
		{
			name: "CAA allows nobody", world: &universe{servers: map[string][]string{"127.0.0.1": {dcv, `api.example.com. CAA 0 issue ";"`, `example.com. CAA 0 issue "letsencrypt.org"`}}},
			reason: fleet.ReasonCAAForbidden, says: []string{"api.example.com allows no certificate authority"}, do: `add api.example.com CAA 0 issue "letsencrypt.org"`,
		},
		{name: "CAA about mail only allows", world: &universe{servers: map[string][]string{"127.0.0.1": {dcv, `example.com. CAA 0 iodef "mailto:a@example.com"`}}}},
		{
			name: "a critical property that nobody knows", world: &universe{servers: map[string][]string{"127.0.0.1": {dcv, `example.com. CAA 128 tbs "unknown"`}}},
			reason: fleet.ReasonCAAForbidden, says: []string{`critical CAA property "tbs"`},
		},
		{
			name: "CAA is behind a CNAME", via: fleet.ChallengeHTTP01, world: &universe{servers: map[string][]string{"127.0.0.1": {traffic, edges, `x.edge.example. CAA 0 issue "other.example"`, `example.com. CAA 0 issue "letsencrypt.org"`}}},
			reason: fleet.ReasonCAAForbidden, says: []string{"x.edge.example allows only other.example"},
		},
		{
			name: "CAA cannot be looked up", world: &universe{servers: map[string][]string{"127.0.0.1": {dcv}}, rcodes: map[string]int{"127.0.0.1 CAA api.example.com.": dns.RcodeServerFailure}},
			reason: fleet.ReasonCAALookupFailed, says: []string{"SERVFAIL for api.example.com CAA"}, do: "answer questions for CAA",
		},
		{
			name: "signatures that do not verify", world: &universe{servers: map[string][]string{"127.0.0.1": {dcv}}, bogus: "example.com."},
			reason: fleet.ReasonDNSSECBogus, says: []string{"does not validate"}, do: "DS record",
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tc.world.t = t
			if tc.via == "" {
				tc.via = fleet.ChallengeDNS01
			}
			h := fleet.Host{Name: "api.example.com", Desired: fleet.HostDesired{Label: "x"}}
			v, err := tc.world.start().Preflight(t.Context(), h, zone, edge, tc.via, pebble)
			if err != nil {
				t.Fatal(err)
			}
			if v.OK != (tc.reason == "") || v.Reason != tc.reason || !strings.Contains(v.Action, tc.do) {
				t.Fatalf("%+v", v)
			}
			for _, s := range tc.says {
				if !strings.Contains(v.Message, s) {
					t.Errorf("%q is not in %q", s, v.Message)
				}
			}
		})
	}
}

func TestWildcardsFollowIssuewild(t *testing.T) {
	u := universe{t: t, servers: map[string][]string{"127.0.0.1": {
		`a.example. CAA 0 issue "letsencrypt.org"`, `b.example. CAA 0 issue "letsencrypt.org"`, `b.example. CAA 0 issuewild "other.example"`,
	}}}
	r := u.start()
	var got []string
	for _, n := range []fleet.HostName{"*.a.example", "*.b.example", "b.example"} {
		got = append(got, string(n)+" "+r.CAA(t.Context(), n, fleet.ChallengeDNS01, pebble).Message)
	}
	want := []string{"*.a.example ", "*.b.example b.example allows only other.example", "b.example "}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestThePortWhereTheAuthorityLooksIsTried(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.21:0")
	if err != nil {
		t.Fatal(err)
	}
	u := universe{t: t, servers: map[string][]string{"127.0.0.1": {"api.example.com. A 127.0.0.21"}}}
	r := u.start()
	h := fleet.Host{Name: "api.example.com", Desired: fleet.HostDesired{Label: "x"}}
	look := func(via fleet.ChallengeType) fleet.DNSVerdict {
		v, err := r.Preflight(t.Context(), h, zone, []netip.Addr{netip.MustParseAddr("127.0.0.21")}, via, fleet.CAIdentity{})
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	open, closed := l.Addr().(*net.TCPAddr).AddrPort().Port(), uint16(1)
	r.HTTPPort, r.HTTPSPort = open, closed
	if v := look(fleet.ChallengeHTTP01); !v.OK {
		t.Errorf("port 80 is open: %+v", v)
	}
	refused := look(fleet.ChallengeTLSALPN01)
	r.HTTPPort, r.HTTPSPort = closed, open
	if v := look(fleet.ChallengeTLSALPN01); !v.OK {
		t.Errorf("port 443 is open: %+v", v)
	}
	for name, v := range map[string]fleet.DNSVerdict{"port 443 is closed": refused, "port 80 is closed": look(fleet.ChallengeHTTP01)} {
		if v.Reason != fleet.ReasonHTTPUnreachable || !strings.Contains(v.Message, "port 1 of the edge 127.0.0.21 does not answer") || !strings.Contains(v.Action, "x.dcv.edge.example") {
			t.Errorf("%s: %+v", name, v)
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if v := look(fleet.ChallengeTLSALPN01); v.Reason != fleet.ReasonHTTPUnreachable {
		t.Errorf("nobody listens any more: %+v", v)
	}
}

func TestNameServersInsideOurNetworkAreNotAsked(t *testing.T) {
	u := universe{t: t, servers: map[string][]string{"127.0.0.1": with(dcv), "127.0.0.2": {}, "127.0.0.3": {}}}
	r := u.start()
	r.Private = nil
	v, err := r.Preflight(t.Context(), fleet.Host{Name: "api.example.com", Desired: fleet.HostDesired{Label: "x"}}, zone, edge, fleet.ChallengeDNS01, fleet.CAIdentity{})
	if err != nil || !v.OK || u.asked.Load() != 0 {
		t.Errorf("%+v, %v, %d questions", v, err, u.asked.Load())
	}
}

func TestAnotherCDNIsNamed(t *testing.T) {
	for name, records := range map[string][]string{
		"Cloudflare": {"api.example.com. A 104.16.1.1", "api.example.com. AAAA 2606:4700::1"}, "Amazon CloudFront": {"api.example.com. CNAME d1.cloudfront.net.", "d1.cloudfront.net. A 203.0.113.9"},
	} {
		r := check.Resolver{Servers: []string{resolver(t, false, records...)}}
		got, err := r.CheckHost(t.Context(), fleet.Host{Name: "api.example.com", Desired: fleet.HostDesired{Label: "x"}}, zone, edge)
		if err != nil || got.Traffic.Reason != fleet.ReasonDNSProxied || !strings.Contains(got.Traffic.Message, name) || !strings.Contains(got.Traffic.Action, "x.edge.example") {
			t.Errorf("%+v, %v", got.Traffic, err)
		}
	}
}
