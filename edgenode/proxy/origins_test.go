package proxy_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"

	"github.com/edgefleet/edgefleet/edgenode/config"
	"github.com/edgefleet/edgefleet/edgenode/proxy"
	"github.com/edgefleet/edgefleet/fleet"
)

// closedPort is an endpoint that refuses connections. Its port is taken, so that nobody listens there meanwhile.
func closedPort(t *testing.T) fleet.Endpoint {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Close(fd) })
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	name, err := syscall.Getsockname(fd)
	bound, ok := name.(*syscall.SockaddrInet4)
	if err != nil || !ok {
		t.Fatalf("%v: %v", name, err)
	}
	return endpoint(t, "http", &net.TCPAddr{IP: bound.Addr[:], Port: bound.Port})
}

// silent is an endpoint that accepts and never answers.
func silent(t *testing.T, scheme string) fleet.Endpoint {
	t.Helper()
	return endpoint(t, scheme, listen(t).Addr())
}

func named(name string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { _, _ = fmt.Fprint(w, name) }
}

func TestOriginsTakeTurns(t *testing.T) {
	e := newEdge(t, nil, originServer(t, named("a")), originServer(t, named("b")), originServer(t, named("c")))
	c, got := e.client(true), ""
	for range 6 {
		got += do(t, c, http.MethodGet, "https://"+hostName+"/", nil).body
	}
	if got != "abcabc" {
		t.Errorf("order %s", got)
	}
}

func TestAnOriginThatIsDownIsPassedOver(t *testing.T) {
	for name, down := range map[string]fleet.Endpoint{
		"connection refused":   closedPort(t),
		"a wrong certificate":  tlsOrigin(t, hello, "other.example.net"),
		"an address not open":  {Scheme: "http", Host: "10.0.0.1", Port: 80},
		"a metadata address":   {Scheme: "http", Host: "169.254.169.254", Port: 80},
		"no TLS at this port":  {Scheme: "https", Host: "127.0.0.1", Port: originServer(t, hello).Port},
		"no answer to a hello": silent(t, "https"),
	} {
		t.Run(name, func(t *testing.T) {
			e := newEdge(t, func(o *proxy.Options, _ *config.Host) { o.Limits.DialTimeout = 200 * time.Millisecond }, down, originServer(t, echo))
			bothProtocols(t, e, func(t *testing.T, c *http.Client) {
				for range 3 {
					a := do(t, c, http.MethodPost, "https://"+hostName+"/", strings.NewReader("body"))
					if a.StatusCode != 200 || a.seen(t).Body != "body" {
						t.Fatalf("%d %q", a.StatusCode, a.body)
					}
				}
			})
			if n := strings.Count(e.logs.String(), "origin cannot be reached"); n != 1 {
				t.Errorf("%d log lines for one origin going down:\n%s", n, e.logs.String())
			}
		})
	}
}

func TestOriginFailuresByKind(t *testing.T) {
	resetting := listen(t)
	go func() {
		for {
			c, err := resetting.Accept()
			if err != nil {
				return
			}
			_, _ = fmt.Fprint(c, "SSH-2.0-OpenSSH\r\n")
			_ = c.Close()
		}
	}()
	for name, tc := range map[string]struct {
		origin fleet.Endpoint
		status int
		reason string
	}{
		"connection refused":            {closedPort(t), 502, "dial"},
		"an unknown name":               {fleet.Endpoint{Scheme: "http", Host: "nobody.invalid", Port: 80}, 502, "dns"},
		"another name's certificate":    {tlsOrigin(t, hello, "other.example.net"), 502, "tls"},
		"a private address":             {fleet.Endpoint{Scheme: "http", Host: "10.0.0.1", Port: 80}, 502, "refused_address"},
		"a metadata address":            {fleet.Endpoint{Scheme: "http", Host: "169.254.169.254", Port: 80}, 502, "refused_address"},
		"a mapped private address":      {fleet.Endpoint{Scheme: "http", Host: "::ffff:10.0.0.1", Port: 80}, 502, "refused_address"},
		"an answer that is not HTTP":    {endpoint(t, "http", resetting.Addr()), 502, "protocol"},
		"no answer to the request":      {silent(t, "http"), 504, "timeout"},
		"no answer in the handshake":    {silent(t, "https"), 504, "timeout"},
		"an address of the edge itself": {fleet.Endpoint{Scheme: "http", Host: "127.0.0.9", Port: 80}, 502, "refused_address"},
	} {
		t.Run(name, func(t *testing.T) {
			e := newEdge(t, func(o *proxy.Options, _ *config.Host) {
				o.Limits.DialTimeout, o.Limits.ResponseTimeout = 200*time.Millisecond, 200*time.Millisecond
				o.OwnAddresses = []netip.Addr{netip.MustParseAddr("127.0.0.9")}
				o.Resolver = resolver(t, func(string) []string { return nil })
			}, tc.origin)
			a := do(t, e.client(true), http.MethodGet, "https://"+hostName+"/", nil)
			if a.StatusCode != tc.status || a.Header.Get("Cache-Control") != "no-store" || !strings.Contains(a.body, a.Header.Get("X-Request-Id")) {
				t.Errorf("%d %v %q; want %d", a.StatusCode, a.Header, a.body, tc.status)
			}
			for _, internal := range []string{tc.origin.Host, "dial", "tcp", "x509", "tls"} {
				if strings.Contains(a.body, internal) {
					t.Errorf("the page tells about the inside (%s): %q", internal, a.body)
				}
			}
			if got := e.scrape(); !strings.Contains(got, `edgefleet_proxy_origin_errors_total{reason="`+tc.reason+`"} 1`) {
				t.Errorf("reason %s is not counted once", tc.reason)
			}
			if j := do(t, e.client(false), http.MethodGet, "https://"+hostName+"/", nil, "Accept", "application/json"); j.Header.Get("Content-Type") != "application/json" {
				t.Errorf("asked for JSON, got %q", j.Header.Get("Content-Type"))
			}
		})
	}
}

