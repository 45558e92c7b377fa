package e2e_test

import (
	"net"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/miekg/dns"

	"github.com/edgefleet/edgefleet/fleet"
)

// parentZone is the world's DNS as far as the edge zone is concerned: it answers with the name servers it was told.
type parentZone struct {
	servers atomic.Pointer[[]string]
	rcode   atomic.Int32
}

// ServeDNS implements dns.Handler.
func (p *parentZone) ServeDNS(w dns.ResponseWriter, r *dns.Msg) {
	m := new(dns.Msg)
	m.SetRcode(r, int(p.rcode.Load()))
	if servers := p.servers.Load(); servers != nil && m.Rcode == dns.RcodeSuccess && r.Question[0].Qtype == dns.TypeNS {
		for _, s := range *servers {
			m.Answer = append(m.Answer, &dns.NS{Hdr: dns.RR_Header{Name: r.Question[0].Name, Rrtype: dns.TypeNS, Class: dns.ClassINET, Ttl: 60}, Ns: s})
		}
	}
	_ = w.WriteMsg(m) // a test that gets no answer fails by itself
}

// listen serves the zone by UDP and returns the address.
func (p *parentZone) listen(t *testing.T) string {
	t.Helper()
	conn, err := (&net.ListenConfig{}).ListenPacket(t.Context(), "udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &dns.Server{PacketConn: conn, Handler: p}
	done := make(chan error, 1)
	started := make(chan struct{})
	s.NotifyStartedFunc = func() { close(started) }
	go func() { done <- s.ActivateAndServe() }()
	<-started
	t.Cleanup(func() {
		if err := s.Shutdown(); err != nil {
			t.Error(err)
		}
		<-done
	})
	return conn.LocalAddr().String()
}

func TestClusterCheckSaysHowToDelegateTheZone(t *testing.T) {
	t.Parallel()
	parent := &parentZone{}
	m := newMember(t, "m1")
	m.resolver = parent.listen(t)
	m.configure()
	m.initialize()
	m.start()
	// The records are what the owner of the parent zone has to set.
	records := []string{"set in the zone example:", "edge.example NS m1.ns.edge.example", "m1.ns.edge.example A " + m.ip}

	for _, tt := range []struct {
		name    string
		servers []string
		rcode   int
		code    int
		words   []string
	}{
		{"not delegated", nil, dns.RcodeSuccess, fleet.ExitFailure, append([]string{"fail", "edge.example is not delegated"}, records...)},
		{"no such name", nil, dns.RcodeNameError, fleet.ExitFailure, append([]string{"fail", "edge.example is not delegated"}, records...)},
		{"delegated elsewhere", []string{"ns1.parking.example."}, dns.RcodeSuccess, fleet.ExitFailure, append([]string{"fail", "delegated to ns1.parking.example"}, records...)},
		{"the resolver refuses", nil, dns.RcodeRefused, fleet.ExitFailure, append([]string{"fail", "cannot be looked up", "REFUSED"}, records...)},
		{"delegated", []string{"M1.NS.edge.example."}, dns.RcodeSuccess, fleet.ExitOK, []string{"ok", "edge.example is delegated to m1.ns.edge.example"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			parent.servers.Store(&tt.servers)
			parent.rcode.Store(int32(tt.rcode)) //nolint:gosec // a constant of four bits
			m := *m
			m.t = t
			r := m.fleetctl("cluster", "check")
			line := lineWith(r.stdout, "edge zone delegation")
			if r.code != tt.code {
				t.Errorf("exit code %d, want %d:\n%s%s", r.code, tt.code, r.stdout, r.stderr)
			}
			for _, w := range tt.words {
				if !strings.Contains(line, w) {
					t.Errorf("the line lacks %q: %s", w, line)
				}
			}
		})
	}
}

func lineWith(text, word string) string {
	for line := range strings.Lines(text) {
		if strings.Contains(line, word) {
			return line
		}
	}
	return ""
}
