package e2e_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/tls/mtls"
)

// from dials from an address of this machine.
func from(ip string) *net.Dialer {
	return &net.Dialer{Timeout: 5 * time.Second, LocalAddr: &net.TCPAddr{IP: net.ParseIP(ip)}}
}

// collector takes what is pushed by OTLP over HTTP, as it comes.
type collector struct {
	url string
	mu  sync.Mutex
	// bodies are the messages by the path that they came to.
	bodies map[string]*bytes.Buffer
}

func newCollector(t *testing.T) *collector {
	t.Helper()
	c := &collector{bodies: map[string]*bytes.Buffer{}}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		in := io.Reader(r.Body)
		if r.Header.Get("Content-Encoding") == "gzip" {
			packed, err := gzip.NewReader(r.Body)
			if err != nil {
				http.Error(w, err.Error(), http.StatusBadRequest)
				return
			}
			in = packed
		}
		b, err := io.ReadAll(in)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.bodies[r.URL.Path] == nil {
			c.bodies[r.URL.Path] = &bytes.Buffer{}
		}
		_, _ = c.bodies[r.URL.Path].Write(b) // a buffer takes everything
		w.Header().Set("Content-Type", "application/x-protobuf")
	}))
	c.url = srv.URL
	t.Cleanup(srv.Close)
	return c
}

// all is what came to each path.
func (c *collector) all() map[string][]byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := map[string][]byte{}
	for path, b := range c.bodies {
		out[path] = bytes.Clone(b.Bytes())
	}
	return out
}

// has reports whether each of the words came to a path.
func (c *collector) has(path string, words ...string) bool {
	b := c.all()[path]
	for _, w := range words {
		if !bytes.Contains(b, []byte(w)) {
			return false
		}
	}
	return len(b) > 0
}

// tap is a subscriber of every subject: a NATS server of the members' cluster without streams of its own, which is let in by
// a member's certificate.
type tap struct {
	mu       sync.Mutex
	messages bytes.Buffer
	subjects map[string]int
}

func newTap(t *testing.T, f *wholeFleet, data string, cluster fleet.ClusterID) *tap {
	t.Helper()
	source, err := mtls.OpenSource(data+"/identity/member.crt", data+"/identity/member.key")
	if err != nil {
		t.Fatal(err)
	}
	roots, err := mtls.PoolFromPEM(read(t, data+"/member-ca.crt"))
	if err != nil {
		t.Fatal(err)
	}
	allow := mtls.MembersOnly(cluster)
	tc := mtls.ServerTLS(source, roots, allow)
	asking := mtls.ClientTLS(source, roots, mtls.MemberServerName(cluster), allow)
	tc.RootCAs, tc.ServerName, tc.GetClientCertificate = asking.RootCAs, asking.ServerName, asking.GetClientCertificate
	account := server.NewAccount("FLEET")
	o := &server.Options{
		ServerName: "tap", Host: "127.0.0.1", Port: server.RANDOM_PORT, NoSigs: true, NoLog: true, SystemAccount: "$SYS",
		Accounts: []*server.Account{account, server.NewAccount("$SYS")}, Users: []*server.User{{Username: "tap", Password: "tap", Account: account}},
		MaxPayload: 1 << 20,
		Cluster:    server.ClusterOpts{Name: string(cluster), Host: "127.0.0.1", Port: server.RANDOM_PORT, TLSConfig: tc, TLSTimeout: 5, NoAdvertise: true, PoolSize: -1},
	}
	for _, m := range f.Members {
		o.Routes = append(o.Routes, &url.URL{Scheme: "nats", Host: strings.Replace(m.API, ":8440", ":8443", 1)})
	}
	srv, err := server.NewServer(o)
	if err != nil {
		t.Fatal(err)
	}
	go srv.Start()
	t.Cleanup(func() { srv.Shutdown(); srv.WaitForShutdown() })
	if !srv.ReadyForConnections(patience) {
		t.Fatal("the tap does not start")
	}
	conn, err := nats.Connect("", nats.InProcessServer(srv), nats.UserInfo("tap", "tap"), nats.MaxReconnects(-1))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	p := &tap{subjects: map[string]int{}}
	sub, err := conn.Subscribe(">", p.take)
	if err != nil {
		t.Fatal(err)
	}
	if err := sub.SetPendingLimits(-1, -1); err != nil {
		t.Fatal(err)
	}
	await(t, "the tap is connected to every member", func() bool { return srv.NumRoutes() >= len(f.Members) })
	return p
}

func (p *tap) take(m *nats.Msg) {
	p.mu.Lock()
	defer p.mu.Unlock()
	kind, _, _ := strings.Cut(m.Subject, ".")
	if strings.HasPrefix(kind, "_INBOX") {
		kind = "_INBOX"
	}
	p.subjects[kind]++
	_, _ = fmt.Fprintf(&p.messages, "%s %v\n", m.Subject, m.Header) // a buffer takes everything
	_, _ = p.messages.Write(append(m.Data, '\n'))
}

// heard are the messages so far, and how many of each kind of subject.
func (p *tap) heard() ([]byte, map[string]int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return bytes.Clone(p.messages.Bytes()), maps.Clone(p.subjects)
}

// answer is what the API says to a GET, whatever it is.
func (f *wholeFleet) answer(ctx context.Context, t *testing.T, c *http.Client, token, path string) (status int, body []byte) {
	t.Helper()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, f.API+path, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	res, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatalf("GET %s: %v", path, err)
	}
	return res.StatusCode, fmt.Appendf(b, "\n%v\n", res.Header)
}
