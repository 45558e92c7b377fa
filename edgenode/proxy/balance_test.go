package proxy_test

import (
	"bufio"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/edgefleet/edgefleet/edgenode/config"
	"github.com/edgefleet/edgefleet/edgenode/proxy"
	"github.com/edgefleet/edgefleet/fleet"
)

func TestAClientStaysAtItsOrigin(t *testing.T) {
	seen := map[string]bool{}
	for range 8 { // other ports are other origins
		e := newEdge(t, func(_ *proxy.Options, h *config.Host) { h.Forwarding.Affinity = fleet.AffinityClientIP },
			originServer(t, named("a")), originServer(t, named("b")), originServer(t, named("c")))
		first := do(t, e.client(true), http.MethodGet, "https://"+hostName+"/", nil).body
		for range 5 {
			if got := do(t, e.client(false), http.MethodGet, "https://"+hostName+"/", nil).body; got != first {
				t.Errorf("%s after %s", got, first)
			}
		}
		seen[first] = true
	}
	if len(seen) < 2 {
		t.Errorf("all of eight hosts have the same place for the client: %v", seen)
	}
}

func TestAClientMovesWhenItsOriginIsOut(t *testing.T) {
	up := originServer(t, named("up"))
	for range 6 {
		e := newEdge(t, func(_ *proxy.Options, h *config.Host) { h.Forwarding.Affinity = fleet.AffinityClientIP }, closedPort(t), up)
		for range 3 {
			if a := do(t, e.client(true), http.MethodGet, "https://"+hostName+"/", nil); a.body != "up" {
				t.Fatalf("%d %q", a.StatusCode, a.body)
			}
		}
	}
}

func TestWithAllOriginsOutRequestsStillTryThem(t *testing.T) {
	var back atomic.Bool
	flaky := func(w http.ResponseWriter, _ *http.Request) {
		if !back.Load() {
			panic(http.ErrAbortHandler)
		}
		_, _ = io.WriteString(w, "back")
	}
	e := newEdge(t, nil, originServer(t, flaky), originServer(t, flaky))
	c := e.client(true)
	for range 8 {
		if a := do(t, c, http.MethodGet, "https://"+hostName+"/", nil); a.StatusCode != 502 {
			t.Fatalf("status %d", a.StatusCode)
		}
	}
	if got := e.scrape(); !strings.Contains(got, "edgefleet_proxy_origins_out 2") {
		t.Error("the gauge does not show two origins that are out")
	}
	back.Store(true)
	if a := do(t, c, http.MethodGet, "https://"+hostName+"/", nil); a.body != "back" {
		t.Errorf("%d %q", a.StatusCode, a.body)
	}
	if got := e.scrape(); !strings.Contains(got, "edgefleet_proxy_origins_out 1") {
		t.Error("an origin that answered is out still")
	}
}

func TestALostConnectionIsRepeatedForSafeRequestsOnly(t *testing.T) {
	for name, tc := range map[string]struct {
		method, body string
		status       int
		arrived      int64
	}{
		"GET":              {http.MethodGet, "", 200, 1},
		"HEAD":             {http.MethodHead, "", 200, 1},
		"GET with a body":  {http.MethodGet, "x", 502, 0},
		"DELETE":           {http.MethodDelete, "", 502, 0},
		"POST":             {http.MethodPost, "", 502, 0},
		"POST with a body": {http.MethodPost, "x", 502, 0},
	} {
		t.Run(name, func(t *testing.T) {
			var arrived atomic.Int64
			breaking := originServer(t, func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
			e := newEdge(t, nil, breaking, originServer(t, func(http.ResponseWriter, *http.Request) { arrived.Add(1) }))
			if a := do(t, e.client(false), tc.method, "https://"+hostName+"/", strings.NewReader(tc.body)); a.StatusCode != tc.status || arrived.Load() != tc.arrived {
				t.Errorf("status %d, %d arrived; want %+v", a.StatusCode, arrived.Load(), tc)
			}
		})
	}
}

func TestHealthChecks(t *testing.T) {
	var sick atomic.Bool
	var asked sync.Map
	checked := func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/healthz" {
			_, _ = io.WriteString(w, "checked")
			return
		}
		asked.Store(r.Host+" "+r.UserAgent()+" "+r.URL.RawQuery, true)
		if sick.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}
	e := newEdge(t, func(_ *proxy.Options, h *config.Host) {
		h.Forwarding.Health = fleet.HealthCheck{Path: "/healthz?q=1", IntervalSeconds: 1, Unhealthy: 1, Healthy: 1}
	}, originServer(t, checked), originServer(t, named("other")))
	c := e.client(true)
	twice := func() string {
		return do(t, c, http.MethodGet, "https://"+hostName+"/", nil).body + do(t, c, http.MethodGet, "https://"+hostName+"/", nil).body
	}
	eventually(t, "the origin is asked without traffic", func() bool {
		_, ok := asked.Load(hostName + " edgefleet-health-check q=1")
		return ok
	})
	sick.Store(true)
	eventually(t, "the sick origin gets no requests", func() bool { return twice() == "otherother" })
	sick.Store(false)
	eventually(t, "the healthy origin gets requests again", func() bool { return strings.Contains(twice(), "checked") })
	if n := strings.Count(e.logs.String(), "origin fails its health check"); n != 1 {
		t.Errorf("%d log lines for one origin that was sick once", n)
	}
}