func TestARequestThatMayHaveArrivedIsNotRepeated(t *testing.T) {
	var second atomic.Int64
	breaking := originServer(t, func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	e := newEdge(t, nil, breaking, originServer(t, func(http.ResponseWriter, *http.Request) { second.Add(1) }))
	if a := do(t, e.client(false), http.MethodPost, "https://"+hostName+"/", strings.NewReader("pay")); a.StatusCode != 502 || second.Load() != 0 {
		t.Errorf("status %d, %d repeats", a.StatusCode, second.Load())
	}
}

func TestOriginCertificatesAreVerified(t *testing.T) {
	protocol := func(w http.ResponseWriter, r *http.Request) { _, _ = fmt.Fprint(w, r.Proto, " ", r.TLS.ServerName) }
	t.Run("an address shows the protected name", func(t *testing.T) {
		e := newEdge(t, nil, tlsOrigin(t, protocol, hostName))
		if a := do(t, e.client(true), http.MethodGet, "https://"+hostName+"/", nil); a.body != "HTTP/2.0 "+hostName {
			t.Errorf("%d %q", a.StatusCode, a.body)
		}
		// The other host has the same origin: the connection verified for the first must not serve it.
		if a := do(t, e.client(true), http.MethodGet, "https://"+otherName+"/", nil); a.StatusCode != 502 {
			t.Errorf("the other host: %d %q, want 502", a.StatusCode, a.body)
		}
	})
	t.Run("a name shows itself", func(t *testing.T) {
		at := tlsOrigin(t, protocol, "origin.example.net")
		at.Host = "origin.example.net"
		e := newEdge(t, func(o *proxy.Options, _ *config.Host) {
			o.Resolver = resolver(t, func(string) []string { return []string{"127.0.0.1"} })
		}, at)
		if a := do(t, e.client(true), http.MethodGet, "https://"+hostName+"/", nil); a.body != "HTTP/2.0 origin.example.net" {
			t.Errorf("%d %q", a.StatusCode, a.body)
		}
	})
	t.Run("an unknown authority is refused", func(t *testing.T) {
		e := newEdge(t, func(o *proxy.Options, _ *config.Host) { o.OriginRoots = nil }, tlsOrigin(t, protocol, hostName))
		if a := do(t, e.client(true), http.MethodGet, "https://"+hostName+"/", nil); a.StatusCode != 502 {
			t.Errorf("%d %q, want 502", a.StatusCode, a.body)
		}
	})
}

// resolver asks a real DNS server on loopback that answers with what lookup returns.
func resolver(t *testing.T, lookup func(name string) []string) *net.Resolver {
	t.Helper()
	pc, err := net.ListenPacket("udp", "127.0.0.1:0") //nolint:noctx // loopback
	if err != nil {
		t.Fatal(err)
	}
	started := make(chan struct{})
	s := &dns.Server{PacketConn: pc, NotifyStartedFunc: func() { close(started) }, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg).SetReply(q)
		addrs := lookup(q.Question[0].Name)
		if addrs == nil {
			m.Rcode = dns.RcodeNameError
		}
		for _, a := range addrs {
			if q.Question[0].Qtype == dns.TypeA {
				m.Answer = append(m.Answer, &dns.A{Hdr: dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET}, A: net.ParseIP(a)})
			}
		}
		_ = w.WriteMsg(m)
	})}
	go func() { _ = s.ActivateAndServe() }()
	<-started
	t.Cleanup(func() { _ = s.Shutdown() })
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "udp", pc.LocalAddr().String())
	}}
}

