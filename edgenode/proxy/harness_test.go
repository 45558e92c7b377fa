package proxy_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/edgefleet/edgefleet/edgenode/config"
	"github.com/edgefleet/edgefleet/edgenode/proxy"
	"github.com/edgefleet/edgefleet/edgenode/waf"
	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/observability"
	"github.com/edgefleet/edgefleet/tls/sni"
)

const (
	hostName  = "api.example.com"
	otherName = "www.example.org"
)

// authority issues certificates for protected hosts and for origins.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

var testAuthority = sync.OnceValue(func() *authority { return newAuthority("test") })

func newAuthority(name string) *authority {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		panic(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		panic(err)
	}
	return &authority{cert, key}
}

func (a *authority) pem() string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw}))
}

func (a *authority) pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(a.cert)
	return p
}

func (a *authority) issue(t testing.TB, names ...string) *tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), DNSNames: names,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, a.cert, &key.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// judgeFunc is a Judge.
type judgeFunc func(in waf.Input) waf.Decision

func (f judgeFunc) Judge(_ context.Context, in waf.Input) waf.Decision { return f(in) }

// events is a Sink.
type events struct {
	mu  sync.Mutex
	all []fleet.Event
}

func (e *events) Append(ev fleet.Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.all = append(e.all, ev)
}

func (e *events) list() []fleet.Event {
	e.mu.Lock()
	defer e.mu.Unlock()
	return append([]fleet.Event(nil), e.all...)
}

// edge is a running proxy with two hosts, hostName of tenant-a and otherName of tenant-b.
type edge struct {
	t            testing.TB
	options      proxy.Options
	proxy        *proxy.Proxy
	events       *events
	certificates *sni.Table
	snapshot     atomic.Pointer[config.Snapshot]
	logs         *syncBuffer
	https, http  net.Listener
	// stop begins draining; done is closed when Run has returned nil.
	stop context.CancelFunc
	done chan struct{}
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

var loopback = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}

// newEdge starts an edge in front of origins; change adjusts options and host before the start.
func newEdge(t testing.TB, change func(*proxy.Options, *config.Host), origins ...fleet.Endpoint) *edge {
	t.Helper()
	e := &edge{t: t, events: &events{}, certificates: &sni.Table{}, logs: &syncBuffer{}, done: make(chan struct{})}
	ca := testAuthority()
	e.certificates.Replace([]sni.Entry{
		{Name: hostName, Certificate: ca.issue(t, hostName, otherName)},
		{Name: otherName, Certificate: ca.issue(t, otherName)},
	})
	tel := observability.Discard()
	tel.Logger = slog.New(slog.NewTextHandler(e.logs, &slog.HandlerOptions{Level: slog.LevelDebug}))
	e.options = proxy.Options{
		Snapshot: e.snapshot.Load, Certificates: e.certificates, Events: e.events, Node: "n1", Region: "eu",
		Judge:     judgeFunc(func(waf.Input) waf.Decision { return waf.Decision{} }),
		Telemetry: tel, OriginRoots: ca.pool(),
		Limits: proxy.Limits{Linger: 20 * time.Millisecond, Drain: 2 * time.Second},
	}
	host := &config.Host{Name: hostName, Tenant: "tenant-a", Mode: fleet.ModeBlock, Origins: origins, AllowedOrigins: loopback}
	if change != nil {
		change(&e.options, host)
	}
	other := &config.Host{Name: otherName, Tenant: "tenant-b", Mode: fleet.ModeOff, Origins: origins, AllowedOrigins: loopback}
	e.snapshot.Store(&config.Snapshot{
		Hosts:      map[fleet.HostName]*config.Host{hostName: host, otherName: other},
		Challenges: map[config.ChallengeKey]string{{Host: hostName, Token: "tok-1_A"}: "tok-1_A.thumb", {Host: "new.example.net", Token: "tok-2"}: "tok-2.thumb"},
		Versions:   map[fleet.HeadKind]fleet.Version{fleet.HeadRuleset: {Incarnation: 1, Generation: 7}},
	})
	var err error
	if e.proxy, err = proxy.New(e.options); err != nil {
		t.Fatal(err)
	}
	e.https, e.http = listen(t), listen(t)
	ctx, stop := contextWithCancel()
	e.stop = stop
	go func() {
		defer close(e.done)
		if err := e.proxy.Run(ctx, e.https, e.http); err != nil {
			t.Errorf("Run: %v", err)
		}
	}()
	t.Cleanup(func() {
		stop()
		e.wait()
	})
	return e
}

// serve makes hosts all that e serves, with one certificate for all of them.
func (e *edge) serve(hosts ...*config.Host) {
	e.t.Helper()
	snapshot := &config.Snapshot{Hosts: map[fleet.HostName]*config.Host{}, Challenges: e.snapshot.Load().Challenges}
	var names []string
	var entries []sni.Entry
	for _, h := range hosts {
		snapshot.Hosts[h.Name] = h
		names = append(names, string(h.Name))
	}
	cert := testAuthority().issue(e.t, names...)
	for _, h := range hosts {
		entries = append(entries, sni.Entry{Name: h.Name, Certificate: cert})
	}
	e.certificates.Replace(entries)
	e.snapshot.Store(snapshot)
}