func TestAHealthCheckIsGuardedAsRequestsAre(t *testing.T) {
	var reached atomic.Int64
	inside := originServer(t, func(http.ResponseWriter, *http.Request) { reached.Add(1) })
	e := newEdge(t, func(_ *proxy.Options, h *config.Host) {
		h.AllowedOrigins = nil
		h.Forwarding.Health = fleet.HealthCheck{Path: "/", IntervalSeconds: 1, Unhealthy: 1}
	}, inside)
	eventually(t, "the check fails", func() bool { return strings.Contains(e.logs.String(), "origin fails its health check") })
	if reached.Load() != 0 {
		t.Error("a health check reached an address that is not open")
	}
}

func TestConnectionsToAnOriginAreLimited(t *testing.T) {
	release := make(chan struct{})
	var at, most atomic.Int64
	o := originServer(t, func(_ http.ResponseWriter, r *http.Request) {
		for n := at.Add(1); ; {
			if m := most.Load(); m >= n || most.CompareAndSwap(m, n) {
				break
			}
		}
		defer at.Add(-1)
		if r.URL.Path == "/slow" {
			<-release
		}
	})
	e := newEdge(t, func(_ *proxy.Options, h *config.Host) {
		h.Forwarding.MaxConnections, h.Forwarding.ConnectSeconds = 2, 1
	}, o)
	c := e.client(true)
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() { do(t, c, http.MethodGet, "https://"+hostName+"/slow", nil) })
	}
	eventually(t, "both connections are in use", func() bool { return at.Load() == 2 })
	a := do(t, c, http.MethodPost, "https://"+hostName+"/", strings.NewReader("x"))
	if a.StatusCode != 503 || a.Header.Get("Retry-After") == "" {
		t.Errorf("the third request: %d %v", a.StatusCode, a.Header)
	}
	close(release)
	wg.Wait()
	if a := do(t, c, http.MethodGet, "https://"+hostName+"/", nil); a.StatusCode != 200 {
		t.Errorf("with a connection free again: %d", a.StatusCode)
	}
	if most.Load() != 2 {
		t.Errorf("%d connections at once", most.Load())
	}
}

