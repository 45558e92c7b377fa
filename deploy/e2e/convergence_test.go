package e2e_test

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/edgefleet/edgefleet/controlplane/client"
	"github.com/edgefleet/edgefleet/fleet"
)

// gate is a TCP proxy in front of one port, which can be shut.
type gate struct {
	t              *testing.T
	listen, target string

	mu       sync.Mutex
	listener net.Listener
	conns    map[net.Conn]bool
	work     sync.WaitGroup
}

func newGate(t *testing.T, listen, target string) *gate {
	t.Helper()
	g := &gate{t: t, listen: listen, target: target, conns: map[net.Conn]bool{}}
	g.open()
	t.Cleanup(g.shut)
	return g
}

// open lets connections through.
func (g *gate) open() {
	g.t.Helper()
	l, err := net.Listen("tcp", g.listen)
	if err != nil {
		g.t.Fatal(err)
	}
	g.mu.Lock()
	g.listener = l
	g.mu.Unlock()
	g.work.Go(func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			g.work.Go(func() { g.pass(l, in) })
		}
	})
}

// shut refuses new connections and cuts the others.
func (g *gate) shut() {
	g.mu.Lock()
	if g.listener != nil {
		_ = g.listener.Close()
	}
	g.listener = nil
	for c := range g.conns {
		_ = c.Close()
	}
	g.mu.Unlock()
	g.work.Wait()
}

// pass copies both ways until either end closes.
func (g *gate) pass(l net.Listener, in net.Conn) {
	defer func() { _ = in.Close() }()
	out, err := net.Dial("tcp", g.target)
	if err != nil {
		return
	}
	defer func() { _ = out.Close() }()
	g.mu.Lock()
	open := g.listener == l
	if open {
		g.conns[in], g.conns[out] = true, true
	}
	g.mu.Unlock()
	if !open {
		return
	}
	g.work.Go(func() {
		_, _ = io.Copy(out, in)
		_ = out.Close()
	})
	_, _ = io.Copy(in, out)
	g.mu.Lock()
	delete(g.conns, in)
	delete(g.conns, out)
	g.mu.Unlock()
}

// runningEdge is a supervisor with its worker.
type runningEdge struct {
	*edge
	cmd *exec.Cmd
	log *buffer
}

func (e *runningEdge) start(token string) {
	e.t.Helper()
	e.cmd = program("edgesupervisor", []string{"EDGEFLEET_JOIN_TOKEN=" + token}, "run", "--config", e.file())
	e.cmd.Stdout, e.cmd.Stderr = e.log, e.log
	if err := e.cmd.Start(); err != nil {
		e.t.Fatal(err)
	}
}

func (e *runningEdge) stop() {
	e.t.Helper()
	if err := e.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		e.t.Error(err)
	}
	end(e.t, e.cmd, syscall.SIGKILL, 30*time.Second)
	if code := e.cmd.ProcessState.ExitCode(); code != 0 || e.t.Failed() {
		e.t.Errorf("edge %s ended with %d:\n%s", e.id, code, e.log)
	}
}

// kill ends supervisor and worker with SIGKILL.
func (e *runningEdge) kill(t *testing.T) {
	t.Helper()
	pids := []int{e.cmd.Process.Pid}
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pids[0]))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		for child := range strings.FieldsSeq(string(read(t, f))) {
			pid, err := strconv.Atoi(child)
			if err != nil {
				t.Fatal(err)
			}
			pids = append(pids, pid)
		}
	}
	if len(pids) != 2 {
		t.Fatalf("processes %v; want supervisor and worker", pids)
	}
	for _, pid := range pids {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
			t.Fatal(err)
		}
	}
	_ = e.cmd.Wait() // says that it was killed
}

// series are the metrics that an admin listener shows now, each with its labels in order of their names.
func series(t *testing.T, address string) map[string]float64 {
	t.Helper()
	out := map[string]float64{}
	res, err := http.Get("http://" + address + "/metrics")
	if err != nil {
		return out // it is about to start
	}
	defer func() { _ = res.Body.Close() }()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if i := strings.LastIndexByte(line, ' '); i > 0 && !strings.HasPrefix(line, "#") {
			if v, err := strconv.ParseFloat(strings.TrimSpace(line[i:]), 64); err == nil {
				out[line[:i]] = v
			}
		}
	}
	return out
}

