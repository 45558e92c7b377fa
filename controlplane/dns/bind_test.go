package dns_test

import (
	"context"
	"fmt"
	"iter"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	mdns "github.com/miekg/dns"

	"github.com/edgefleet/edgefleet/controlplane/dns"
)

// These tests run against BIND, as Debian has it: apt-get install bind9 bind9-dnsutils.

const (
	secret = "c2VjcmV0LW9mLWEtdGVzdC1hbmQtb2Ytbm8tb3RoZXI="
	other  = "YW5vdGhlci1zZWNyZXQtb2YtYS10ZXN0LW9mLWEga2V5"
)

func keyText(name string) string {
	return fmt.Sprintf("key %q {\n\talgorithm hmac-sha256;\n\tsecret %q;\n};\n", name, secret)
}

// key is the one that BIND has too.
func key(t *testing.T) dns.Key {
	t.Helper()
	path := filepath.Join(t.TempDir(), "transfer.key")
	if err := os.WriteFile(path, []byte(keyText("transfer")), 0o600); err != nil {
		t.Fatal(err)
	}
	k, err := dns.ReadKey(path)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// freePort is a port that is free by UDP and TCP.
func freePort(t *testing.T) netip.AddrPort {
	t.Helper()
	for range 20 {
		tcp, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		udp, err := net.ListenPacket("udp", tcp.Addr().String())
		_ = tcp.Close() // it is only asked for
		if err == nil {
			_ = udp.Close()
			return netip.MustParseAddrPort(tcp.Addr().String())
		}
	}
	t.Fatal("no port is free")
	return netip.AddrPort{}
}

// named starts BIND with the given zone statement and files.
func named(t *testing.T, at netip.AddrPort, statement string, files map[string]string) {
	t.Helper()
	if testing.Short() {
		t.Skip("it takes seconds")
	}
	path, err := exec.LookPath("named")
	if err != nil {
		if path, err = exec.LookPath("/usr/sbin/named"); err != nil {
			t.Skip("there is no BIND here (make peers, or apt-get install bind9 bind9-dnsutils)")
		}
	}
	dir := t.TempDir()
	files["named.conf"] = fmt.Sprintf(`options {
	directory %q; pid-file none; session-keyfile none; lock-file none; managed-keys-directory %q;
	listen-on port %d { %s; }; listen-on-v6 { none; };
	recursion no; dnssec-validation no; notify no; empty-zones-enable no; request-ixfr yes;
	serial-query-rate 100; minimal-responses yes;
};
controls { };
%s
%s
`, dir, dir, at.Port(), at.Addr(), keyText("transfer"), statement)
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	log, err := os.Create(filepath.Join(dir, "named.log"))
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(path, "-g", "-n", "1", "-c", filepath.Join(dir, "named.conf"))
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // it was killed
		if t.Failed() {
			text, _ := os.ReadFile(log.Name())
			t.Logf("BIND says:\n%s", text)
		}
		_ = log.Close()
	})
}

// at asks a name server for the records of a name, sorted.
func at(t *testing.T, server netip.AddrPort, name string, typ uint16) []string {
	t.Helper()
	c := mdns.Client{Timeout: time.Second}
	m, _, err := c.ExchangeContext(t.Context(), question(name, typ), server.String())
	if err != nil {
		return []string{"no answer"}
	}
	out := []string{}
	for _, rr := range m.Answer {
		out = append(out, fmt.Sprint(rr.Header().Ttl, " ", strings.TrimPrefix(rr.String(), rr.Header().String())))
	}
	if m.Rcode != mdns.RcodeSuccess {
		out = append(out, mdns.RcodeToString[m.Rcode])
	}
	slices.Sort(out)
	return out
}

// eventually waits until a name server has exactly these records.
func eventually(t *testing.T, server netip.AddrPort, name string, typ uint16, want ...string) {
	t.Helper()
	var got []string
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(60 * time.Second); time.Now().Before(deadline); {
		if got = at(t, server, name, typ); slices.Equal(got, want) {
			return
		}
		<-tick.C
	}
	t.Fatalf("%s %s is %q, want %q", name, mdns.TypeToString[typ], got, want)
}

