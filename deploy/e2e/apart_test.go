package e2e_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sync/errgroup"

	"github.com/edgefleet/edgefleet/controlplane/backup"
	"github.com/edgefleet/edgefleet/controlplane/client"
	"github.com/edgefleet/edgefleet/controlplane/state"
	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/tls/keyring"
)

// apart is a divided cluster with the hosts of a story: one that stays, one that is deleted, and one whose owner comes back
// to set its DNS after half a day.
type apart struct {
	*divided
	fleet      *wholeFleet
	roots      *x509.CertPool
	gone, late fleet.HostName
	// label is the one that gone had.
	label string
}

func (a *apart) hostPath(name fleet.HostName) string {
	return tenantPath(dividedTenant, "hosts/"+string(name))
}

func (a *apart) show(t *testing.T, name fleet.HostName) (client.HostView, error) {
	t.Helper()
	return client.Get[client.HostView](t.Context(), a.tenant, a.hostPath(name), nil)
}

// cut has the edges hear nothing, and the control plane nothing of them.
func (a *apart) cut()  { a.api.shut(); a.nats.shut() }
func (a *apart) join() { a.api.open(); a.nats.open() }

// dial opens a connection for a name to an edge.
func (a *apart) dial(t *testing.T, e *runningEdge, name fleet.HostName, cache tls.ClientSessionCache) (*tls.Conn, error) {
	t.Helper()
	d := tls.Dialer{Config: &tls.Config{ServerName: string(name), RootCAs: a.roots, ClientSessionCache: cache, NextProtos: []string{"http/1.1"}, MinVersion: tls.VersionTLS12}}
	c, err := d.DialContext(t.Context(), "tcp", e.at(8443))
	if err != nil {
		return nil, err
	}
	conn, _ := c.(*tls.Conn)
	return conn, conn.SetDeadline(time.Now().Add(patience))
}

// resumes visits an edge and reports whether the session of the visit before was resumed there.
func (a *apart) resumes(t *testing.T, e *runningEdge, cache tls.ClientSessionCache) bool {
	t.Helper()
	conn, err := a.dial(t, e, a.host, cache)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	// Tickets come after the handshake: an answer has passed them.
	_, _ = fmt.Fprintf(conn, "GET /session HTTP/1.1\r\nHost: %s\r\nUser-Agent: edgefleet-e2e/1.0\r\nAccept: */*\r\nConnection: close\r\n\r\n", a.host)
	if b, err := io.ReadAll(conn); err != nil || !strings.Contains(string(b), "saw GET /session") {
		t.Fatalf("%s: %v %q", e.id, err, b)
	}
	return conn.ConnectionState().DidResume
}

// leaf is the certificate that an edge shows for a name.
func (a *apart) leaf(t *testing.T, e *runningEdge, name fleet.HostName) *x509.Certificate {
	t.Helper()
	conn, err := a.dial(t, e, name, nil)
	if err != nil {
		t.Fatalf("%s at %s: %v", name, e.id, err)
	}
	defer func() { _ = conn.Close() }()
	return conn.ConnectionState().PeerCertificates[0]
}

// restored brings the control plane back from a backup of now, of which change changes the state, on an empty disk;
// meanwhile runs while there is none.
func (a *apart) restored(t *testing.T, change func(*state.Tx), meanwhile func()) {
	t.Helper()
	var taken, changed bytes.Buffer
	if err := a.operator.Download(t.Context(), "/v1/cluster/snapshot", &taken); err != nil {
		t.Fatal(err)
	}
	kek, err := keyring.LoadKEK(a.kek)
	if err != nil {
		t.Fatal(err)
	}
	loaded, err := backup.Load(&taken, kek)
	if err != nil {
		t.Fatal(err)
	}
	tx := loaded.State.Write()
	change(tx)
	tx.Commit()
	if _, err := backup.Write(&changed, backup.Source{View: loaded.State.Read(), Term: loaded.Envelope.Term, Member: loaded.Envelope.Member, Keys: loaded.Keys, Now: time.Now()}); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	file, recovery, token := filepath.Join(dir, "edgefleet.snapshot"), filepath.Join(dir, "recovery.key"), a.token()
	write(t, file, changed.String())
	write(t, recovery, string(read(t, a.path("recovery.key"))))
	a.stop()
	if err := os.RemoveAll(a.data()); err != nil {
		t.Fatal(err)
	}
	meanwhile()
	if r := a.controlplane("init", "--from-snapshot", file, "--recovery-key", recovery, "--yes"); r.code != fleet.ExitOK {
		t.Fatal(r.stderr)
	}
	write(t, a.path("operator.token"), token)
	a.launch()
	await(t, "the control plane is back", func() bool {
		s, err := client.Get[client.ClusterStatus](t.Context(), a.operator, "/v1/cluster", nil)
		return err == nil && s.Leader == "m1"
	})
}

