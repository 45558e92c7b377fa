package e2e_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/edgefleet/edgefleet/controlplane/client"
	"github.com/edgefleet/edgefleet/deploy/devfleet"
	"github.com/edgefleet/edgefleet/fleet"
)

// originName is what the origins' certificates are for: they are dialled by address.
const originName = "origin.internal"

// demanding is an origin that serves nobody who does not show a certificate. It answers with its name and whose it saw.
type demanding struct {
	t      *testing.T
	name   string
	config *tls.Config
	addr   string
	server *http.Server
	done   chan error
}

func newDemanding(t *testing.T, name string, cert tls.Certificate, clients *x509.CertPool) *demanding {
	t.Helper()
	o := &demanding{t: t, name: name, addr: "127.0.0.1:0", config: &tls.Config{Certificates: []tls.Certificate{cert}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: clients, MinVersion: tls.VersionTLS13}}
	o.start()
	t.Cleanup(o.stop)
	return o
}

func (o *demanding) url() string { return "https://" + o.addr }

func (o *demanding) start() {
	o.t.Helper()
	l, err := net.Listen("tcp", o.addr)
	if err != nil {
		o.t.Fatal(err)
	}
	o.addr = l.Addr().String()
	o.server = &http.Server{TLSConfig: o.config, ReadHeaderTimeout: patience, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelInfo), Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = fmt.Fprintf(w, "%s saw %s", o.name, r.TLS.PeerCertificates[0].Subject.CommonName)
	})}
	o.done = make(chan error, 1)
	go func() { o.done <- o.server.ServeTLS(l, "", "") }()
}

// stop ends the origin with its connections, as when its machine is switched off.
func (o *demanding) stop() {
	if o.server == nil {
		return
	}
	if err := o.server.Close(); err != nil {
		o.t.Error(err)
	}
	if err := <-o.done; !errors.Is(err, http.ErrServerClosed) {
		o.t.Error(err)
	}
	o.server = nil
}

// fleetctl runs a command as the demo tenant.
func (f *wholeFleet) fleetctl(t *testing.T, args ...string) result {
	t.Helper()
	var addrs []string
	for _, m := range f.Members {
		addrs = append(addrs, m.API)
	}
	env := []string{"FLEETCTL_ADDR=" + strings.Join(addrs, ","), "FLEETCTL_CACERT=" + f.CACert, "FLEETCTL_TOKEN=" + f.TenantToken, "FLEETCTL_TENANT=" + string(f.Tenant)}
	return run(t, "fleetctl", env, args...)
}

func (f *wholeFleet) must(t *testing.T, args ...string) string {
	t.Helper()
	r := f.fleetctl(t, args...)
	if r.code != fleet.ExitOK {
		t.Fatalf("fleetctl %s: %d %s", strings.Join(args, " "), r.code, r.stderr)
	}
	return r.stdout
}

// visits is a flow of requests through every edge; each answer must be the origin's.
type visits struct {
	stop func()

	mu     sync.Mutex
	seen   map[string]int
	failed []string
}

func visit(t *testing.T, vs []visitor) *visits {
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	var work sync.WaitGroup
	v := &visits{seen: map[string]int{}, stop: func() { cancel(); work.Wait() }}
	for _, from := range vs {
		work.Go(func() {
			tick := time.NewTicker(5 * time.Millisecond)
			defer tick.Stop()
			for ctx.Err() == nil {
				status, body, err := from.get(context.WithoutCancel(ctx), "https", "/")
				v.mu.Lock()
				if v.seen[from.edge+" "+body]++; err != nil || status != http.StatusOK {
					v.failed = append(v.failed, fmt.Sprintf("%s: %d %v %.100q", from.edge, status, err, body))
				}
				v.mu.Unlock()
				<-tick.C
			}
		})
	}
	t.Cleanup(v.stop)
	return v
}

// saw reports whether every edge has brought answers of both origins that saw a certificate.
func (v *visits) saw(vs []visitor, whose string) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return !slices.ContainsFunc(vs, func(from visitor) bool {
		return v.seen[from.edge+" one saw "+whose] == 0 || v.seen[from.edge+" two saw "+whose] == 0
	})
}