// wait waits until Run has returned.
func (e *edge) wait() {
	e.t.Helper()
	select {
	case <-e.done:
	case <-time.After(20 * time.Second):
		e.t.Fatal("Run did not return")
	}
}

func listen(t testing.TB) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // a test's listener needs no context
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

// client speaks HTTP/1.1 or HTTP/2 with the edge, whatever name a URL has.
func (e *edge) client(h2 bool) *http.Client {
	protocols := &http.Protocols{}
	protocols.SetHTTP1(!h2)
	protocols.SetHTTP2(h2)
	tr := &http.Transport{
		DialContext: func(ctx context.Context, _, addr string) (net.Conn, error) {
			to := e.https.Addr().String()
			if strings.HasSuffix(addr, ":80") {
				to = e.http.Addr().String()
			}
			return new(net.Dialer).DialContext(ctx, "tcp", to)
		},
		TLSClientConfig: &tls.Config{RootCAs: testAuthority().pool()},
		Protocols:       protocols, DisableCompression: true, ExpectContinueTimeout: 5 * time.Second,
	}
	e.t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{
		Transport: tr, Timeout: 30 * time.Second,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// dial opens a TLS connection for hostName, for HTTP/1.1 by hand.
func (e *edge) dial() *tls.Conn {
	e.t.Helper()
	c, err := tls.Dial("tcp", e.https.Addr().String(), &tls.Config{ServerName: hostName, RootCAs: testAuthority().pool(), NextProtos: []string{"http/1.1"}}) //nolint:noctx // as above
	if err != nil {
		e.t.Fatal(err)
	}
	e.t.Cleanup(func() { _ = c.Close() })
	if err := c.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		e.t.Fatal(err)
	}
	return c
}

// answer is a response that was read.
type answer struct {
	*http.Response
	body string
}

func do(t testing.TB, c *http.Client, method, url string, body io.Reader, header ...string) answer {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, body)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		if header[i] == "Host" {
			req.Host = header[i+1]
			continue
		}
		req.Header.Add(header[i], header[i+1])
	}
	res, err := c.Do(req)
	if err != nil {
		t.Fatalf("%s %s: %v", method, url, err)
	}
	defer func() { _ = res.Body.Close() }()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatalf("%s %s: read: %v", method, url, err)
	}
	return answer{res, string(b)}
}

// originServer starts an HTTP origin and returns its endpoint.
func originServer(t testing.TB, h http.HandlerFunc) fleet.Endpoint {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return endpoint(t, "http", s.Listener.Addr())
}

// tlsOrigin starts an HTTPS origin that speaks HTTP/2 and has a certificate for names.
func tlsOrigin(t testing.TB, h http.HandlerFunc, names ...string) fleet.Endpoint {
	t.Helper()
	s := httptest.NewUnstartedServer(h)
	s.TLS = &tls.Config{Certificates: []tls.Certificate{*testAuthority().issue(t, names...)}}
	s.EnableHTTP2 = true
	s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelInfo)
	s.StartTLS()
	t.Cleanup(s.Close)
	return endpoint(t, "https", s.Listener.Addr())
}

func endpoint(t testing.TB, scheme string, a net.Addr) fleet.Endpoint {
	t.Helper()
	ap, err := netip.ParseAddrPort(a.String())
	if err != nil {
		t.Fatal(err)
	}
	return fleet.Endpoint{Scheme: scheme, Host: ap.Addr().String(), Port: ap.Port()}
}

// eventually waits for a condition.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.NewTimer(10 * time.Second)
	defer deadline.Stop()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatalf("never happened: %s", what)
		}
	}
}

// bothProtocols runs f with a client of each.
func bothProtocols(t *testing.T, e *edge, f func(t *testing.T, c *http.Client)) {
	t.Helper()
	for name, h2 := range map[string]bool{"http/1.1": false, "h2": true} {
		t.Run(name, func(t *testing.T) { f(t, e.client(h2)) })
	}
}

// scrape is the exposition of the edge's metrics.
func (e *edge) scrape() string {
	w := httptest.NewRecorder()
	e.options.Telemetry.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	return w.Body.String()
}

func hash(r io.Reader) (sum []byte, n int64) {
	h := sha256.New()
	n, _ = io.Copy(h, r)
	return h.Sum(nil), n
}

// contextWithCancel outlives the test's own context, which ends before cleanups.
func contextWithCancel() (context.Context, context.CancelFunc) {
	return context.WithCancel(context.Background())
}

func tlsFor(cert *tls.Certificate) *tls.Config {
	return &tls.Config{Certificates: []tls.Certificate{*cert}}
}
