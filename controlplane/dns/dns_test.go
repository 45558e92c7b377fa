package dns_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	mdns "github.com/miekg/dns"

	"github.com/google/go-cmp/cmp"

	"github.com/edgefleet/edgefleet/controlplane/dns"
	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/observability"
)

const zone = "edge.example"

// fixed is a Source of a zone that does not change.
type fixed struct {
	labels map[string][]dns.Edge
	dcv    map[string][]string
	// old: it does not know the newest challenges.
	old bool
	caa []string
}

func (f fixed) Apex() dns.Apex {
	return dns.Apex{Zone: zone, Serial: 42, CAA: f.caa, Servers: []dns.NameServer{
		{Name: "m1.ns." + zone, Addr: netip.MustParseAddr("192.0.2.1")},
		{Name: "m2.ns." + zone, Addr: netip.MustParseAddr("192.0.2.2")},
		{Name: "m2.ns." + zone, Addr: netip.MustParseAddr("2001:db8::2")},
		{Name: "ns.example.net"},
	}}
}

func (f fixed) Zone() fleet.HostName { return zone }

func (f fixed) Label(label string) ([]dns.Edge, bool) {
	if label == "panics" {
		panic("boom")
	}
	a, ok := f.labels[label]
	return a, ok
}

func (f fixed) DCV(label string) (values []string, ok, current bool) {
	v, ok := f.dcv[label]
	return v, ok, !f.old
}

func (f fixed) Labels() iter.Seq[string] { return maps.Keys(f.labels) }

func edge(weight int, addrs ...string) dns.Edge {
	e := dns.Edge{Weight: weight}
	for _, a := range addrs {
		e.Addrs = append(e.Addrs, netip.MustParseAddr(a))
	}
	return e
}

func many(n int) []dns.Edge {
	var out []dns.Edge
	for i := range n {
		out = append(out, dns.Edge{Addrs: []netip.Addr{netip.AddrFrom4([4]byte{198, 51, 100, byte(i)})}, Weight: 10})
	}
	return out
}

func content() fixed {
	return fixed{
		labels: map[string][]dns.Edge{
			"abc":   {edge(10, "198.51.100.7", "2001:db8::7")},
			"empty": nil,
			"many":  many(40),
		},
		dcv: map[string][]string{"abc": {"token-value", strings.Repeat("x", 300)}, "empty": nil, "big": slices.Repeat([]string{strings.Repeat("y", 200)}, 30)},
	}
}

func start(t *testing.T, o dns.Options) *dns.Server {
	t.Helper()
	o.Listen, o.Telemetry = "127.0.0.1:0", observability.Discard()
	if o.Source == nil {
		o.Source = content()
	}
	s, err := dns.Listen(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
		if u := o.Telemetry.Undeclared(); len(u) > 0 {
			t.Error(u)
		}
	})
	return s
}