// outAt is at which nodes an origin is out, and why, as the CLI has it from the API.
func (f *wholeFleet) outAt(t *testing.T, host, origin string) map[string]string {
	t.Helper()
	var v client.OriginViews
	if err := json.Unmarshal([]byte(f.must(t, "origin", "health", host, "-o", "json")), &v); err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(v.Origins, func(o client.OriginView) bool { return o.URL == origin })
	if i < 0 {
		t.Fatalf("no origin %s: %+v", origin, v)
	}
	out := map[string]string{}
	for _, o := range v.Origins[i].Out {
		out[string(o.Node)] = o.Reason
	}
	return out
}

func TestOriginsThatDemandACertificate(t *testing.T) {
	t.Parallel()
	f := sharedFleet(t)
	const host = "demanding.shop.example"
	dir, servers := t.TempDir(), newAuthority(t, "the origins' authority")
	first, second := newAuthority(t, "of this year"), newAuthority(t, "of the next")
	clients := x509.NewCertPool()
	clients.AddCert(first.cert)
	clients.AddCert(second.cert)
	origins := []*demanding{newDemanding(t, "one", servers.issue(originName, x509.ExtKeyUsageServerAuth), clients), newDemanding(t, "two", servers.issue(originName, x509.ExtKeyUsageServerAuth), clients)}
	ca := filepath.Join(dir, "ca.pem")
	write(t, ca, servers.pem())
	show := func(by *authority, name string) {
		t.Helper()
		cert, key := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
		c, k := by.files(by.issue(name, x509.ExtKeyUsageClientAuth))
		write(t, cert, c)
		write(t, key, k)
		for _, o := range origins {
			f.must(t, "origin", "set", host, o.url(), "--client-cert", cert, "--client-key", key, "--reason", name)
		}
	}

	f.must(t, "host", "add", host, "--origin", origins[0].url())
	for _, o := range origins {
		f.must(t, "origin", "add", host, o.url(), "--server-name", originName, "--ca", ca)
	}
	h, err := client.Get[client.HostView](t.Context(), f.tenant(t), tenantPath(f.Tenant, "hosts/"+host), nil)
	if err != nil {
		t.Fatal(err)
	}
	traffic := record(t, h, "traffic")
	f.setDNS(t, traffic.Name, traffic.Type, traffic.Value)
	f.awaitHost(t, host, "active", active)
	vs := f.visitors(t, host)
	for _, v := range vs {
		v.wants(t, http.StatusBadGateway, "/")
	}
	await(t, "the nodes say what the origin lacks", func() bool {
		out := f.outAt(t, host, origins[0].url())
		return len(out) == len(vs) && !slices.ContainsFunc(f.Edges, func(e devfleet.ReadyEdge) bool { return !strings.Contains(out[e.ID], "client_cert") })
	})

	show(first, "first")
	flow := visit(t, vs)
	await(t, "the nodes show the first certificate", func() bool { return flow.saw(vs, "first") })
	flow.stop()
	flow = visit(t, vs)
	await(t, "requests flow", func() bool { return flow.saw(vs, "first") })
	show(second, "second")
	await(t, "the nodes show the second certificate", func() bool { return flow.saw(vs, "second") })
	flow.stop()
	if len(flow.failed) > 0 {
		t.Errorf("%d requests were lost, such as %s; seen were %v", len(flow.failed), flow.failed[0], flow.seen)
	}
	if text := f.must(t, "origin", "health", host); strings.Count(text, "CN=second") != 2 || strings.Contains(text, "CN=first") {
		t.Errorf("origin health says:\n%s", text)
	}

	f.must(t, "host", "set", host, "--health-path", "/healthz", "--health-interval", "1s")
	origins[0].stop()
	await(t, "every node says that the origin is out", func() bool { return len(f.outAt(t, host, origins[0].url())) == len(vs) })
	if text := f.must(t, "origin", "health", host); !strings.Contains(lineWith(text, origins[0].url()), "out at 2 of 2") || strings.Contains(lineWith(text, origins[1].url()), "out") {
		t.Errorf("origin health says:\n%s", text)
	}
	for _, v := range vs {
		for range 4 {
			v.wants(t, http.StatusOK, "/")
		}
	}
	origins[0].start()
	await(t, "the origin is back", func() bool { return len(f.outAt(t, host, origins[0].url())) == 0 })
}