func TestAnOriginsOwnNameAndAuthority(t *testing.T) {
	theirs := newAuthority("theirs")
	server := func(a *authority, name string) fleet.Endpoint {
		s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = fmt.Fprint(w, r.Proto, " ", r.TLS.ServerName) }))
		s.TLS = tlsFor(a.issue(t, name))
		s.EnableHTTP2 = true
		s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelInfo)
		s.StartTLS()
		t.Cleanup(s.Close)
		return endpoint(t, "https", s.Listener.Addr())
	}
	for name, tc := range map[string]struct {
		signed, trusted *authority
		named, asked    string
		ok              bool
	}{
		"its own of both":              {theirs, theirs, "o.example.net", "o.example.net", true},
		"its own authority only":       {theirs, theirs, hostName, "", true},
		"its own name only":            {testAuthority(), nil, "o.example.net", "o.example.net", true},
		"another name":                 {theirs, theirs, "o.example.net", "p.example.net", false},
		"another authority":            {testAuthority(), theirs, "o.example.net", "o.example.net", false},
		"an authority that is not set": {theirs, nil, hostName, "", false},
	} {
		t.Run(name, func(t *testing.T) {
			o := server(tc.signed, tc.named)
			if o.ServerName = tc.asked; tc.trusted != nil {
				o.CA = tc.trusted.pem()
			}
			e := newEdge(t, nil, o)
			a := do(t, e.client(true), http.MethodGet, "https://"+hostName+"/", nil)
			if (a.StatusCode == 200) != tc.ok || tc.ok && a.body != "HTTP/2.0 "+tc.named {
				t.Errorf("%d %q", a.StatusCode, a.body)
			}
		})
	}
}

// TestGRPC speaks what gRPC is made of: HTTP/2 from end to end, streams in both directions at once, and trailers.
func TestGRPC(t *testing.T) {
	serve := func(w http.ResponseWriter, r *http.Request) {
		if r.ProtoMajor != 2 || r.Header.Get("Te") != "trailers" || r.Header.Get("Content-Type") != "application/grpc" {
			t.Errorf("the origin got %s %v", r.Proto, r.Header)
		}
		w.Header().Set("Content-Type", "application/grpc")
		w.Header().Set("Trailer", "Grpc-Status")
		_ = http.NewResponseController(w).Flush()
		lines := bufio.NewScanner(r.Body)
		n := 0
		for ; lines.Scan(); n++ {
			_, _ = fmt.Fprintf(w, "echo %s\n", lines.Text())
			_ = http.NewResponseController(w).Flush()
		}
		w.Header().Set("Grpc-Status", "0")
		w.Header().Set(http.TrailerPrefix+"Grpc-Message", fmt.Sprint(n, " messages, ", r.Trailer.Get("X-Done")))
	}
	plain := httptest.NewUnstartedServer(http.HandlerFunc(serve))
	plain.Config.Protocols = &http.Protocols{}
	plain.Config.Protocols.SetUnencryptedHTTP2(true)
	plain.Start()
	t.Cleanup(plain.Close)
	for name, o := range map[string]fleet.Endpoint{"with TLS": tlsOrigin(t, serve, hostName), "without": endpoint(t, "h2c", plain.Listener.Addr())} {
		t.Run(name, func(t *testing.T) {
			e := newEdge(t, func(_ *proxy.Options, h *config.Host) { h.Mode = fleet.ModeOff }, o)
			body, write := io.Pipe()
			req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://"+hostName+"/pkg.Service/Method", body)
			if err != nil {
				t.Fatal(err)
			}
			req.Header = http.Header{"Te": {"trailers"}, "Content-Type": {"application/grpc"}}
			req.Trailer = http.Header{"X-Done": {"yes"}}
			res, err := e.client(true).Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = res.Body.Close() }()
			answers := bufio.NewReader(res.Body)
			for i := range 3 { // each message is answered before the next is sent
				_, _ = fmt.Fprintf(write, "%d\n", i)
				if got, err := answers.ReadString('\n'); got != fmt.Sprintf("echo %d\n", i) {
					t.Fatalf("%q, %v", got, err)
				}
			}
			_ = write.Close()
			if _, err := io.ReadAll(answers); err != nil {
				t.Fatal(err)
			}
			if res.Trailer.Get("Grpc-Status") != "0" || res.Trailer.Get("Grpc-Message") != "3 messages, yes" {
				t.Errorf("trailers %v", res.Trailer)
			}
		})
	}
}

func TestAHostsOwnTimeout(t *testing.T) {
	e := newEdge(t, func(o *proxy.Options, h *config.Host) {
		o.Limits.ResponseTimeout, h.Forwarding.ResponseSeconds = time.Hour, 1
	}, silent(t, "http"))
	if a := do(t, e.client(true), http.MethodGet, "https://"+hostName+"/", nil); a.StatusCode != 504 {
		t.Errorf("status %d", a.StatusCode)
	}
}