func ask(t *testing.T, s *dns.Server, network string, req *mdns.Msg) *mdns.Msg {
	t.Helper()
	c := mdns.Client{Net: network, Timeout: 5 * time.Second}
	m, _, err := c.ExchangeContext(t.Context(), req, s.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func question(name string, qtype uint16) *mdns.Msg {
	return new(mdns.Msg).SetQuestion(name, qtype)
}

// show writes a response as its code, flags and records without TTLs.
func show(m *mdns.Msg) []string {
	head := mdns.RcodeToString[m.Rcode]
	if m.Authoritative {
		head += " aa"
	}
	if m.Truncated {
		head += " tc"
	}
	out := []string{head}
	for name, section := range map[string][]mdns.RR{"an": m.Answer, "ns": m.Ns, "ar": m.Extra} {
		for _, rr := range section {
			if rr.Header().Rrtype != mdns.TypeOPT {
				out = append(out, fmt.Sprintf("%s %s %s %s", name, rr.Header().Name, mdns.TypeToString[rr.Header().Rrtype], strings.TrimPrefix(rr.String(), rr.Header().String())))
			}
		}
	}
	slices.Sort(out[1:])
	return out
}

func TestAnswers(t *testing.T) {
	s := start(t, dns.Options{})
	negative := "ns edge.example. SOA m1.ns.edge.example. hostmaster.edge.example. 42 600 60 604800 20"
	for _, tc := range []struct {
		name, qname string
		qtype       uint16
		want        []string
	}{
		{"the A record of a label", "abc.edge.example.", mdns.TypeA, []string{"NOERROR aa", "an abc.edge.example. A 198.51.100.7"}},
		{"the AAAA record of a label", "abc.edge.example.", mdns.TypeAAAA, []string{"NOERROR aa", "an abc.edge.example. AAAA 2001:db8::7"}},
		{"the spelling of the question is kept", "aBc.EDGE.example.", mdns.TypeA, []string{"NOERROR aa", "an aBc.EDGE.example. A 198.51.100.7"}},
		{"a type that a label does not have", "abc.edge.example.", mdns.TypeMX, []string{"NOERROR aa", negative}},
		{"a label without healthy edges exists", "empty.edge.example.", mdns.TypeA, []string{"NOERROR aa", negative}},
		{"a label that was never issued", "nope.edge.example.", mdns.TypeA, []string{"NXDOMAIN aa", negative}},
		{"a name below a label", "x.abc.edge.example.", mdns.TypeA, []string{"NXDOMAIN aa", negative}},
		{"the answers to challenges", "abc.dcv.edge.example.", mdns.TypeTXT, []string{
			"NOERROR aa", `an abc.dcv.edge.example. TXT "token-value"`, `an abc.dcv.edge.example. TXT "` + strings.Repeat("x", 255) + `" "` + strings.Repeat("x", 45) + `"`,
		}},
		{"no challenge is pending", "empty.dcv.edge.example.", mdns.TypeTXT, []string{"NOERROR aa", negative}},
		{"a DCV name has no address", "abc.dcv.edge.example.", mdns.TypeA, []string{"NOERROR aa", negative}},
		{"an unknown DCV name", "nope.dcv.edge.example.", mdns.TypeTXT, []string{"NXDOMAIN aa", negative}},
		{"the parent of DCV names exists", "dcv.edge.example.", mdns.TypeTXT, []string{"NOERROR aa", negative}},
		{"the SOA", "edge.example.", mdns.TypeSOA, []string{"NOERROR aa", "an " + negative[3:]}},
		{"the name servers with their addresses", "edge.example.", mdns.TypeNS, []string{
			"NOERROR aa", "an edge.example. NS m1.ns.edge.example.", "an edge.example. NS m2.ns.edge.example.", "an edge.example. NS ns.example.net.",
			"ar m1.ns.edge.example. A 192.0.2.1", "ar m2.ns.edge.example. A 192.0.2.2", "ar m2.ns.edge.example. AAAA 2001:db8::2",
		}},
		{"the apex has no address", "edge.example.", mdns.TypeA, []string{"NOERROR aa", negative}},
		{"the address of a name server", "m2.ns.edge.example.", mdns.TypeAAAA, []string{"NOERROR aa", "an m2.ns.edge.example. AAAA 2001:db8::2"}},
		{"the parent of the name servers exists", "ns.edge.example.", mdns.TypeA, []string{"NOERROR aa", negative}},
		{"a name server that is none", "m9.ns.edge.example.", mdns.TypeA, []string{"NXDOMAIN aa", negative}},
		{"no CAA is published where none is configured", "abc.edge.example.", mdns.TypeCAA, []string{"NOERROR aa", negative}},
		{"ANY gets the least", "abc.edge.example.", mdns.TypeANY, []string{"NOERROR aa", `an abc.edge.example. HINFO "RFC8482" ""`}},
		{"ANY of a missing name", "nope.edge.example.", mdns.TypeANY, []string{"NXDOMAIN aa", negative}},
		{"another zone", "www.example.com.", mdns.TypeA, []string{"REFUSED"}},
		{"a zone that ends alike", "xedge.example.", mdns.TypeA, []string{"REFUSED"}},
		{"the root", ".", mdns.TypeNS, []string{"REFUSED"}},
		{"a panic costs one answer", "panics.edge.example.", mdns.TypeA, []string{"SERVFAIL"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			for _, network := range []string{"udp", "tcp"} {
				req := question(tc.qname, tc.qtype)
				req.SetEdns0(4096, false)
				if d := cmp.Diff(tc.want, show(ask(t, s, network, req))); d != "" {
					t.Errorf("%s: %s", network, d)
				}
			}
		})
	}
}

func TestRefusals(t *testing.T) {
	s := start(t, dns.Options{})
	axfr := question("edge.example.", mdns.TypeAXFR)
	if m := ask(t, s, "tcp", axfr); m.Rcode != mdns.RcodeRefused {
		t.Errorf("AXFR: %v", m)
	}
	chaos := question("version.bind.", mdns.TypeTXT)
	chaos.Question[0].Qclass = mdns.ClassCHAOS
	if m := ask(t, s, "udp", chaos); m.Rcode != mdns.RcodeRefused {
		t.Errorf("CHAOS: %v", m)
	}
	update := new(mdns.Msg).SetUpdate("edge.example.")
	if m := ask(t, s, "udp", update); m.Rcode != mdns.RcodeNotImplemented {
		t.Errorf("UPDATE: %v", m)
	}
	version := question("abc.edge.example.", mdns.TypeA)
	version.SetEdns0(1232, false)
	version.IsEdns0().SetVersion(1)
	if m := ask(t, s, "udp", version); m.Rcode != mdns.RcodeBadVers || len(m.Answer) > 0 {
		t.Errorf("EDNS version 1: %v", m)
	}
}

// unborn is the Source of a cluster that was not initialised.
type unborn struct{ fixed }

func (unborn) Apex() dns.Apex { return dns.Apex{} }

func TestWithoutAZoneEverythingIsRefused(t *testing.T) {
	for _, name := range []string{".", "abc.edge.example."} {
		if m := dns.Respond(unborn{content()}, question(name, mdns.TypeA), true); m.Rcode != mdns.RcodeRefused || m.Authoritative {
			t.Errorf("%s: %v", name, m)
		}
	}
}

func TestBigAnswersAreTruncatedByUDPAndWholeByTCP(t *testing.T) {
	s := start(t, dns.Options{})
	req := question("big.dcv.edge.example.", mdns.TypeTXT)
	if m := ask(t, s, "udp", req); !m.Truncated || m.Len() > 512 {
		t.Errorf("without EDNS: %d bytes, truncated %v", m.Len(), m.Truncated)
	}
	req.SetEdns0(4096, false)
	m := ask(t, s, "udp", req)
	if !m.Truncated || m.Len() > 1232 || m.Len() < 512 || m.IsEdns0() == nil {
		t.Errorf("with EDNS: %d bytes, truncated %v", m.Len(), m.Truncated)
	}
	if m := ask(t, s, "tcp", req); m.Truncated || len(m.Answer) != 30 {
		t.Errorf("by TCP: %d records, truncated %v", len(m.Answer), m.Truncated)
	}
}

func TestALargeFleetShowsARandomChoice(t *testing.T) {
	seen := map[string]bool{}
	for range 50 {
		m := dns.Respond(content(), question("many.edge.example.", mdns.TypeA), true)
		if len(m.Answer) != 16 || m.Truncated {
			t.Fatalf("%d records, truncated %v", len(m.Answer), m.Truncated)
		}
		for _, rr := range m.Answer {
			seen[rr.String()] = true
		}
	}
	if len(seen) != 40 {
		t.Errorf("50 answers showed %d of 40 edges", len(seen))
	}
}

func TestUDPClientsOverTheirRateGetTruncationOrNothing(t *testing.T) {
	s := start(t, dns.Options{RateLimit: 5})
	c := mdns.Client{Timeout: 100 * time.Millisecond}
	answered, truncated, dropped := 0, 0, 0
	for range 40 {
		m, _, err := c.ExchangeContext(t.Context(), question("abc.edge.example.", mdns.TypeA), s.Addr().String())
		switch {
		case err != nil:
			dropped++
		case m.Truncated && len(m.Answer) == 0:
			truncated++
		default:
			answered++
		}
	}
	if answered < 10 || truncated == 0 || dropped == 0 {
		t.Errorf("answered %d, truncated %d, dropped %d", answered, truncated, dropped)
	}
	if m := ask(t, s, "tcp", question("abc.edge.example.", mdns.TypeA)); len(m.Answer) != 1 {
		t.Error("TCP must still answer")
	}
}

func TestNetworksThatAreListedHaveNoRateLimit(t *testing.T) {
	s := start(t, dns.Options{RateLimit: 1, MaxRate: 1, Unlimited: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}})
	for range 40 {
		if m := ask(t, s, "udp", question("abc.edge.example.", mdns.TypeA)); len(m.Answer) != 1 {
			t.Fatalf("%v", m)
		}
	}
}

func TestATakenPortSaysWhatToDo(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = taken.Close() }()
	_, err = dns.Listen(dns.Options{Listen: taken.Addr().String(), Source: content(), Telemetry: observability.Discard()})
	if !errors.Is(err, fleet.ErrConflict) || !strings.Contains(err.Error(), "systemd-resolved") || !strings.Contains(err.Error(), taken.Addr().String()) {
		t.Errorf("%v", err)
	}
	udp, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = udp.Close() }()
	if _, err = dns.Listen(dns.Options{Listen: udp.LocalAddr().String(), Source: content(), Telemetry: observability.Discard()}); !errors.Is(err, fleet.ErrConflict) {
		t.Errorf("taken for UDP only: %v", err)
	}
}

