package controlplane_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/edgefleet/edgefleet/controlplane"
	"github.com/edgefleet/edgefleet/controlplane/client"
	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/tls/mtls"
)

// patience is how long a test waits for something that takes a fraction of it.
const patience = 90 * time.Second

// cluster is a control plane in this process: real Raft on disk, real TLS, real NATS, real DNS.
type cluster struct {
	t       *testing.T
	kek     string
	token   string
	cacert  []byte
	members []*running
}

type running struct {
	config controlplane.Config
	cancel context.CancelFunc
	done   chan error
}

// newConfig is a member with a loopback address of its own.
func newConfig(t *testing.T, id string, kek string) controlplane.Config {
	t.Helper()
	ip := fmt.Sprintf("127.%d.%d.%d", 64+rand.IntN(100), rand.IntN(256), 1+rand.IntN(250))
	dir := t.TempDir()
	path := filepath.Join(dir, "controlplane.yaml")
	text := fmt.Sprintf(`data_dir: %s/data
member: %s
cluster_zone: edge.example
advertise: %s
api_listen: %[3]s:8440
raft_listen: %[3]s:8441
nats_listen: %[3]s:8442
nats_route_listen: %[3]s:8443
dns_listen: %[3]s:8053
admin_listen: %[3]s:8444
kek_file: %[4]s
resolvers: ["%[3]s:8053"]
raft_timeout: 500ms
audit_keep: 100
log_level: error
`, dir, id, ip, kek)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := controlplane.LoadConfig(path)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// start makes a cluster of n members that all vote.
func start(t *testing.T, n int) *cluster {
	t.Helper()
	return startWith(t, n, func(*controlplane.Config) {})
}

// startWith changes the configuration of the first member.
func startWith(t *testing.T, n int, change func(*controlplane.Config)) *cluster {
	t.Helper()
	c := &cluster{t: t, kek: filepath.Join(t.TempDir(), "kek")}
	first := newConfig(t, "m1", c.kek)
	change(&first)
	out, err := controlplane.Init(t.Context(), first)
	if err != nil {
		t.Fatal(err)
	}
	c.token = out.Token
	if c.cacert, err = os.ReadFile(out.CACert); err != nil {
		t.Fatal(err)
	}
	c.run(first)
	for i := 2; i <= n; i++ {
		c.join(newConfig(t, fmt.Sprintf("m%d", i), c.kek))
	}
	c.await("all members vote", func() bool {
		s, err := client.Get[client.ClusterStatus](t.Context(), c.client(), "/v1/cluster", nil)
		voters := 0
		for _, m := range s.Members {
			if m.Suffrage == "voter" {
				voters++
			}
		}
		return err == nil && s.Leader != "" && voters == n
	})
	return c
}

func (c *cluster) join(cfg controlplane.Config) {
	c.t.Helper()
	var tok client.JoinTokenCreated
	c.await("a join token is made", func() bool {
		var err error
		tok, err = client.Post[client.JoinTokenCreated](c.t.Context(), c.client(), "/v1/join-tokens", client.JoinTokenCreate{Kind: fleet.JoinMember})
		return err == nil
	})
	if _, err := controlplane.Join(c.t.Context(), cfg, tok.Secret, c.members[0].config.APIListen); err != nil {
		c.t.Fatal(err)
	}
	c.run(cfg)
}

func (c *cluster) run(cfg controlplane.Config) *running {
	ctx, cancel := context.WithCancel(context.WithoutCancel(c.t.Context()))
	r := &running{config: cfg, cancel: cancel, done: make(chan error, 1)}
	go func() { r.done <- controlplane.Run(ctx, cfg, c.t.Output()) }()
	c.members = append(c.members, r)
	c.t.Cleanup(func() { r.stop(c.t) })
	return r
}

func (r *running) stop(t *testing.T) {
	r.cancel()
	select {
	case err, ok := <-r.done:
		if ok {
			close(r.done)
			if err != nil {
				t.Errorf("member %s: %v", r.config.Member, err)
			}
		}
	case <-time.After(patience):
		t.Errorf("member %s does not stop", r.config.Member)
	}
}

// client reaches the running members with the operator's token, or with another.
func (c *cluster) client(token ...string) *client.Client {
	c.t.Helper()
	o := client.Options{CACert: c.cacert, Token: c.token, Timeout: 10 * time.Second}
	if len(token) > 0 {
		o.Token = token[0]
	}
	for _, m := range c.members {
		o.Addrs = append(o.Addrs, m.config.APIListen)
	}
	return c.must(client.New(o))
}

// at reaches one member only.
func (c *cluster) at(i int) *client.Client {
	return c.must(client.New(client.Options{Addrs: []string{c.members[i].config.APIListen}, CACert: c.cacert, Token: c.token, Timeout: 10 * time.Second}))
}

func (c *cluster) must(cl *client.Client, err error) *client.Client {
	if err != nil {
		c.t.Fatal(err)
	}
	return cl
}

func (c *cluster) await(what string, ok func() bool) {
	c.t.Helper()
	await(c.t, what, ok)
}

func await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for end := time.After(patience); !ok(); {
		select {
		case <-tick.C:
		case <-end:
			t.Fatalf("waited %s in vain: %s", patience, what)
		}
	}
}