func (e *runningEdge) metric(t *testing.T, name string) float64 { return series(t, e.at(9180))[name] }

// divided is a cluster of one member that nodes reach through gates, with two edges and a protected host that is
// active. CA, customer's DNS and origin are the shared fleet's.
type divided struct {
	*member
	host             fleet.HostName
	api, nats        *gate
	operator, tenant *client.Client
	edges            []*runningEdge
	visitors         []visitor
}

const dividedTenant fleet.TenantID = "apart"

// newDivided calls a node down that was not heard of for reapAfter. The host is one that no other test has.
func newDivided(t *testing.T, f *wholeFleet, host fleet.HostName, reapAfter string) *divided {
	t.Helper()
	inside := loopback()
	d := &divided{member: newMember(t, "m1"), host: host}
	d.resolver = f.CustomerDNS
	d.configure("cluster_zone: edge.apart", "api_listen: "+inside+":8440", "nats_listen: "+inside+":8442", "edge_https_port: 8443", "reap_after: "+reapAfter,
		"trusted_edge_roots_file: "+f.ACMERoots, fmt.Sprintf("acme: {directory: %q, ca_file: %q, email: ops@edge.apart}", f.directory(t), filepath.Join(f.dir, "pebble/ca.pem")))
	d.api, d.nats = newGate(t, d.at(8440), inside+":8440"), newGate(t, d.at(8442), inside+":8442")
	d.initialize()
	d.start()
	tc := &tls.Config{RootCAs: pool(t, d.path("api-ca.crt")), ServerName: d.ip, MinVersion: tls.VersionTLS13}
	connect := func(token string) *client.Client {
		c, err := client.New(client.Options{Addrs: []string{inside + ":8440"}, Token: token, TLS: tc, Timeout: 10 * time.Second})
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	d.operator = connect(d.token())
	in := client.TenantCreate{ID: dividedTenant, Name: "Apart", Form: fleet.SecurityEdge, AllowedOrigins: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}
	if _, err := client.Post[fleet.Tenant](t.Context(), d.operator, "/v1/tenants", in); err != nil {
		t.Fatal(err)
	}
	d.tenant = connect(d.must("token", "create", "--tenant", string(dividedTenant)))
	for _, id := range []string{"n1", "n2"} {
		d.enrol(t, id)
		d.visitors = append(d.visitors, newVisitor(t, host, d.edges[len(d.edges)-1].ip, pool(t, f.ACMERoots)))
	}
	d.up(t)
	if o := d.protect(t, f, host); o.Challenge != fleet.ChallengeHTTP01 {
		t.Errorf("challenge %q", o.Challenge)
	}
	return d
}

// enrol starts an edge.
func (d *divided) enrol(t *testing.T, id string) {
	t.Helper()
	e := &runningEdge{edge: newEdge(t, id, d.member), log: &buffer{}}
	e.configure("poll_interval: 20s", "heartbeat_interval: 1s", "drain_timeout: 3s", "log_level: warn")
	e.start(d.must("node", "join-token"))
	t.Cleanup(e.stop)
	d.edges = append(d.edges, e)
}

// up waits until every edge serves.
func (d *divided) up(t *testing.T) {
	t.Helper()
	await(t, "every edge is up", func() bool {
		ns, err := client.All[fleet.Node](t.Context(), d.operator, "/v1/nodes", nil)
		return err == nil && len(ns) == len(d.edges) && !slices.ContainsFunc(ns, func(n fleet.Node) bool { return !n.Observed.Serving })
	})
}

// directory is the ACME directory's URL: the CA has the third address of the fleet's outside world.
func (f *wholeFleet) directory(t *testing.T) string {
	t.Helper()
	origin, err := netip.ParseAddrPort(strings.TrimPrefix(f.Origin, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	return "https://" + netip.AddrPortFrom(origin.Addr().Next(), 14000).String() + "/dir"
}

// claim adds a host of the tenant, and returns its path.
func (d *divided) claim(t *testing.T, f *wholeFleet, name fleet.HostName) (path string) {
	t.Helper()
	in := client.HostCreate{Name: string(name), Origins: []fleet.Origin{{URL: f.Origin}}, Mode: fleet.ModeBlock}
	if _, err := client.Post[client.HostView](t.Context(), d.tenant, tenantPath(dividedTenant, "hosts"), in); err != nil {
		t.Fatal(err)
	}
	return tenantPath(dividedTenant, "hosts/"+string(name))
}

// lead points a name at the two edges by their addresses, as an apex has them, so that certificates come by HTTP-01.
func (d *divided) lead(t *testing.T, f *wholeFleet, name fleet.HostName) {
	t.Helper()
	f.setDNS(t, string(name), "A", d.edges[0].ip, d.edges[1].ip)
}

// protect adds a host and waits until it is active.
func (d *divided) protect(t *testing.T, f *wholeFleet, name fleet.HostName) fleet.HostObserved {
	t.Helper()
	path := d.claim(t, f, name)
	d.lead(t, f, name)
	return d.active(t, path)
}

// active waits until a host is.
func (d *divided) active(t *testing.T, path string) fleet.HostObserved {
	t.Helper()
	var last client.HostView
	defer func() {
		if t.Failed() {
			t.Logf("%s: %+v", path, last.Observed)
		}
	}()
	await(t, path+" is active", func() bool {
		h, err := client.Get[client.HostView](t.Context(), d.tenant, path, nil)
		last = h
		return err == nil && active(h.Observed)
	})
	return last.Observed
}

// addRule adds a rule that blocks requests with a word, and returns the path of one.
func (d *divided) addRule(t *testing.T) (path string) {
	t.Helper()
	word := marker("forbidden")
	spec := fleet.RuleSpec{Kind: fleet.RuleRegex, Pattern: word, AttackType: fleet.AttackCustom, Comment: "convergence"}
	if err := d.tenant.Do(t.Context(), http.MethodPost, tenantPath(dividedTenant, "rules"), nil, client.RuleCreate{Spec: spec}, nil); err != nil {
		t.Fatal(err)
	}
	return "/?say=" + word
}

// receipt says how far the rules came.
func (d *divided) receipt(t *testing.T) (client.RulesetStatus, error) {
	return client.Get[client.RulesetStatus](t.Context(), d.tenant, tenantPath(dividedTenant, "ruleset/status"), nil)
}

// live waits until the receipt says that every node runs rules that are newer than before.
func (d *divided) live(t *testing.T, before fleet.Version) {
	t.Helper()
	var last client.RulesetStatus
	defer func() {
		if t.Failed() {
			t.Logf("receipt: %+v; before: %+v", last, before)
		}
	}()
	await(t, "the rules are live on 2/2 nodes", func() bool {
		s, err := d.receipt(t)
		last = s
		return err == nil && s.Version.Compare(before) > 0 && s.Nodes == 2 && s.Live == 2 && len(s.Waiting) == 0
	})
	for _, e := range d.edges {
		if got := e.metric(t, `edgefleet_node_head_generation{kind="ruleset"}`); got != float64(last.Version.Generation) {
			t.Errorf("%s serves generation %v, the receipt says %d", e.id, got, last.Version.Generation)
		}
	}
}

// converge changes the rules, waits for the receipt and trusts it: every edge must block at once.
func (d *divided) converge(t *testing.T) (path string) {
	t.Helper()
	before, err := d.receipt(t)
	if err != nil {
		t.Fatal(err)
	}
	path = d.addRule(t)
	d.live(t, before.Version)
	for _, v := range d.visitors {
		v.wants(t, http.StatusForbidden, path)
	}
	return path
}

// blobs returns how many blobs each edge fetched by a transport.
func (d *divided) blobs(t *testing.T, transport string) (n []float64) {
	t.Helper()
	for _, e := range d.edges {
		n = append(n, e.metric(t, fmt.Sprintf(`edgefleet_node_blobs_total{result="ok",transport=%q}`, transport)))
	}
	return n
}

// fetched fails unless what it runs makes every edge fetch blobs by one transport and none by the other.
func (d *divided) fetched(t *testing.T, by, not string, run func()) {
	t.Helper()
	before, beforeNot := d.blobs(t, by), d.blobs(t, not)
	run()
	after, afterNot := d.blobs(t, by), d.blobs(t, not)
	for i := range after {
		if after[i] <= before[i] || afterNot[i] != beforeNot[i] {
			t.Errorf("%s fetched %v blobs by %s and %v by %s", d.edges[i].id, after[i]-before[i], by, afterNot[i]-beforeNot[i], not)
		}
	}
}

// connected waits until every edge sees itself connected to NATS, or not.
func (d *divided) connected(t *testing.T, want float64) {
	t.Helper()
	for _, e := range d.edges {
		await(t, fmt.Sprintf("%s is connected: %v", e.id, want), func() bool {
			got, ok := series(t, e.at(9180))["edgefleet_node_session_connected"]
			return ok && got == want
		})
	}
}

func TestConvergence(t *testing.T) {
	t.Parallel()
	d := newDivided(t, sharedFleet(t), "www.apart.example", "4s")
	var paths []string
	ok := t.Run("with HTTPS blocked by NATS alone", func(t *testing.T) {
		d.api.shut()
		defer d.api.open()
		d.connected(t, 1)
		d.fetched(t, "nats", "https", func() { paths = append(paths, d.converge(t)) })
	})
	ok = ok && t.Run("with NATS blocked by HTTPS alone", func(t *testing.T) {
		d.nats.shut()
		defer d.nats.open()
		d.connected(t, 0)
		d.fetched(t, "https", "nats", func() { paths = append(paths, d.converge(t)) })
		d.stayUp(t, 6*time.Second)
	})
	ok = ok && t.Run("with both blocked the edge serves what it has", func(t *testing.T) {
		d.cutOff(t, paths)
	})
	if !ok {
		t.Fatal("the steps after a failed one would prove nothing")
	}
}

// stayUp holds that no node is called down for longer than the age at which that happens. Each look follows a change that
// reached them.
func (d *divided) stayUp(t *testing.T, during time.Duration) {
	t.Helper()
	begin := time.Now()
	for time.Since(begin) < during {
		d.converge(t)
	}
	ns, err := client.All[fleet.Node](t.Context(), d.operator, "/v1/nodes", nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range ns {
		if n.Observed.State != fleet.NodeUp || n.Observed.Since.After(begin) {
			t.Errorf("%s is %s since %s: it was called down although it reports by HTTPS", n.ID, n.Observed.State, n.Observed.Since)
		}
	}
}

// cutOff takes NATS and HTTPS away, kills an edge, and brings everything back. paths are blocked by the rules so far.
func (d *divided) cutOff(t *testing.T, paths []string) {
	t.Helper()
	d.connected(t, 1)
	before, err := d.receipt(t)
	if err != nil {
		t.Fatal(err)
	}
	d.api.shut()
	d.nats.shut()
	d.connected(t, 0)
	late := d.addRule(t)
	page := marker("alone")
	d.holds(t, page+"-before", paths, late)
	for _, e := range d.edges {
		await(t, e.id+" holds the events on its disk", func() bool { return e.metric(t, "edgefleet_spool_events") > 0 })
	}
	d.edges[0].kill(t)
	d.edges[0].start("")
	await(t, "the killed edge serves again", func() bool {
		status, _, err := d.visitors[0].get(t.Context(), "https", "/")
		return err == nil && status == http.StatusOK
	})
	d.holds(t, page+"-after", paths, late)

	d.api.open()
	d.nats.open()
	d.live(t, before.Version)
	for i, v := range d.visitors {
		v.wants(t, http.StatusForbidden, late)
		for _, when := range []string{"-before", "-after"} {
			at := page + when + d.edges[i].id
			await(t, "the event of "+at, func() bool {
				e, ok := eventOf(t, d.tenant, dividedTenant, at)
				return ok && string(e.NodeID) == d.edges[i].id
			})
		}
	}
}

// holds sees every edge serve, block an attack and what the rules block, and pass what only a rule blocks that could not
// reach it.
func (d *divided) holds(t *testing.T, page string, paths []string, late string) {
	t.Helper()
	for i, v := range d.visitors {
		v.wants(t, http.StatusOK, "/")
		v.wants(t, http.StatusOK, late)
		v.wants(t, http.StatusForbidden, attack(page+d.edges[i].id))
		for _, p := range paths {
			v.wants(t, http.StatusForbidden, p)
		}
	}
}