// moving is a Source that changes.
type moving struct {
	mu sync.Mutex
	fixed
	serial uint32
	issued map[string]bool
}

func (m *moving) change(f func(*fixed)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.labels, m.dcv = maps.Clone(m.labels), maps.Clone(m.dcv)
	f(&m.fixed)
	for l := range m.labels {
		m.issued[l] = true
	}
	m.serial++
}

func (m *moving) now() fixed {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.fixed
}

func (m *moving) Apex() dns.Apex {
	m.mu.Lock()
	defer m.mu.Unlock()
	a := m.fixed.Apex()
	a.Serial = m.serial
	return a
}

func (m *moving) Label(l string) ([]dns.Edge, bool)   { return m.now().Label(l) }
func (m *moving) DCV(l string) ([]string, bool, bool) { return m.now().DCV(l) }
func (m *moving) Labels() iter.Seq[string]            { return m.now().Labels() }
func (m *moving) Issued(label string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.issued[label]
}

func movingZone() *moving {
	m := &moving{serial: 4294967293, issued: map[string]bool{}} // it wraps around soon
	m.change(func(f *fixed) {
		f.caa = []string{"ca.example; accounturi=https://ca.example/acct/1"}
		f.labels = map[string][]dns.Edge{"abc": {edge(10, "198.51.100.7", "2001:db8::7"), edge(1, "198.51.100.8")}, "def": {edge(10, "198.51.100.9")}}
		f.dcv = map[string][]string{"abc": {"token-1"}}
	})
	return m
}

func TestBINDIsASecondary(t *testing.T) {
	src, bind := movingZone(), freePort(t)
	s := start(t, dns.Options{Source: src, Secondaries: []dns.Secondary{{Addr: bind, Key: key(t)}}})
	named(t, bind, fmt.Sprintf(`server 127.0.0.1 { keys { transfer; }; };
zone "edge.example" { type secondary; primaries port %d { 127.0.0.1 key transfer; }; file "edge.db"; };`, s.Addr().Port()), map[string]string{})

	eventually(t, bind, "abc.edge.example.", mdns.TypeA, "20 198.51.100.7", "20 198.51.100.8")
	for _, tc := range []struct {
		name string
		typ  uint16
		want []string
	}{
		{"abc.edge.example.", mdns.TypeAAAA, []string{"20 2001:db8::7"}},
		{"abc.edge.example.", mdns.TypeCAA, []string{`20 0 issue "ca.example; accounturi=https://ca.example/acct/1"`}},
		{"abc.dcv.edge.example.", mdns.TypeTXT, []string{`1 "token-1"`}},
		{"edge.example.", mdns.TypeNS, []string{"3600 m1.ns.edge.example.", "3600 m2.ns.edge.example.", "3600 ns.example.net."}},
		{"m2.ns.edge.example.", mdns.TypeAAAA, []string{"3600 2001:db8::2"}},
		{"gone.edge.example.", mdns.TypeA, []string{"NXDOMAIN"}},
	} {
		eventually(t, bind, tc.name, tc.typ, tc.want...)
	}

	// It hears of each change, also of those over which the serial wraps around.
	for i := range 4 {
		token := fmt.Sprintf("token-%d", i+2)
		src.change(func(f *fixed) { f.dcv["abc"] = []string{token} })
		eventually(t, bind, "abc.dcv.edge.example.", mdns.TypeTXT, fmt.Sprintf("1 %q", token))
	}
	src.change(func(f *fixed) { delete(f.labels, "def") })
	eventually(t, bind, "def.edge.example.", mdns.TypeA, "NXDOMAIN")
	if p := s.Secondaries(); len(p) != 1 || p[0].Err != nil || p[0].At.IsZero() {
		t.Errorf("%+v", p)
	}
}

