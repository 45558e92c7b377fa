package quality_test

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/edgefleet/edgefleet/edgenode/config"
	"github.com/edgefleet/edgefleet/edgenode/proxy"
	"github.com/edgefleet/edgefleet/edgenode/waf"
	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/observability"
	"github.com/edgefleet/edgefleet/tls/sni"
)

// hostName is the host that requests are for, unless they name another one.
const hostName = "crs.example.com"

// workers is how many requests are under way at one time.
var workers = 2 * runtime.GOMAXPROCS(0)

// edge is a running proxy with a real rule engine and a real origin.
type edge struct {
	addr  string
	roots *x509.CertPool

	mu     sync.Mutex
	events map[string][]fleet.Event
}

// Append implements proxy.Sink.
func (e *edge) Append(ev fleet.Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.events[ev.RequestID] = append(e.events[ev.RequestID], ev)
}

func (e *edge) eventsOf(request string) []fleet.Event {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.events[request]
}

// newEdge starts an edge in mode that serves names beside hostName.
func newEdge(t testing.TB, o waf.Options, mode fleet.Mode, names ...string) *edge {
	t.Helper()
	// One client sends everything here; what one may use of the engine has tests of its own.
	o.Concurrency = workers
	o.TenantShare, o.ClientShare = o.Concurrency, o.Concurrency
	engine, err := waf.NewEngine(o)
	if err != nil {
		t.Fatal(err)
	}
	e := &edge{events: map[string][]fleet.Event{}, roots: x509.NewCertPool()}
	origin := newOrigin(t)
	snapshot := &config.Snapshot{Hosts: map[fleet.HostName]*config.Host{}}
	names = append(names, hostName)
	cert := certificate(t, names)
	e.roots.AddCert(cert.Leaf)
	var entries []sni.Entry
	for _, n := range names {
		name := fleet.HostName(n)
		snapshot.Hosts[name] = &config.Host{
			Name: name, Tenant: "tenant", Mode: mode, Origins: []fleet.Endpoint{origin},
			AllowedOrigins: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")},
		}
		entries = append(entries, sni.Entry{Name: name, Certificate: cert})
	}
	table := &sni.Table{}
	table.Replace(entries)
	p, err := proxy.New(proxy.Options{
		Snapshot: func() *config.Snapshot { return snapshot }, Certificates: table, Judge: engine, Events: e,
		Node: "n1", Region: "eu", Telemetry: observability.Discard(),
		// A request that promises more than it sends is refused soon; the engine is never so busy that a request passes unjudged.
		Limits: proxy.Limits{InspectTimeout: 3 * time.Second, JudgeTimeout: 2 * time.Minute, Linger: 20 * time.Millisecond, Drain: 2 * time.Second},
	})
	if err != nil {
		t.Fatal(err)
	}
	e.run(t, p)
	return e
}

func (e *edge) run(t testing.TB, p *proxy.Proxy) {
	t.Helper()
	https, plain := listen(t), listen(t)
	e.addr = https.Addr().String()
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context())) // cleanups run after the test's own context has ended
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx, https, plain) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
}

func listen(t testing.TB) net.Listener {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func certificate(t testing.TB, names []string) *tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, DNSNames: names, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

// newOrigin starts a server that answers anything; on /reflect it answers what the request's body says.
func newOrigin(t testing.TB) fleet.Endpoint {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(answer))
	t.Cleanup(s.Close)
	addr, err := netip.ParseAddrPort(s.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return fleet.Endpoint{Scheme: "http", Host: addr.Addr().String(), Port: addr.Port()}
}

func answer(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	var wanted struct {
		Status      int               `json:"status"`
		Headers     map[string]string `json:"headers"`
		Body        string            `json:"body"`
		EncodedBody []byte            `json:"encodedBody"`
	}
	if err != nil || r.URL.Path != "/reflect" || json.Unmarshal(body, &wanted) != nil {
		w.Header().Set("Content-Type", "text/plain")
		_, _ = io.WriteString(w, "hello") // the client is gone
		return
	}
	w.Header().Set("Content-Type", "text/plain")
	for name, value := range wanted.Headers {
		w.Header().Set(name, value)
	}
	if wanted.Status != 0 {
		w.WriteHeader(wanted.Status)
	}
	_, _ = w.Write(append([]byte(wanted.Body), wanted.EncodedBody...)) // as above
}

// outcome is what became of a request.
type outcome struct {
	// status is 0 when the connection was closed without an answer.
	status int
	id     string
	events []fleet.Event
}

// send sends raw bytes over TLS and reads the answer.
func (e *edge) send(ctx context.Context, raw []byte) (outcome, error) {
	dialer := tls.Dialer{Config: &tls.Config{ServerName: hostName, RootCAs: e.roots, NextProtos: []string{"http/1.1"}, MinVersion: tls.VersionTLS13}}
	conn, err := dialer.DialContext(ctx, "tcp", e.addr)
	if err != nil {
		return outcome{}, err
	}
	status, header, err := converse(conn, raw)
	if err != nil {
		return outcome{}, err
	}
	id := header.Get("X-Request-Id")
	return outcome{status: status, id: id, events: e.eventsOf(id)}, nil
}

// answerTimeout bounds one exchange; it is reached only by a server that waits for the rest of a body without end.
const answerTimeout = time.Minute

// converse sends raw, reads one final answer and closes conn. A server that closes without an answer has status 0.
func converse(conn net.Conn, raw []byte) (int, http.Header, error) {
	defer func() { _ = conn.Close() }()
	if err := conn.SetDeadline(time.Now().Add(answerTimeout)); err != nil {
		return 0, nil, err
	}
	// A server may answer, and close, before it has read everything.
	_, writeErr := conn.Write(raw)
	in := bufio.NewReader(conn)
	for {
		method := http.MethodGet
		if len(raw) > 5 && string(raw[:5]) == "HEAD " {
			method = http.MethodHead
		}
		res, err := http.ReadResponse(in, &http.Request{Method: method})
		if err != nil {
			if errors.Is(err, os.ErrDeadlineExceeded) {
				return 0, nil, fmt.Errorf("no answer: %w", errors.Join(err, writeErr))
			}
			return 0, nil, nil
		}
		if _, err := io.Copy(io.Discard, res.Body); err != nil {
			return 0, nil, fmt.Errorf("read the answer with status %d: %w", res.StatusCode, err)
		}
		if err := res.Body.Close(); err != nil {
			return 0, nil, err
		}
		if res.StatusCode >= 200 {
			return res.StatusCode, res.Header, nil
		}
	}
}

// each calls f for every index below n, with workers at one time.
func each(n int, f func(i int)) {
	var wg sync.WaitGroup
	next := make(chan int)
	for range workers {
		wg.Go(func() {
			for i := range next {
				f(i)
			}
		})
	}
	for i := range n {
		next <- i
	}
	close(next)
	wg.Wait()
}

// quiet is the log of servers whose clients misbehave on purpose.
var quiet = slog.NewLogLogger(slog.DiscardHandler, slog.LevelInfo)