// leader is the index of the member that leads.
func (c *cluster) leader() int {
	c.t.Helper()
	leader := -1
	c.await("there is a leader", func() bool {
		s, err := client.Get[client.ClusterStatus](c.t.Context(), c.client(), "/v1/cluster", nil)
		for i, m := range c.members {
			if err == nil && m.config.Member == s.Leader {
				leader = i
			}
		}
		return leader >= 0
	})
	return leader
}

func tenant(t *testing.T, c *client.Client, id fleet.TenantID) {
	t.Helper()
	if _, err := client.Post[fleet.Tenant](t.Context(), c, "/v1/tenants", client.TenantCreate{ID: id}); err != nil {
		t.Fatal(err)
	}
}

func TestThreeMembers(t *testing.T) {
	if testing.Short() {
		t.Skip("starts three members")
	}
	t.Parallel()
	c := start(t, 3)
	lead := c.leader()
	follower := (lead + 1) % 3

	t.Run("a write through a follower is read back through another member", func(t *testing.T) {
		tenant(t, c.at(follower), "acme")
		got, err := client.Get[fleet.Tenant](t.Context(), c.at((lead+2)%3), "/v1/tenants/acme", nil)
		if err != nil || got.Spec.Form != fleet.SecurityEdge {
			t.Errorf("got %+v, %v", got, err)
		}
	})
	t.Run("every mutation has one audit entry and the chain holds", func(t *testing.T) {
		entries := auditLog(t, c.client())
		if err := fleet.VerifyAudit(entries); err != nil {
			t.Error(err)
		}
		n := 0
		for _, e := range entries {
			if e.Object == "tenant/acme" {
				n++
				if e.Source == "" || !strings.HasPrefix(e.Name, "token/") || e.RequestID == "" {
					t.Errorf("entry says not who asked: %+v", e)
				}
			}
		}
		if n != 1 {
			t.Errorf("%d entries for one mutation", n)
		}
	})
	t.Run("all members have the same state at the same index", func(t *testing.T) {
		c.await("equal hashes", func() bool {
			seen := map[string]bool{}
			for i := range c.members {
				s, err := client.Get[client.ClusterStatus](t.Context(), c.at(i), "/v1/cluster", url.Values{"hash": {"true"}})
				if err != nil {
					return false
				}
				seen[fmt.Sprint(s.Applied, s.StateHash)] = true
			}
			return len(seen) == 1
		})
	})
	t.Run("one of two tenants wins that claim names above and below each other through two members", func(t *testing.T) {
		c.claimedThroughTwoMembers(t)
	})
	t.Run("without the leader a write is accepted again, and it comes back", func(t *testing.T) {
		c.members[lead].stop(t)
		c.await("a write is accepted", func() bool {
			_, err := client.Post[fleet.Tenant](t.Context(), c.client(), "/v1/tenants", client.TenantCreate{ID: "after"})
			return err == nil || errors.Is(err, fleet.ErrConflict)
		})
		old := c.members[lead].config
		c.members = append(c.members[:lead], c.members[lead+1:]...)
		r := c.run(old)
		cl := c.must(client.New(client.Options{Addrs: []string{r.config.APIListen}, CACert: c.cacert, Token: c.token}))
		c.await("the member that was away has the write", func() bool {
			_, err := client.Get[fleet.Tenant](t.Context(), cl, "/v1/tenants/after", url.Values{"consistency": {"stale"}})
			return err == nil
		})
	})
	t.Run("without a quorum stale reads answer, and writes are refused with what to do", func(t *testing.T) {
		for _, m := range c.members[1:] {
			m.stop(t)
		}
		one := c.at(0)
		c.await("the loss is noticed", func() bool {
			_, err := client.Post[fleet.Tenant](t.Context(), one, "/v1/tenants", client.TenantCreate{ID: "nobody"})
			return errors.Is(err, fleet.ErrUnavailable) && strings.Contains(err.Error(), "no leader")
		})
		if _, err := client.Get[fleet.Tenant](t.Context(), one, "/v1/tenants/acme", url.Values{"consistency": {"stale"}}); err != nil {
			t.Errorf("stale read: %v", err)
		}
		aged := url.Values{"consistency": {"stale"}, "max_age": {"1ms"}}
		if _, err := client.Get[fleet.Tenant](t.Context(), one, "/v1/tenants/acme", aged); !errors.Is(err, fleet.ErrUnavailable) || !strings.Contains(err.Error(), "heard from the leader") {
			t.Errorf("stale read that must not be old: %v", err)
		}
		aged.Set("max_age", "1h")
		if _, err := client.Get[fleet.Tenant](t.Context(), one, "/v1/tenants/acme", aged); err != nil {
			t.Errorf("stale read that may be old: %v", err)
		}
	})
}

