package devfleet_test

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"

	"github.com/edgefleet/edgefleet/deploy/devfleet"
	"github.com/edgefleet/edgefleet/fleet"
	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"
)

// startMember serves a real, small zone as a member would, and returns its address.
func startMember(t *testing.T, records ...string) string {
	t.Helper()
	zone := map[string][]dns.RR{}
	for _, r := range records {
		rr, err := dns.NewRR(r)
		if err != nil {
			t.Fatal(err)
		}
		key := rr.Header().Name + dns.TypeToString[rr.Header().Rrtype]
		zone[key] = append(zone[key], rr)
	}
	pc, err := (&net.ListenConfig{}).ListenPacket(t.Context(), "udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ready := make(chan struct{})
	srv := &dns.Server{PacketConn: pc, NotifyStartedFunc: func() { close(ready) }, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg)
		m.SetReply(q)
		m.Answer = zone[q.Question[0].Name+dns.TypeToString[q.Question[0].Qtype]]
		if len(m.Answer) == 0 {
			m.Rcode = dns.RcodeNameError
		}
		_ = w.WriteMsg(m) // the test sees the lack of an answer
	})}
	done := make(chan error, 1)
	go func() { done <- srv.ActivateAndServe() }()
	<-ready
	t.Cleanup(func() {
		if err := errors.Join(srv.Shutdown(), <-done); err != nil {
			t.Error(err)
		}
	})
	return pc.LocalAddr().String()
}