func TestOnlyOurCAsMayIssueForWhatPointsHere(t *testing.T) {
	src := content()
	src.caa = []string{"ca.example; accounturi=https://ca.example/acct/1", "other.example"}
	for _, name := range []string{"edge.example.", "abc.edge.example.", "empty.edge.example."} {
		m := dns.Respond(src, question(name, mdns.TypeCAA), true)
		var got []string
		for _, rr := range m.Answer {
			c, _ := rr.(*mdns.CAA)
			got = append(got, fmt.Sprint(c.Flag, " ", c.Tag, " ", c.Value))
		}
		if d := cmp.Diff([]string{"0 issue ca.example; accounturi=https://ca.example/acct/1", "0 issue other.example"}, got); d != "" {
			t.Errorf("%s: %s", name, d)
		}
	}
	if m := dns.Respond(src, question("abc.edge.example.", mdns.TypeA), true); len(m.Answer) != 1 {
		t.Errorf("an address: %v", m.Answer)
	}
}

func TestAMemberThatMayNotKnowTheNewestChallengesLeavesThemToOthers(t *testing.T) {
	src := content()
	src.old = true
	for _, name := range []string{"abc.dcv.edge.example.", "nope.dcv.edge.example."} {
		if m := dns.Respond(src, question(name, mdns.TypeTXT), true); m.Rcode != mdns.RcodeServerFailure || m.Authoritative {
			t.Errorf("%s: %v", name, m)
		}
	}
	if m := dns.Respond(src, question("abc.edge.example.", mdns.TypeA), true); len(m.Answer) != 1 {
		t.Errorf("addresses are answered all the same: %v", m)
	}
}