func auditLog(t *testing.T, c *client.Client) []fleet.AuditEntry {
	t.Helper()
	var all []fleet.AuditEntry
	q := url.Values{"limit": {"100"}}
	for {
		p, err := client.Get[client.Page[fleet.AuditEntry]](t.Context(), c, "/v1/audit", q)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, p.Items...)
		if p.Next == "" {
			return all
		}
		q.Set("cursor", p.Next)
	}
}

func TestTenantsAreIslands(t *testing.T) {
	t.Parallel()
	c := start(t, 1)
	op := c.client()
	tenant(t, op, "red")
	tenant(t, op, "blue")
	made, err := client.Post[client.TokenCreated](t.Context(), op, "/v1/tenants/red/tokens", client.TokenCreate{})
	if err != nil {
		t.Fatal(err)
	}
	red := c.client(made.Secret)
	host := client.HostCreate{Name: "API.Red.Example.", Origins: []fleet.Origin{{URL: "https://203.0.113.9"}}}
	h, err := client.Post[client.HostView](t.Context(), red, "/v1/tenants/red/hosts", host)
	if err != nil {
		t.Fatal(err)
	}
	if h.Name != "api.red.example" || h.Spec.Mode != fleet.ModeMonitoring || len(h.Records) != 2 {
		t.Errorf("host is %+v", h)
	}
	for what, call := range map[string]func() error{
		"another tenant's hosts":     func() error { return red.Do(t.Context(), http.MethodGet, "/v1/tenants/blue/hosts", nil, nil, nil) },
		"a tenant that is not there": func() error { return red.Do(t.Context(), http.MethodGet, "/v1/tenants/green/hosts", nil, nil, nil) },
		"another tenant's events":    func() error { return red.Do(t.Context(), http.MethodGet, "/v1/tenants/blue/events", nil, nil, nil) },
		"another tenant's event tail": func() error {
			return red.Do(t.Context(), http.MethodGet, "/v1/tenants/blue/events:tail", nil, nil, nil)
		},
	} {
		if err := call(); !errors.Is(err, fleet.ErrNotFound) {
			t.Errorf("%s: got %v, want not found", what, err)
		}
	}
	for what, call := range map[string]func() error{
		"the list of tenants": func() error { return red.Do(t.Context(), http.MethodGet, "/v1/tenants", nil, nil, nil) },
		"the nodes":           func() error { return red.Do(t.Context(), http.MethodGet, "/v1/nodes", nil, nil, nil) },
		"a join token": func() error {
			return red.Do(t.Context(), http.MethodPost, "/v1/join-tokens", nil, client.JoinTokenCreate{Kind: fleet.JoinNode}, nil)
		},
		"a node's poll": func() error {
			return red.Do(t.Context(), http.MethodPost, "/v1/edge/poll", nil, fleet.Report{Node: "n1", Heads: []fleet.HeadReport{}}, nil)
		},
	} {
		if err := call(); !errors.Is(err, fleet.ErrDenied) {
			t.Errorf("%s: got %v, want denied", what, err)
		}
	}
	for _, e := range auditLog(t, red) {
		if e.Tenant != "red" {
			t.Errorf("red sees %s of %q", e.Object, e.Tenant)
		}
	}
	if err := op.Do(t.Context(), http.MethodDelete, "/v1/tenants/red/tokens/"+string(made.ID), nil, nil, nil); err != nil {
		t.Fatal(err)
	}
	if err := red.Do(t.Context(), http.MethodGet, "/v1/whoami", nil, nil, nil); !errors.Is(err, fleet.ErrUnauthenticated) {
		t.Errorf("a revoked token: got %v", err)
	}
}