func TestTransfersAreForListedAddressesWithTheirKey(t *testing.T) {
	dig, err := exec.LookPath("dig")
	if err != nil {
		t.Skip("there is no dig here (make peers, or apt-get install bind9-dnsutils)")
	}
	here := netip.MustParseAddrPort("127.0.0.1:9")
	elsewhere := netip.MustParseAddrPort("127.0.0.2:9")
	transfer := key(t)
	for _, tc := range []struct {
		name  string
		who   []dns.Secondary
		args  []string
		words []string
		none  bool
	}{
		{"with its key", []dns.Secondary{{Addr: here, Key: transfer}}, []string{"axfr", "-y", "hmac-sha256:transfer:" + secret}, []string{"198.51.100.7", "TSIG", "NOERROR", "(messages"}, false},
		{"without a key", []dns.Secondary{{Addr: here, Key: transfer}}, []string{"axfr"}, []string{"Transfer failed"}, true},
		{"with another secret", []dns.Secondary{{Addr: here, Key: transfer}}, []string{"axfr", "-y", "hmac-sha256:transfer:" + other}, []string{"Transfer failed"}, true},
		{"with another algorithm", []dns.Secondary{{Addr: here, Key: transfer}}, []string{"axfr", "-y", "hmac-sha512:transfer:" + secret}, []string{"Transfer failed"}, true},
		{"with the key of another", []dns.Secondary{{Addr: elsewhere, Key: transfer}}, []string{"axfr", "-y", "hmac-sha256:transfer:" + secret}, []string{"Transfer failed"}, true},
		{"where nobody is listed", nil, []string{"axfr", "-y", "hmac-sha256:transfer:" + secret}, []string{"Transfer failed"}, true},
		{"IXFR is answered with the whole zone", []dns.Secondary{{Addr: here, Key: transfer}}, []string{"ixfr=1", "-y", "hmac-sha256:transfer:" + secret}, []string{"198.51.100.7", "NOERROR"}, false},
		{"IXFR of what it has is one SOA", []dns.Secondary{{Addr: here, Key: transfer}}, []string{"ixfr=42", "-y", "hmac-sha256:transfer:" + secret}, []string{"SOA"}, true},
		{"a query that is signed gets a signed answer", []dns.Secondary{{Addr: here, Key: transfer}}, []string{"soa", "-y", "hmac-sha256:transfer:" + secret}, []string{"TSIG", "NOERROR", "hostmaster"}, true},
		{"a wrong signature gets no answer", []dns.Secondary{{Addr: here, Key: transfer}}, []string{"soa", "-y", "hmac-sha256:transfer:" + other}, []string{"NOTAUTH"}, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			src := content()
			delete(src.labels, "panics")
			s := start(t, dns.Options{Source: src, Secondaries: tc.who})
			args := append([]string{"+tcp", "+tries=1", "+time=10", "+multiline", "+nocrypto", "+comments", "+stats", "@127.0.0.1", "-p", fmt.Sprint(s.Addr().Port()), "edge.example"}, tc.args...)
			out, _ := exec.CommandContext(t.Context(), dig, args...).CombinedOutput() // its exit code says less than its text
			text := string(out)
			for _, w := range tc.words {
				if !strings.Contains(text, w) && w != "(messages" {
					t.Errorf("dig does not say %q:\n%s", w, text)
				}
			}
			if strings.Contains(text, "198.51.100.7") == tc.none {
				t.Errorf("the zone is given away: %v\n%s", tc.none, text)
			}
		})
	}
}

// primaryZone is the zone as its operator has it, with names that are none of ours.
const primaryZone = `$TTL 300
@ IN SOA ns.operator.example. hostmaster.operator.example. 1 3600 600 86400 60
@ IN NS ns.operator.example.
www IN A 192.0.2.80
old IN A 192.0.2.81
abc IN MX 10 mail.operator.example.
notours.dcv IN TXT "theirs"
`

