package check_test

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"

	authority "github.com/edgefleet/edgefleet/controlplane/dns"
	"github.com/edgefleet/edgefleet/controlplane/dns/check"
	"github.com/edgefleet/edgefleet/fleet"
)

// resolver serves records as a recursive resolver would, CNAMEs followed, on loopback. Names below broken. fail.
func resolver(t *testing.T, truncateUDP bool, records ...string) string {
	t.Helper()
	var rrs []dns.RR
	for _, r := range records {
		rr, err := dns.NewRR(r)
		if err != nil {
			t.Fatal(err)
		}
		rrs = append(rrs, rr)
	}
	handler := dns.HandlerFunc(func(w dns.ResponseWriter, req *dns.Msg) {
		m := new(dns.Msg).SetReply(req)
		q := req.Question[0]
		m.Answer = follow(rrs, q.Name, q.Qtype)
		switch {
		case strings.HasSuffix(q.Name, "broken."):
			m.Rcode = dns.RcodeServerFailure
		case len(m.Answer) == 0:
			m.Rcode = dns.RcodeNameError
		}
		if _, udp := w.RemoteAddr().(*net.UDPAddr); udp && truncateUDP {
			m.Answer, m.Truncated = nil, true
		}
		_ = w.WriteMsg(m) // the client sees a missing answer
	})
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	udp, err := net.ListenPacket("udp", tcp.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []*dns.Server{{PacketConn: udp, Handler: handler}, {Listener: tcp, Handler: handler}} {
		started := make(chan struct{})
		s.NotifyStartedFunc = func() { close(started) }
		go func() { _ = s.ActivateAndServe() }()
		<-started
		t.Cleanup(func() { _ = s.Shutdown() })
	}
	return tcp.Addr().String()
}

func follow(rrs []dns.RR, name string, qtype uint16) []dns.RR {
	var out []dns.RR
	for _, rr := range rrs {
		if rr.Header().Name != name {
			continue
		}
		if rr.Header().Rrtype == qtype {
			out = append(out, rr)
		} else if c, ok := rr.(*dns.CNAME); ok {
			out = append(append(out, rr), follow(rrs, c.Target, qtype)...)
		}
	}
	return out
}

const zone = fleet.HostName("edge.example")

var edge = []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2"), netip.MustParseAddr("2001:db8::1")}

func TestCheckHost(t *testing.T) {
	ok := fleet.DNSVerdict{OK: true}
	setDCV, setTraffic := "set _acme-challenge.api.example.com CNAME x.dcv.edge.example", "set api.example.com CNAME x.edge.example"
	noDCV := fleet.DNSVerdict{Reason: fleet.ReasonDNSMissing, Message: "_acme-challenge.api.example.com has no CNAME", Action: setDCV}
	for _, tc := range []struct {
		name    string
		records []string
		want    fleet.DNSFinding
	}{
		{"nothing is set", nil, fleet.DNSFinding{
			Certificate: noDCV,
			Traffic:     fleet.DNSVerdict{Reason: fleet.ReasonDNSMissing, Message: "api.example.com has no CNAME and no address", Action: setTraffic},
		}},
		{"both are set", []string{"_acme-challenge.api.example.com. CNAME X.dcv.Edge.example.", "api.example.com. CNAME x.edge.example."}, fleet.DNSFinding{Certificate: ok, Traffic: ok}},
		{"both are set through other names", []string{
			"_acme-challenge.api.example.com. CNAME a.example.com.", "a.example.com. CNAME x.dcv.edge.example.",
			"api.example.com. CNAME b.example.com.", "b.example.com. CNAME x.edge.example.",
		}, fleet.DNSFinding{Certificate: ok, Traffic: ok}},
		{"both lead elsewhere", []string{"_acme-challenge.api.example.com. CNAME y.dcv.edge.example.", "api.example.com. CNAME old.cdn.example.", "old.cdn.example. A 203.0.113.1"}, fleet.DNSFinding{
			Certificate: fleet.DNSVerdict{Reason: fleet.ReasonDNSWrongTarget, Message: "_acme-challenge.api.example.com is a CNAME to y.dcv.edge.example", Action: setDCV},
			Traffic:     fleet.DNSVerdict{Reason: fleet.ReasonDNSWrongTarget, Message: "api.example.com is a CNAME to old.cdn.example", Action: setTraffic},
		}},
		{"a CNAME to nowhere", []string{"api.example.com. CNAME gone.example."}, fleet.DNSFinding{
			Certificate: noDCV,
			Traffic:     fleet.DNSVerdict{Reason: fleet.ReasonDNSWrongTarget, Message: "api.example.com is a CNAME to gone.example, which has no address", Action: setTraffic},
		}},
		{"an apex with some of the edge's addresses", []string{"api.example.com. A 192.0.2.1", "api.example.com. AAAA 2001:db8::1"}, fleet.DNSFinding{Certificate: noDCV, Traffic: ok}},
		{"the origin's address", []string{"api.example.com. A 203.0.113.1"}, fleet.DNSFinding{
			Certificate: noDCV,
			Traffic:     fleet.DNSVerdict{Reason: fleet.ReasonDNSWrongTarget, Message: "api.example.com has the addresses 203.0.113.1, which are not the edge's", Action: setTraffic},
		}},
		{"the edge's address and the origin's", []string{"api.example.com. A 192.0.2.1", "api.example.com. A 203.0.113.1"}, fleet.DNSFinding{
			Certificate: noDCV,
			Traffic:     fleet.DNSVerdict{Reason: fleet.ReasonDNSPartial, Message: "api.example.com has addresses of the edge and others: 203.0.113.1", Action: "remove 203.0.113.1, or " + setTraffic},
		}},
		{"a forgotten AAAA record", []string{"api.example.com. A 192.0.2.1", "api.example.com. AAAA 2001:db8::bad"}, fleet.DNSFinding{
			Certificate: noDCV,
			Traffic:     fleet.DNSVerdict{Reason: fleet.ReasonDNSConflictAAAA, Message: "api.example.com has the edge's IPv4 addresses, but its AAAA record 2001:db8::bad is not the edge's", Action: "remove api.example.com AAAA 2001:db8::bad"},
		}},
	} {
		for _, transport := range []string{"udp", "tcp"} {
			t.Run(tc.name+" by "+transport, func(t *testing.T) {
				r := check.Resolver{Servers: []string{resolver(t, transport == "tcp", tc.records...)}}
				h := fleet.Host{Name: "api.example.com", Desired: fleet.HostDesired{Label: "x"}}
				got, err := r.CheckHost(t.Context(), h, zone, edge)
				if err != nil {
					t.Fatal(err)
				}
				if d := cmp.Diff(tc.want, got); d != "" {
					t.Error(d)
				}
			})
		}
	}
}

func TestServfail(t *testing.T) {
	r := check.Resolver{Servers: []string{resolver(t, false)}}
	got, err := r.CheckHost(t.Context(), fleet.Host{Name: "api.broken", Desired: fleet.HostDesired{Label: "x"}}, zone, edge)
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range []fleet.DNSVerdict{got.Certificate, got.Traffic} {
		if v.OK || v.Reason != fleet.ReasonDNSServfail || !strings.Contains(v.Message, "SERVFAIL") {
			t.Errorf("%+v", v)
		}
	}
	loop := check.Resolver{Servers: []string{resolver(t, false, "_acme-challenge.api.example.com. CNAME _acme-challenge.api.example.com.")}}
	got, err = loop.CheckHost(t.Context(), fleet.Host{Name: "api.example.com", Desired: fleet.HostDesired{Label: "x"}}, zone, edge)
	if err != nil || got.Certificate.Reason != fleet.ReasonDNSServfail || !strings.Contains(got.Certificate.Message, "CNAMEs in a row") {
		t.Errorf("a loop: %+v, %v", got, err)
	}
}

func TestTheNextResolverIsAskedWhenOneIsAway(t *testing.T) {
	gone, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	away := gone.LocalAddr().String()
	if err := gone.Close(); err != nil {
		t.Fatal(err)
	}
	r := check.Resolver{Servers: []string{away, resolver(t, false, "api.example.com. CNAME x.edge.example.")}}
	got, err := r.CheckHost(t.Context(), fleet.Host{Name: "api.example.com", Desired: fleet.HostDesired{Label: "x"}}, zone, edge)
	if err != nil || !got.Traffic.OK {
		t.Errorf("%+v, %v", got, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := r.CheckHost(ctx, fleet.Host{Name: "api.example.com"}, zone, edge); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	none := check.Resolver{}
	if got, err := none.CheckHost(t.Context(), fleet.Host{Name: "api.example.com"}, zone, edge); err != nil || !strings.Contains(got.Traffic.Message, "dns_resolvers") {
		t.Errorf("no resolvers: %+v, %v", got, err)
	}
}

func TestCheckDelegation(t *testing.T) {
	want := []authority.NameServer{{Name: "ns1.edge.example", Addr: netip.MustParseAddr("192.0.2.1")}, {Name: "ns2.edge.example", Addr: netip.MustParseAddr("2001:db8::2")}}
	set := "set in the zone example: edge.example NS ns1.edge.example; ns1.edge.example A 192.0.2.1; edge.example NS ns2.edge.example; ns2.edge.example AAAA 2001:db8::2"
	for _, tc := range []struct {
		name    string
		records []string
		state   fleet.CheckState
		detail  string
	}{
		{"to us", []string{"edge.example. NS ns2.edge.example.", "edge.example. NS NS1.edge.example."}, fleet.CheckOK, "edge.example is delegated to ns1.edge.example, ns2.edge.example"},
		{"to nobody", nil, fleet.CheckFail, "edge.example is not delegated; " + set},
		{"to others", []string{"edge.example. NS ns1.edge.example.", "edge.example. NS ns.old.example."}, fleet.CheckFail, "edge.example is delegated to ns.old.example, ns1.edge.example; " + set},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := check.Resolver{Servers: []string{resolver(t, false, tc.records...)}}
			got := r.CheckDelegation(t.Context(), zone, want)
			if d := cmp.Diff(fleet.Check{Name: "edge zone delegation", State: tc.state, Detail: tc.detail}, got); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestSystemResolvers(t *testing.T) {
	path := filepath.Join(t.TempDir(), "resolv.conf")
	if err := os.WriteFile(path, []byte("nameserver 192.0.2.53\nnameserver 2001:db8::53\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	r, err := check.System(path)
	if err != nil || !slices.Equal(r.Servers, []string{"192.0.2.53:53", "[2001:db8::53]:53"}) {
		t.Errorf("%+v, %v", r, err)
	}
	if _, err := check.System(path + ".not"); err == nil {
		t.Error("a missing file is no error")
	}
}

func TestAWildcardIsLookedAtByANameBelowIt(t *testing.T) {
	r := check.Resolver{Servers: []string{resolver(t, false, "_acme-challenge.shop.example.com. CNAME x.dcv.edge.example.", "edgefleet-check.shop.example.com. CNAME x.edge.example.")}}
	h := fleet.Host{Name: "*.shop.example.com", Desired: fleet.HostDesired{Label: "x"}}
	got, err := r.CheckHost(t.Context(), h, zone, edge)
	want := fleet.DNSFinding{Certificate: fleet.DNSVerdict{OK: true}, Traffic: fleet.DNSVerdict{OK: true}, DNSOnly: true}
	if d := cmp.Diff(want, got); err != nil || d != "" {
		t.Error(err, d)
	}
	h.Desired.Label = "y"
	got, err = r.CheckHost(t.Context(), h, zone, edge)
	records := []fleet.Record{
		{Purpose: "certificate", Name: "_acme-challenge.shop.example.com", Type: "CNAME", Value: "y.dcv.edge.example"},
		{Purpose: "traffic", Name: "*.shop.example.com", Type: "CNAME", Value: "y.edge.example"},
	}
	if d := cmp.Diff(records, h.Records(zone)); err != nil || d != "" || got.Traffic.Action != "set *.shop.example.com CNAME y.edge.example" {
		t.Errorf("%v %s %+v", err, d, got)
	}
}