func TestAMemberThatStartsAloneAnswersFromWhatItHad(t *testing.T) {
	if testing.Short() {
		t.Skip("starts three members")
	}
	t.Parallel()
	c := start(t, 3)
	tenant(t, c.client(), "acme")
	for i := range c.members {
		c.await("every member has the tenant", func() bool {
			_, err := client.Get[fleet.Tenant](t.Context(), c.at(i), "/v1/tenants/acme", url.Values{"consistency": {"stale"}})
			return err == nil
		})
	}
	for _, m := range c.members {
		m.stop(t)
	}
	left := []string{c.members[1].config.DataDir + "/drill-1/data", c.members[1].config.DataDir + "/upload-2", c.members[1].config.DataDir + "/backup-3"}
	for _, dir := range left { // by a member that was killed: a copy of the state, keys in it
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	alone := c.run(c.members[1].config)
	cl := c.must(client.New(client.Options{Addrs: []string{alone.config.APIListen}, CACert: c.cacert, Token: c.token}))
	c.await("a stale read is answered", func() bool {
		_, err := client.Get[fleet.Tenant](t.Context(), cl, "/v1/tenants/acme", url.Values{"consistency": {"stale"}})
		return err == nil
	})
	if _, err := client.Get[fleet.Tenant](t.Context(), cl, "/v1/tenants/acme", nil); !errors.Is(err, fleet.ErrUnavailable) {
		t.Errorf("a linearizable read: %v", err)
	}
	c.await("/readyz says that there is no leader", func() bool { return strings.Contains(readyz(t, alone), "no leader") })
	for _, dir := range left {
		if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is left: %v", dir, err)
		}
	}
	q := new(dns.Msg)
	q.SetQuestion("edge.example.", dns.TypeSOA)
	if a, err := dns.ExchangeContext(t.Context(), q, alone.config.DNSListen); err != nil || a.Rcode != dns.RcodeSuccess || len(a.Answer) == 0 {
		t.Errorf("the zone: %v, %v", a, err)
	}
	c.run(c.members[0].config)
	c.await("with a second member, /readyz is well", func() bool { return strings.Contains(readyz(t, alone), `"ready":true`) })
}

// readyz is what /readyz of a member says, empty without an answer.
func readyz(t *testing.T, r *running) string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+r.config.AdminListen+"/readyz", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return ""
	}
	defer func() { _ = res.Body.Close() }()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		return ""
	}
	return string(b)
}