func startDNS(t *testing.T, d devfleet.DNS) string {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	// TCP and UDP share the port, so the address is fixed by a listener that is closed again.
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	ready, done := make(chan struct{}), make(chan error, 1)
	go func() { done <- d.Run(ctx, addr, func() { close(ready) }) }()
	select {
	case <-ready:
	case err := <-done:
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return addr
}

// ask returns the code and the answers, each as "name TYPE value".
func ask(t *testing.T, network, addr, name string, kind uint16) (string, []string) {
	t.Helper()
	q := new(dns.Msg)
	q.SetQuestion(dns.Fqdn(name), kind)
	in, _, err := (&dns.Client{Net: network}).ExchangeContext(t.Context(), q, addr)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, rr := range in.Answer {
		f := strings.Fields(rr.String())
		got = append(got, f[0]+" "+strings.Join(f[3:], " "))
	}
	return dns.RcodeToString[in.Rcode], got
}

// deadAddress is a UDP address at which nobody listens.
func deadAddress(t *testing.T) string {
	t.Helper()
	pc, err := (&net.ListenConfig{}).ListenPacket(t.Context(), "udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = pc.Close() }()
	return pc.LocalAddr().String()
}

func TestCustomerDNSAnswersWithTheWholeChain(t *testing.T) {
	member := startMember(t,
		"l1.edge.example. 5 IN A 127.0.2.1", "l1.edge.example. 5 IN A 127.0.2.2",
		`l1.dcv.edge.example. 5 IN TXT "proof"`,
		"hop.edge.example. 5 IN CNAME back.shop.example.", "hop.edge.example. 5 IN A 127.0.0.9")
	d, err := devfleet.NewDNS("edge.example", deadAddress(t), member)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range [][]string{
		{"api.shop.example", "CNAME", "l1.edge.example"},
		{"_acme-challenge.api.shop.example", "CNAME", "L1.dcv.edge.example."},
		{"www.shop.example", "cname", "api.shop.example"},
		{"shop.example", "A", "192.0.2.1", "192.0.2.2"},
		{"shop.example", "CAA", `0 issue "letsencrypt.org"`},
		{"shop.example", "TXT", "hello world"},
		{"loop.shop.example", "CNAME", "loop.shop.example"},
		{"gone.shop.example", "CNAME", "nothing.edge.example"},
	} {
		if err := d.Set(r[0], r[1], r[2:]...); err != nil {
			t.Fatal(err)
		}
	}
	addr := startDNS(t, d)
	for name, tc := range map[string]struct {
		ask  string
		kind uint16
		code string
		want []string
	}{
		"a record that was set":                      {"shop.example", dns.TypeA, "NOERROR", []string{"shop.example. A 192.0.2.1", "shop.example. A 192.0.2.2"}},
		"any letter case":                            {"SHOP.example", dns.TypeCAA, "NOERROR", []string{`shop.example. CAA 0 issue "letsencrypt.org"`}},
		"text with spaces":                           {"shop.example", dns.TypeTXT, "NOERROR", []string{`shop.example. TXT "hello world"`}},
		"no record of that type":                     {"shop.example", dns.TypeAAAA, "NOERROR", nil},
		"a name between others":                      {"example", dns.TypeA, "NOERROR", nil},
		"no such name":                               {"other.test", dns.TypeA, "NXDOMAIN", nil},
		"a CNAME into the edge zone, one member off": {"api.shop.example", dns.TypeA, "NOERROR", []string{"api.shop.example. CNAME l1.edge.example.", "l1.edge.example. A 127.0.2.1", "l1.edge.example. A 127.0.2.2"}},
		"two CNAMEs":                                 {"www.shop.example", dns.TypeA, "NOERROR", []string{"www.shop.example. CNAME api.shop.example.", "api.shop.example. CNAME l1.edge.example.", "l1.edge.example. A 127.0.2.1", "l1.edge.example. A 127.0.2.2"}},
		"the CNAME itself":                           {"api.shop.example", dns.TypeCNAME, "NOERROR", []string{"api.shop.example. CNAME l1.edge.example."}},
		"a challenge":                                {"_acme-challenge.api.shop.example", dns.TypeTXT, "NOERROR", []string{"_acme-challenge.api.shop.example. CNAME L1.dcv.edge.example.", `l1.dcv.edge.example. TXT "proof"`}},
		"a CNAME to nothing":                         {"gone.shop.example", dns.TypeA, "NXDOMAIN", []string{"gone.shop.example. CNAME nothing.edge.example."}},
		"the delegation":                             {"edge.example", dns.TypeNS, "NOERROR", []string{"edge.example. NS m1.ns.edge.example.", "edge.example. NS m2.ns.edge.example."}},
		"the address of a name server":               {"m2.ns.edge.example", dns.TypeA, "NOERROR", []string{"m2.ns.edge.example. A 127.0.0.1"}},
	} {
		t.Run(name, func(t *testing.T) {
			for _, network := range []string{"udp", "tcp"} {
				code, got := ask(t, network, addr, tc.ask, tc.kind)
				if code != tc.code {
					t.Errorf("%s: code %s, wanted %s", network, code, tc.code)
				}
				if diff := cmp.Diff(tc.want, got); diff != "" {
					t.Errorf("%s: answers (-want +got):\n%s", network, diff)
				}
			}
		})
	}
	if code, _ := ask(t, "udp", addr, "loop.shop.example", dns.TypeA); code != "SERVFAIL" {
		t.Errorf("a loop of CNAMEs: code %s, wanted SERVFAIL", code)
	}
}

func TestCustomerDNSWithoutMembersStillAnswersForTheCustomer(t *testing.T) {
	d, err := devfleet.NewDNS("edge.example", deadAddress(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Set("shop.example", "A", "192.0.2.1"); err != nil {
		t.Fatal(err)
	}
	addr := startDNS(t, d)
	if code, _ := ask(t, "udp", addr, "l1.edge.example", dns.TypeA); code != "SERVFAIL" {
		t.Errorf("edge zone: code %s, wanted SERVFAIL", code)
	}
	if code, _ := ask(t, "udp", addr, "shop.example", dns.TypeA); code != "NOERROR" {
		t.Errorf("customer: code %s, wanted NOERROR", code)
	}
}

func TestCustomerDNSRefusesWhatIsNoRecord(t *testing.T) {
	d, err := devfleet.NewDNS("edge.example", "127.0.0.1:1")
	if err != nil {
		t.Fatal(err)
	}
	before := d.List()
	for name, r := range map[string][]string{
		"an unknown type":             {"shop.example", "MX", "10 mail.shop.example"},
		"no type at all":              {"shop.example", "", "192.0.2.1"},
		"a wrong address":             {"shop.example", "A", "192.0.2.256"},
		"an IPv6 as A":                {"shop.example", "A", "2001:db8::1"},
		"an empty name":               {"", "A", "192.0.2.1"},
		"an endless label":            {strings.Repeat("a", 64) + ".example", "A", "192.0.2.1"},
		"two CNAMEs":                  {"shop.example", "CNAME", "a.example", "b.example"},
		"another record in the value": {"shop.example", "A", "192.0.2.1\nevil.example. A 192.0.2.2"},
	} {
		if err := d.Set(r[0], r[1], r[2:]...); !errors.Is(err, fleet.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if diff := cmp.Diff(before, d.List()); diff != "" {
		t.Errorf("records changed (-want +got):\n%s", diff)
	}
}

func TestCustomerDNSReplacesAndRemovesRecords(t *testing.T) {
	d, err := devfleet.NewDNS("edge.example", "127.0.0.1:1")
	if err != nil {
		t.Fatal(err)
	}
	delegation := d.List()
	for _, values := range [][]string{{"192.0.2.1"}, {"192.0.2.3", "192.0.2.2"}} {
		if err := d.Set("a.example", "A", values...); err != nil {
			t.Fatal(err)
		}
	}
	want := append([]devfleet.Record{{"a.example", "A", "192.0.2.2"}, {"a.example", "A", "192.0.2.3"}}, delegation...)
	if diff := cmp.Diff(want, d.List()); diff != "" {
		t.Errorf("after set (-want +got):\n%s", diff)
	}
	if err := d.Set("a.example", "A"); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(delegation, d.List()); diff != "" {
		t.Errorf("after unset (-want +got):\n%s", diff)
	}
}