func TestHostsThroughARestoreAndATheft(t *testing.T) {
	t.Parallel()
	f := sharedFleet(t)
	a := &apart{divided: newDivided(t, f, "www.restored.example", "5m"), fleet: f, roots: pool(t, f.ACMERoots), gone: "gone.restored.example", late: "late.restored.example"}
	a.protect(t, f, a.gone)
	a.claim(t, f, a.late)
	ok := t.Run("names that are being deleted when a backup is restored become free when the edges let go of them", a.restoredWhileDeleting)
	ok = ok && t.Run("made-up names cost nothing, and the first client of a host has its DNS looked at", a.firstClient)
	ok = ok && t.Run("a stolen node gets nothing new, and what it knew is worth nothing", a.stolenNode)
	if !ok {
		t.Fatal("the steps after a failed one would prove nothing")
	}
}

func (a *apart) restoredWhileDeleting(t *testing.T) {
	if _, err := client.Post[fleet.Tenant](t.Context(), a.operator, "/v1/tenants", client.TenantCreate{ID: "rival", Name: "Rival", Form: fleet.SecurityEdge}); err != nil {
		t.Fatal(err)
	}
	claim := func() (client.HostView, error) {
		in := client.HostCreate{Name: string(a.gone), Origins: []fleet.Origin{{URL: "https://203.0.113.9"}}, Mode: fleet.ModeBlock}
		return client.Post[client.HostView](t.Context(), a.operator, tenantPath("rival", "hosts"), in)
	}
	before, err := a.show(t, a.gone)
	if err != nil {
		t.Fatal(err)
	}
	a.label = before.Desired.Label
	if got := a.addresses(t); len(got) != 2 {
		t.Errorf("the label leads to %v", got)
	}
	a.cut()
	a.fleet.setDNS(t, string(a.gone), "A")
	if err := a.tenant.Do(t.Context(), http.MethodDelete, a.hostPath(a.gone), nil, nil, nil, client.IfMatchAny()); err != nil {
		t.Fatal(err)
	}
	held := func(when string) {
		t.Helper()
		if h, err := a.show(t, a.gone); err != nil || h.Observed.Phase != fleet.PhaseDeleting {
			t.Errorf("%s: %s, %v", when, h.Observed.Phase, err)
		}
		if _, err := claim(); !errors.Is(err, fleet.ErrConflict) {
			t.Errorf("%s somebody else got the name: %v", when, err)
		}
	}
	held("before the backup")
	a.restored(t, a.halfADayLater, func() { a.sessionsResume(t) })
	held("after the restore")
	for _, e := range a.edges {
		a.leaf(t, e, a.gone) // which the edges serve
	}

	a.join()
	await(t, "the name is free", func() bool {
		_, err := a.show(t, a.gone)
		return errors.Is(err, fleet.ErrNotFound)
	})
	for _, e := range a.edges {
		if conn, err := a.dial(t, e, a.gone, nil); err == nil || !strings.Contains(err.Error(), "unrecognized name") {
			t.Errorf("%s serves a name that is free: %v", e.id, err)
			if err == nil {
				_ = conn.Close()
			}
		}
	}
	after, err := claim()
	if err != nil {
		t.Fatal(err)
	}
	if after.Desired.Label == a.label || after.Desired.Label == "" {
		t.Errorf("the label %q was issued again", after.Desired.Label)
	}
	if got := a.addresses(t); len(got) > 0 {
		t.Errorf("the label of a host that is gone leads to %v", got)
	}
	if err := a.operator.Do(t.Context(), http.MethodDelete, tenantPath("rival", "hosts/"+string(a.gone)), nil, nil, nil, client.IfMatchAny()); err != nil {
		t.Fatal(err)
	}
}

// addresses are what the zone answers for the label of the host that is deleted; none for NXDOMAIN.
func (a *apart) addresses(t *testing.T) (out []string) {
	t.Helper()
	q := new(dns.Msg).SetQuestion(dns.Fqdn(a.label+".edge.apart"), dns.TypeA)
	res, err := dns.Exchange(q, a.at(8053))
	if err != nil {
		t.Fatal(err)
	}
	for _, rr := range res.Answer {
		out = append(out, rr.String())
	}
	if (res.Rcode == dns.RcodeNameError) != (len(out) == 0) {
		t.Errorf("%s: %s with %v", q.Question[0].Name, dns.RcodeToString[res.Rcode], out)
	}
	return out
}

// halfADayLater makes the owner of the late host one who has not set its DNS for half a day: it is looked at rarely.
func (a *apart) halfADayLater(tx *state.Tx) {
	h, _ := tx.Host(a.late)
	for _, c := range []*fleet.Condition{&h.Observed.Ownership, &h.Observed.Routing, &h.Observed.Certificate} {
		c.Since = c.Since.Add(-12 * time.Hour)
		if !c.NextCheck.IsZero() {
			c.NextCheck = c.NextCheck.Add(time.Hour)
		}
	}
	tx.PutHost(h)
}