func TestAMemberThatTheLeaderCannotReachGetsNoVote(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a member")
	}
	t.Parallel()
	c := start(t, 1)
	cfg := newConfig(t, "m2", c.kek)
	tok, err := client.Post[client.JoinTokenCreated](t.Context(), c.client(), "/v1/join-tokens", client.JoinTokenCreate{Kind: fleet.JoinMember})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := controlplane.Join(t.Context(), cfg, tok.Secret, c.members[0].config.APIListen); err != nil {
		t.Fatal(err)
	}
	identity := filepath.Join(cfg.DataDir, "identity")
	src, err := mtls.OpenSource(filepath.Join(identity, "member.crt"), filepath.Join(identity, "member.key"))
	if err != nil {
		t.Fatal(err)
	}
	roots, err := mtls.PoolFromPEM(c.cacert)
	if err != nil {
		t.Fatal(err)
	}
	cl := c.must(client.New(client.Options{Addrs: []string{c.members[0].config.APIListen}, TLS: mtls.ClientTLS(src, roots, "", nil)}))
	s, err := client.Get[client.ClusterStatus](t.Context(), c.client(), "/v1/cluster", nil)
	if err != nil || len(s.Members) != 2 {
		t.Fatalf("members %+v, %v", s.Members, err)
	}
	// Its Raft port is closed: it does not run.
	err = cl.Do(t.Context(), http.MethodPost, "/v1/cluster/announce", nil, s.Members[1].Member, nil)
	if !errors.Is(err, fleet.ErrConflict) || !strings.Contains(err.Error(), "the Raft port of member m2") {
		t.Errorf("the announcement: %v", err)
	}
	tenant(t, c.client(), "acme")
	c.members[0].stop(t)
	waiting := c.run(cfg)
	c.await("it waits for the state", func() bool { return strings.Contains(readyz(t, waiting), "waiting for the cluster") })
	waiting.stop(t) // which is no failure
	c.run(c.members[0].config)
	c.run(cfg)
	c.await("once it is reached, it votes", func() bool {
		s, err := client.Get[client.ClusterStatus](t.Context(), c.client(), "/v1/cluster", nil)
		return err == nil && len(s.Members) == 2 && s.Members[1].Suffrage == "voter"
	})
}

func TestTheBusComesBackOnceItsPortIsFree(t *testing.T) {
	if testing.Short() {
		t.Skip("waits until the bus gives up its first attempt")
	}
	t.Parallel()
	c := start(t, 1)
	first := c.members[0]
	c.await("the member is ready", func() bool { return strings.Contains(readyz(t, first), `"ready":true`) })
	// A member alone has no routes, so their port is free for a stranger.
	stranger, err := net.Listen("tcp", first.config.NATSRouteListen)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = stranger.Close() }()
	c.join(newConfig(t, "m2", c.kek))
	c.await("/readyz says that the bus is away", func() bool { return strings.Contains(readyz(t, first), `"bus"`) })
	if err := stranger.Close(); err != nil {
		t.Fatal(err)
	}
	c.await("the member is ready again", func() bool { return strings.Contains(readyz(t, first), `"ready":true`) })
}

func TestAFailedJoinLeavesTheDirectoryAsItWas(t *testing.T) {
	for _, existed := range []bool{true, false} {
		cfg := newConfig(t, "m2", "/nowhere")
		if existed {
			if err := os.Mkdir(cfg.DataDir, 0o700); err != nil {
				t.Fatal(err)
			}
		}
		for range 2 {
			if _, err := controlplane.Join(t.Context(), cfg, "efm1.id.secret.pin", cfg.APIListen); !errors.Is(err, fleet.ErrUnavailable) {
				t.Errorf("existed %v: %v", existed, err)
			}
		}
		entries, err := os.ReadDir(cfg.DataDir)
		if len(entries) > 0 || (err == nil) != existed {
			t.Errorf("existed %v: it holds %v, %v", existed, entries, err)
		}
	}
}

func TestRemovingAMemberKeepsTheQuorum(t *testing.T) {
	if testing.Short() {
		t.Skip("starts three members")
	}
	t.Parallel()
	c := start(t, 3)
	lead := c.leader()
	live, dead := c.members[(lead+1)%3], c.members[(lead+2)%3]
	dead.stop(t)
	remove := func(r *running) error {
		return c.at(lead).Do(t.Context(), http.MethodDelete, "/v1/cluster/members/"+string(r.config.Member), nil, nil, nil)
	}
	if err := remove(live); !errors.Is(err, fleet.ErrConflict) || !strings.Contains(err.Error(), string(dead.config.Member)+" cannot be reached") {
		t.Errorf("removing the member that the quorum needs: %v", err)
	}
	tenant(t, c.at(lead), "acme")
	if err := remove(dead); err != nil {
		t.Errorf("removing the one that is gone: %v", err)
	}
	tenant(t, c.at(lead), "after")
}