func TestANameThatRebindsIsNotFollowed(t *testing.T) {
	var reached atomic.Int64
	inside := originServer(t, func(http.ResponseWriter, *http.Request) { reached.Add(1) }) // 127.0.0.1
	allowedIP, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", fmt.Sprintf("127.0.0.2:%d", inside.Port))
	if err != nil {
		t.Skipf("cannot listen on 127.0.0.2: %v", err)
	}
	s := &http.Server{Handler: named("outside")} //nolint:gosec // a test's server
	go func() { _ = s.Serve(allowedIP) }()
	t.Cleanup(func() { _ = s.Close() })

	var mu sync.Mutex
	answer := []string{"127.0.0.2"}
	at := inside
	at.Host = "origin.example.net"
	e := newEdge(t, func(o *proxy.Options, h *config.Host) {
		h.AllowedOrigins = []netip.Prefix{netip.MustParsePrefix("127.0.0.2/32")}
		o.Resolver = resolver(t, func(string) []string {
			mu.Lock()
			defer mu.Unlock()
			return answer
		})
	}, at)
	get := func(addrs ...string) (int, string) {
		mu.Lock()
		answer = addrs
		mu.Unlock()
		// Connection: close, so that every request dials anew.
		s.SetKeepAlivesEnabled(false)
		a := do(t, e.client(true), http.MethodGet, "https://"+hostName+"/", nil)
		return a.StatusCode, a.body
	}
	if status, body := get("127.0.0.2"); status != 200 || body != "outside" {
		t.Fatalf("the allowed address: %d %q", status, body)
	}
	for _, rebound := range []string{"127.0.0.1", "169.254.169.254", "10.1.2.3", "0.0.0.0"} {
		if status, _ := get(rebound); status != 502 {
			t.Errorf("rebound to %s: %d, want 502", rebound, status)
		}
	}
	if status, body := get("127.0.0.1", "127.0.0.2"); status != 200 || body != "outside" {
		t.Errorf("one good address of two: %d %q", status, body)
	}
	if n := reached.Load(); n != 0 {
		t.Errorf("%d requests reached the inside", n)
	}
}

func TestConnectionsAreNotSharedBetweenTenantsAndOutliveSnapshots(t *testing.T) {
	var mu sync.Mutex
	var peers []string
	e := newEdge(t, nil, originServer(t, func(_ http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		peers = append(peers, r.RemoteAddr)
	}))
	c := e.client(true)
	get := func(name string) string {
		t.Helper()
		do(t, c, http.MethodGet, "https://"+name+"/", nil)
		mu.Lock()
		defer mu.Unlock()
		return peers[len(peers)-1]
	}
	mine := get(hostName)
	if again := get(hostName); again != mine {
		t.Errorf("a new connection for the second request: %s, %s", mine, again)
	}
	if others := get(otherName); others == mine {
		t.Error("two tenants share a connection")
	}
	change := func(f func(h *config.Host)) {
		old := e.snapshot.Load()
		h := *old.Hosts[hostName]
		f(&h)
		e.snapshot.Store(&config.Snapshot{Hosts: map[fleet.HostName]*config.Host{hostName: &h}})
	}
	change(func(h *config.Host) { h.Mode = fleet.ModeMonitoring })
	if again := get(hostName); again != mine {
		t.Error("a new connection after a change that does not touch origins")
	}
	change(func(h *config.Host) { h.AllowedOrigins = []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")} })
	if again := get(hostName); again == mine {
		t.Error("a connection outlived the addresses that were allowed when it was made")
	}
	change(func(h *config.Host) { h.AllowedOrigins = nil })
	if a := do(t, c, http.MethodGet, "https://"+hostName+"/", nil); a.StatusCode != 502 {
		t.Errorf("status %d after the address was closed, want 502", a.StatusCode)
	}
}

func TestCompressedAnswersPassAsTheyAre(t *testing.T) {
	e := newEdge(t, nil, originServer(t, func(w http.ResponseWriter, r *http.Request) {
		if diff := cmp.Diff([]string(nil), r.Header["Accept-Encoding"]); diff != "" {
			t.Errorf("Accept-Encoding was added: %s", diff)
		}
		w.Header().Set("Content-Encoding", "br")
		_, _ = fmt.Fprint(w, "\x0b\x02\x80hello\x03")
	}))
	if a := do(t, e.client(false), http.MethodGet, "https://"+hostName+"/", nil); a.body != "\x0b\x02\x80hello\x03" || a.Header.Get("Content-Encoding") != "br" {
		t.Errorf("%q %v", a.body, a.Header)
	}
}