func TestAnEdgesWeightIsItsChanceToBeInAnAnswer(t *testing.T) {
	src := fixed{labels: map[string][]dns.Edge{"abc": {edge(100, "198.51.100.1"), edge(25, "198.51.100.2"), edge(1, "198.51.100.3")}}}
	seen := map[string]int{}
	const n = 4000
	for range n {
		for _, rr := range dns.Respond(src, question("abc.edge.example.", mdns.TypeA), true).Answer {
			a, _ := rr.(*mdns.A)
			seen[a.A.String()]++
		}
	}
	if got := seen["198.51.100.1"]; got != n {
		t.Errorf("the heaviest is in %d of %d answers", got, n)
	}
	if got := seen["198.51.100.2"]; got < n/4-300 || got > n/4+300 {
		t.Errorf("a quarter of its weight is in %d of %d answers", got, n)
	}
	if got := seen["198.51.100.3"]; got == 0 || got > n/20 {
		t.Errorf("a hundredth of its weight is in %d of %d answers", got, n)
	}
}

// FuzzAnswer holds for every query that can be parsed: the answer fits, packs, repeats question and id, and is not
// authoritative outside the zone.
func FuzzAnswer(f *testing.F) {
	for _, q := range []*mdns.Msg{
		question("abc.edge.example.", mdns.TypeA), question("abc.dcv.edge.example.", mdns.TypeTXT), question("edge.example.", mdns.TypeNS),
		question("many.edge.example.", mdns.TypeANY), question(".", mdns.TypeAXFR), new(mdns.Msg).SetUpdate("edge.example."),
	} {
		q.SetEdns0(1232, true)
		b, err := q.Pack()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b, true)
		f.Add(b, false)
	}
	src := content()
	f.Fuzz(func(t *testing.T, b []byte, udp bool) {
		req := new(mdns.Msg)
		if req.Unpack(b) != nil {
			return
		}
		for _, q := range req.Question {
			if strings.HasPrefix(strings.ToLower(q.Name), "panics.") {
				return
			}
		}
		m := dns.Respond(src, req, udp)
		wire, err := m.Pack()
		if err != nil {
			// A name that unpacks but does not pack again is not ours to answer.
			if m.Authoritative && len(m.Answer) > 0 {
				t.Fatalf("answer does not pack: %v\n%v", err, m)
			}
			return
		}
		if udp && len(wire) > 1232 {
			t.Fatalf("%d bytes by UDP", len(wire))
		}
		if m.Id != req.Id || !m.Response || m.RecursionAvailable {
			t.Fatalf("header %+v", m.MsgHdr)
		}
		if len(req.Question) == 1 && m.Authoritative && !mdns.IsSubDomain("edge.example.", strings.ToLower(req.Question[0].Name)) {
			t.Fatalf("authoritative for %s", req.Question[0].Name)
		}
	})
}