func TestPushToBIND(t *testing.T) {
	src, bind := movingZone(), freePort(t)
	src.mu.Lock()
	src.issued["old"] = true // of a host that is gone
	src.mu.Unlock()
	k := key(t)
	p := &dns.Push{Source: src, Server: bind, Key: k, TTL: dns.DefaultTTL, Every: time.Second, Logger: slog.New(slog.DiscardHandler)}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	waitFor(t, "an error, as long as nobody listens", func() bool { return p.Status().Err != nil })

	named(t, bind, `zone "edge.example" { type primary; file "edge.db"; allow-update { key transfer; }; allow-transfer { key transfer; }; };`, map[string]string{"edge.db": primaryZone})
	eventually(t, bind, "abc.edge.example.", mdns.TypeA, "20 198.51.100.7", "20 198.51.100.8")
	eventually(t, bind, "abc.edge.example.", mdns.TypeCAA, `20 0 issue "ca.example; accounturi=https://ca.example/acct/1"`)
	eventually(t, bind, "abc.dcv.edge.example.", mdns.TypeTXT, `1 "token-1"`)
	eventually(t, bind, "old.edge.example.", mdns.TypeA, "NXDOMAIN")
	waitFor(t, "no error", func() bool { return p.Status().Err == nil })
	theirs := func() {
		t.Helper()
		eventually(t, bind, "www.edge.example.", mdns.TypeA, "300 192.0.2.80")
		eventually(t, bind, "abc.edge.example.", mdns.TypeMX, "300 10 mail.operator.example.")
		eventually(t, bind, "notours.dcv.edge.example.", mdns.TypeTXT, `300 "theirs"`)
		eventually(t, bind, "edge.example.", mdns.TypeNS, "300 ns.operator.example.")
	}
	theirs()

	// What changes here follows there.
	src.change(func(f *fixed) {
		f.dcv["abc"] = []string{"token-2"}
		f.labels["abc"] = []dns.Edge{edge(10, "198.51.100.8")}
		delete(f.labels, "def")
	})
	eventually(t, bind, "abc.edge.example.", mdns.TypeA, "20 198.51.100.8")
	eventually(t, bind, "abc.edge.example.", mdns.TypeAAAA)
	eventually(t, bind, "abc.dcv.edge.example.", mdns.TypeTXT, `1 "token-2"`)
	eventually(t, bind, "def.edge.example.", mdns.TypeA, "NXDOMAIN")

	// What others change there is repaired, as far as it is ours.
	m := new(mdns.Msg).SetUpdate("edge.example.")
	for _, text := range []string{"abc.edge.example. 20 IN A 203.0.113.66", "def.edge.example. 20 IN A 203.0.113.66", "their.edge.example. 300 IN A 203.0.113.5"} {
		rr, err := mdns.NewRR(text)
		if err != nil {
			t.Fatal(err)
		}
		m.Insert([]mdns.RR{rr})
	}
	m.SetTsig("transfer.", mdns.HmacSHA256, 300, time.Now().Unix())
	c := mdns.Client{Net: "tcp", Timeout: 10 * time.Second, TsigSecret: map[string]string{"transfer.": secret}}
	if r, _, err := c.ExchangeContext(t.Context(), m, bind.String()); err != nil || r.Rcode != mdns.RcodeSuccess {
		t.Fatal(r, err)
	}
	eventually(t, bind, "abc.edge.example.", mdns.TypeA, "20 198.51.100.8")
	eventually(t, bind, "def.edge.example.", mdns.TypeA, "NXDOMAIN")
	eventually(t, bind, "their.edge.example.", mdns.TypeA, "300 203.0.113.5")
	theirs()
}

func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(60 * time.Second); !ok(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

func TestAPushThatIsNotAllowedSaysWhat(t *testing.T) {
	bind := freePort(t)
	named(t, bind, `zone "edge.example" { type primary; file "edge.db"; allow-transfer { key transfer; }; };`, map[string]string{"edge.db": primaryZone})
	p := &dns.Push{Source: movingZone(), Server: bind, Key: key(t), TTL: dns.DefaultTTL, Every: time.Second, Logger: slog.New(slog.DiscardHandler)}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	waitFor(t, "a refusal", func() bool {
		err := p.Status().Err
		return err != nil && strings.Contains(err.Error(), "REFUSED") && strings.Contains(err.Error(), "allow updates with the key transfer.")
	})
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if strings.Contains(fmt.Sprintf("%v %+v %#v", p.Key, p.Key, p.Key), secret[:8]) {
		t.Error("a key writes its secret")
	}
}
