package e2e_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/edgefleet/edgefleet/controlplane/client"
	"github.com/edgefleet/edgefleet/deploy/devfleet"
	"github.com/edgefleet/edgefleet/fleet"
)

// fleetTimeout bounds the start of a fleet.
const fleetTimeout = 2 * time.Minute

// wholeFleet is what devfleet starts: members, edges, an ACME CA, the customer's DNS and an origin.
type wholeFleet struct {
	devfleet.Ready
	dir  string
	cmd  *exec.Cmd
	out  *buffer
	done chan error
}

// shared is one fleet for the tests that only add to it. The first starts it, TestMain stops it.
var shared struct {
	once  sync.Once
	fleet *wholeFleet
	err   error
}

// sharedFleet is a fleet whose demo host is active. Several tests use it at one time: each brings hosts of its own and
// stops nothing.
func sharedFleet(t *testing.T) *wholeFleet {
	t.Helper()
	if testing.Short() {
		t.Skip("a whole fleet takes a while")
	}
	shared.once.Do(func() {
		shared.fleet, shared.err = startFleet(filepath.Join(binaries, "shared"), "--members", "3", "--nodes", "2")
	})
	if shared.err != nil {
		t.Fatal(shared.err)
	}
	return shared.fleet
}

// stopShared stops the shared fleet, if there is one; one that does not stop cleanly is an error.
func stopShared() error {
	if shared.fleet == nil {
		return nil
	}
	return shared.fleet.stop()
}

func startFleet(home string, args ...string) (*wholeFleet, error) {
	f := &wholeFleet{dir: filepath.Join(home, "fleet"), out: &buffer{}, done: make(chan error, 1)}
	if err := os.Mkdir(home, 0o700); err != nil {
		return nil, err
	}
	ready := filepath.Join(home, "ready.json")
	args = append([]string{"up", "--short", "--dir", f.dir, "--ready-file", ready, "--address-block", block(203)}, args...)
	f.cmd = program("devfleet", nil, args...)
	f.cmd.Stdout, f.cmd.Stderr = f.out, f.out
	if err := f.cmd.Start(); err != nil {
		return nil, err
	}
	go func() { f.done <- f.cmd.Wait() }()
	ctx, cancel := context.WithTimeout(context.Background(), fleetTimeout)
	defer cancel()
	for {
		b, err := os.ReadFile(ready)
		if err == nil {
			return f, json.Unmarshal(b, &f.Ready)
		}
		if ctx.Err() != nil || strings.Contains(f.out.String(), "✗") {
			return nil, errors.Join(fmt.Errorf("the fleet does not come up:\n%s", f.out), f.stop())
		}
		select {
		case err := <-f.done:
			return nil, fmt.Errorf("devfleet ended: %w\n%s", err, f.out)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// block is the second octet of a fleet's addresses: one of the 25 from first that is not in use. Those of loopback are
// lower, and devfleet's own tests use 201 and 202.
func block(first int) string {
	for {
		b := fmt.Sprint(first + rand.IntN(25))
		if l, err := net.Listen("tcp", "127."+b+".3.2:8090"); err == nil {
			_ = l.Close()
			return b
		}
	}
}

func (f *wholeFleet) stop() error {
	if err := f.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case err := <-f.done:
		if err != nil {
			return fmt.Errorf("devfleet ended: %w\n%s", err, f.out)
		}
		return nil
	case <-time.After(patience):
		return errors.Join(fmt.Errorf("devfleet does not stop:\n%s", f.out), f.cmd.Process.Kill(), <-f.done)
	}
}

// operator and tenant call the fleet's API.
func (f *wholeFleet) operator(t *testing.T) *client.Client { return f.client(t, f.Token) }
func (f *wholeFleet) tenant(t *testing.T) *client.Client   { return f.client(t, f.TenantToken) }

// client is one of the members at addrs; none means of all.
func (f *wholeFleet) client(t *testing.T, token string, addrs ...string) *client.Client {
	t.Helper()
	if len(addrs) == 0 {
		for _, m := range f.Members {
			addrs = append(addrs, m.API)
		}
	}
	c, err := client.New(client.Options{Addrs: addrs, Token: token, CACert: read(t, f.CACert), Timeout: 10 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// setDNS replaces the records of one name and type in the customer's DNS; no value removes them.
func (f *wholeFleet) setDNS(t *testing.T, name, kind string, values ...string) {
	t.Helper()
	c := devfleet.Control{Dir: f.dir}
	if err := c.SetRecords(t.Context(), devfleet.DNSChange{Name: name, Type: kind, Values: values}); err != nil {
		t.Fatal(err)
	}
}

// visitor makes requests to one host through one edge, as a browser does whose DNS answered with that edge.
type visitor struct {
	host, edge string
	http       *http.Client
}

func newVisitor(t *testing.T, host fleet.HostName, edge string, roots *x509.CertPool) visitor {
	t.Helper()
	transport := &http.Transport{
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			_, port, err := net.SplitHostPort(addr)
			if err != nil {
				return nil, err
			}
			return (&net.Dialer{Timeout: 5 * time.Second}).DialContext(ctx, network, net.JoinHostPort(edge, port))
		},
		TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}, DisableKeepAlives: true,
	}
	stay := func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return visitor{string(host), edge, &http.Client{Transport: transport, Timeout: 30 * time.Second, CheckRedirect: stay}}
}

// get asks for a path, by HTTPS at port 8443 or by HTTP at 8080.
func (v visitor) get(ctx context.Context, scheme, path string) (status int, body string, err error) {
	port := map[string]string{"https": "8443", "http": "8080"}[scheme]
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, scheme+"://"+net.JoinHostPort(v.host, port)+path, http.NoBody)
	if err != nil {
		return 0, "", err
	}
	req.Header.Set("User-Agent", "edgefleet-e2e/1.0")
	req.Header.Set("Accept", "*/*")
	res, err := v.http.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer func() { _ = res.Body.Close() }()
	b, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	return res.StatusCode, string(b), err
}

// wants holds the status of the answer to an HTTPS request.
func (v visitor) wants(t *testing.T, status int, path string) {
	t.Helper()
	if got, body, err := v.get(t.Context(), "https", path); err != nil || got != status {
		t.Errorf("%s at %s answered %d to %s, want %d: %v %.200s", v.host, v.edge, got, path, status, err, body)
	}
}

// attack is a textbook SQL injection; page tells events apart.
func attack(page string) string { return "/" + page + "?id=%27%20OR%201%3D1--" }

// marker is a word that no other test uses.
func marker(kind string) string { return fmt.Sprintf("%s-%016x", kind, rand.Uint64()) }

func pool(t *testing.T, file string) *x509.CertPool {
	t.Helper()
	p := x509.NewCertPool()
	if !p.AppendCertsFromPEM(read(t, file)) {
		t.Fatalf("%s holds no certificate", file)
	}
	return p
}

// tenantPath is a path of the API below a tenant.
func tenantPath(t fleet.TenantID, rest string) string { return "/v1/tenants/" + string(t) + "/" + rest }

// eventOf returns the event of an attack on a page, as far as a member has it.
func eventOf(t *testing.T, c *client.Client, tenant fleet.TenantID, page string) (fleet.Event, bool) {
	t.Helper()
	all, err := client.All[fleet.Event](t.Context(), c, tenantPath(tenant, "events"), map[string][]string{"limit": {"100"}})
	if err != nil {
		return fleet.Event{}, false
	}
	for _, e := range all {
		if strings.HasPrefix(e.Path, "/"+page) {
			return e, true
		}
	}
	return fleet.Event{}, false
}