// sessionsResume holds that a session that one edge made resumes on the other, and after that one's restart, with nothing
// of the control plane left.
func (a *apart) sessionsResume(t *testing.T) {
	t.Helper()
	cache := tls.NewLRUClientSessionCache(1)
	first, second := a.edges[0], a.edges[1]
	if a.resumes(t, first, cache) {
		t.Error("the first visit resumed")
	}
	if !a.resumes(t, second, cache) {
		t.Errorf("a session of %s did not resume on %s", first.id, second.id)
	}
	second.stop()
	second.start("")
	await(t, second.id+" serves again", func() bool {
		conn, err := a.dial(t, second, a.host, nil)
		if err == nil {
			_ = conn.Close()
		}
		return err == nil
	})
	if !a.resumes(t, first, cache) || !a.resumes(t, second, cache) {
		t.Errorf("a session did not resume after the restart of %s", second.id)
	}
}

func (a *apart) firstClient(t *testing.T) {
	a.connected(t, 1)
	a.lead(t, a.fleet, a.late)
	before := a.work(t)
	const names = 1500
	a.flood(t, names)
	after := a.work(t)
	for what, n := range after {
		if grown := n - before[what]; grown > names/10 {
			t.Errorf("%d made-up names made %v %s", 2*names, grown, what)
		}
	}
	h, err := a.show(t, a.late)
	if err != nil || h.Observed.Phase != fleet.PhasePendingDNS || time.Until(h.Observed.Routing.NextCheck) < 10*time.Minute {
		t.Fatalf("the host is looked at without a client: %+v %v", h.Observed, err)
	}
	if conn, err := a.dial(t, a.edges[0], a.late, nil); err == nil {
		_ = conn.Close()
		t.Fatal("there is a certificate already")
	}
	a.active(t, a.hostPath(a.late))
	for _, e := range a.edges {
		a.leaf(t, e, a.late)
	}
}

// work is what the control plane and the edges did so far, by what it is.
func (a *apart) work(t *testing.T) map[string]float64 {
	t.Helper()
	out := map[string]float64{}
	for name, v := range series(t, a.at(8444)) {
		switch {
		case name == "edgefleet_raft_last_index":
			out["entries in the log"] = v
		case strings.HasPrefix(name, "edgefleet_api_requests_total"):
			out["requests to the API"] += v
		}
	}
	for _, e := range a.edges {
		for name, v := range series(t, e.at(9180)) {
			switch {
			case strings.HasPrefix(name, "edgefleet_node_polls_total"), strings.HasPrefix(name, "edgefleet_node_blobs_total"):
				out["messages of nodes"] += v
			case strings.HasPrefix(name, "edgefleet_spool_"):
				out["changes of the spool"] += v
			}
		}
	}
	if len(out) < 4 {
		t.Fatalf("the metrics lack something: %v", out)
	}
	return out
}

// flood asks each edge for n names that nobody has.
func (a *apart) flood(t *testing.T, n int) {
	t.Helper()
	var g errgroup.Group
	g.SetLimit(8)
	for i := range n {
		for _, e := range a.edges {
			g.Go(func() error {
				name := fmt.Sprintf("%s.%s", marker("sni"), []string{"restored.example", string(a.late), "example.net"}[i%3])
				conn, err := a.dial(t, e, fleet.HostName(name), nil)
				if err == nil {
					return errors.Join(fmt.Errorf("%s is served by %s", name, e.id), conn.Close())
				}
				if op, ok := errors.AsType[*net.OpError](err); !ok || op.Op != "remote error" {
					return fmt.Errorf("%s at %s: %w", name, e.id, err)
				}
				return nil
			})
		}
	}
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
}

// pebbleSays is the state of a certificate at its authority: Valid or Revoked, and why.
func (a *apart) pebbleSays(t *testing.T, cert *x509.Certificate) (status string, reason int) {
	t.Helper()
	u := strings.TrimSuffix(strings.Replace(a.fleet.directory(t), ":14000", ":15000", 1), "/dir") + "/cert-status-by-serial/" + cert.SerialNumber.Text(16)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool(t, filepath.Join(a.fleet.dir, "pebble/ca.pem")), MinVersion: tls.VersionTLS12}}
	defer transport.CloseIdleConnections()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	res, err := transport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	var s struct {
		Status string
		Reason int
	}
	if err := json.NewDecoder(io.LimitReader(res.Body, 1<<20)).Decode(&s); err != nil || res.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s, %v", u, res.Status, err)
	}
	return s.Status, s.Reason
}

func same(a, b *x509.Certificate) bool {
	return a.SerialNumber.Cmp(b.SerialNumber) == 0 || slices.Equal(a.RawSubjectPublicKeyInfo, b.RawSubjectPublicKeyInfo)
}
