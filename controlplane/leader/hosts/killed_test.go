package hosts_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/edgefleet/edgefleet/controlplane/command"
	"github.com/edgefleet/edgefleet/controlplane/consensus"
	"github.com/edgefleet/edgefleet/controlplane/fsm"
	"github.com/edgefleet/edgefleet/controlplane/keys"
	"github.com/edgefleet/edgefleet/controlplane/leader/hosts"
	"github.com/edgefleet/edgefleet/controlplane/state"
	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/observability"
	"github.com/edgefleet/edgefleet/tls/certstore"
	"github.com/edgefleet/edgefleet/tls/issuance"
	"github.com/edgefleet/edgefleet/tls/issuance/pebbletest"
	"github.com/edgefleet/edgefleet/tls/keyring"
	"github.com/edgefleet/edgefleet/tls/mtls"

	mdns "github.com/miekg/dns"
)

const killPatience = 30 * time.Second

// errKilled is what the work of a leader that is dead gets to see.
var errKilled = errors.New("this leader is dead")

// raftMember is one member of a real cluster.
type raftMember struct {
	options consensus.Options
	node    *consensus.Node
	store   atomic.Pointer[state.Store]
}

func (m *raftMember) state() *state.Store { return m.store.Load() }

func (m *raftMember) open(t *testing.T) {
	t.Helper()
	m.store.Store(state.New())
	m.options.FSM, m.options.Telemetry = fsm.New(m.state()), observability.Discard()
	n, err := consensus.Open(m.options)
	if err != nil {
		t.Fatal(err)
	}
	m.node, m.options.Bind = n, n.Addr()
}

func (m *raftMember) crash(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), killPatience)
	defer cancel()
	if err := m.node.Crash(ctx); err != nil {
		t.Errorf("crash: %v", err)
	}
}

// killer is where a leader dies, and whether it did.
type killer struct {
	member *raftMember
	// at is the step, such as "order_put" or "order-plz"; after: when it is done already.
	at    string
	after bool
	// nth of them.
	nth int

	mu   sync.Mutex
	seen int
	dead chan struct{}
}

// step does work unless the leader is dead or dies of it.
func (k *killer) step(name string, work func() error) error {
	select {
	case <-k.dead:
		return errKilled
	default:
	}
	hit := false
	if name == k.at {
		k.mu.Lock()
		k.seen++
		hit = k.seen == k.nth
		k.mu.Unlock()
	}
	if hit && !k.after {
		close(k.dead)
		return errKilled
	}
	err := work()
	if hit {
		close(k.dead)
		return errKilled
	}
	return err
}

// Propose is the killer before a member's Raft.
func (k *killer) Propose(ctx context.Context, h command.Header, b command.Body) (answer any, err error) {
	err = k.step(b.Type().String(), func() error {
		answer, err = k.member.propose(ctx, h, b)
		return err
	})
	return answer, err
}

func (m *raftMember) propose(ctx context.Context, h command.Header, b command.Body) (any, error) {
	data, err := command.Encode(h, b)
	if err != nil {
		return nil, err
	}
	answer, _, err := m.node.Apply(ctx, data)
	if err != nil {
		return nil, err
	}
	r, ok := answer.(fsm.Result)
	if !ok {
		return nil, fmt.Errorf("apply %s: unexpected answer %T", b.Type(), answer)
	}
	if r.Err != nil {
		return nil, r.Err
	}
	return r.Object, nil
}

// wire is the killer before the connection to the CA.
type wire struct {
	*killer
	next http.RoundTripper
}

func (w wire) RoundTrip(req *http.Request) (resp *http.Response, err error) {
	name := strings.Split(strings.Trim(req.URL.Path, "/"), "/")[0]
	err = w.step(name, func() error {
		resp, err = w.next.RoundTrip(req) //nolint:bodyclose // the client closes it, or what follows
		return err
	})
	if err != nil && resp != nil {
		_ = resp.Body.Close() // nobody is left to read it
		resp = nil
	}
	return resp, err
}

// raftWorld is a cluster of three, a CA and the DNS that the CA asks.
type raftWorld struct {
	t       *testing.T
	kek     *keyring.KEK
	members []*raftMember
	ca      *pebbletest.Pebble
}

func newRaftWorld(t *testing.T) *raftWorld {
	t.Helper()
	kek, err := keyring.NewKEK()
	if err != nil {
		t.Fatal(err)
	}
	w := &raftWorld{t: t, kek: kek}
	authority, err := mtls.NewCA("members", time.Now(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		m := &raftMember{options: memberOptions(t, authority, fleet.MemberID(fmt.Sprintf("m%d", i+1)))}
		m.open(t)
		w.members = append(w.members, m)
		t.Cleanup(func() { m.crash(t) })
	}
	if err := w.members[0].node.Bootstrap(); err != nil {
		t.Fatal(err)
	}
	first := w.leader()
	for _, m := range w.members[1:] {
		if err := first.node.AddVoter(t.Context(), m.options.Member, m.node.Addr()); err != nil {
			t.Fatal(err)
		}
	}
	cluster, err := keys.Generate("test", zone, kek, make([]byte, 32), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	w.do(command.ClusterInit{Cluster: cluster, Member: fleet.Member{ID: "m1"}, Token: fleet.TokenRecord{Token: fleet.Token{ID: "root", Role: fleet.RoleOperator}, Hash: make([]byte, fleet.HashBytes)}})
	w.do(command.TenantPut{Put: command.Put{Create: true}, ID: "acme", Spec: fleet.TenantSpec{Name: "acme", Form: fleet.SecurityEdge, Group: fleet.DefaultGroup}})
	w.ca = pebbletest.Start(t, pebbletest.Options{Resolver: w.dns(), HTTPPort: 1})
	return w
}

func memberOptions(t *testing.T, ca *mtls.CA, id fleet.MemberID) consensus.Options {
	t.Helper()
	key, err := mtls.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	cert, err := ca.SignMember("c1", id, key.Public(), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	keyPEM, err := mtls.EncodeKey(key)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	certFile, keyFile := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	if err := mtls.WriteIdentity(certFile, keyFile, cert, keyPEM); err != nil {
		t.Fatal(err)
	}
	src, err := mtls.OpenSource(certFile, keyFile)
	if err != nil {
		t.Fatal(err)
	}
	return consensus.Options{
		Dir: filepath.Join(dir, "raft"), Member: id, Bind: "127.0.0.1:0", ElectionTimeout: 500 * time.Millisecond, HeartbeatTimeout: 500 * time.Millisecond,
		ServerTLS: mtls.ServerTLS(src, ca.Pool(), mtls.MembersOnly("c1")),
		ClientTLS: mtls.ClientTLS(src, ca.Pool(), mtls.MemberServerName("c1"), mtls.MembersOnly("c1")),
	}
}

// leader waits for a member that leads and can commit.
func (w *raftWorld) leader() *raftMember {
	w.t.Helper()
	var found *raftMember
	w.until("a member leads", func() bool {
		for _, m := range w.members {
			if m.node.IsLeader() && m.node.Barrier(w.t.Context()) == nil {
				found = m
				return true
			}
		}
		return false
	})
	return found
}

func (w *raftWorld) until(what string, ok func() bool) {
	w.t.Helper()
	deadline := time.After(killPatience)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			w.t.Fatalf("not within %s: %s", killPatience, what)
		}
	}
}

func (w *raftWorld) do(b command.Body) {
	w.t.Helper()
	if _, err := w.leader().propose(w.t.Context(), command.Header{Time: time.Now().UTC(), Actor: fleet.Actor{Name: "test", Party: fleet.Vendor}}, b); err != nil {
		w.t.Fatalf("%s: %v", b.Type(), err)
	}
}

// dns answers every TXT question with the DNS-01 answers that the members have: each serves the zone, whoever leads.
func (w *raftWorld) dns() string {
	w.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		w.t.Fatal(err)
	}
	started := make(chan struct{})
	s := &mdns.Server{Listener: l, NotifyStartedFunc: func() { close(started) }, Handler: mdns.HandlerFunc(func(rw mdns.ResponseWriter, req *mdns.Msg) {
		m := new(mdns.Msg).SetReply(req)
		q := req.Question[0]
		host := strings.TrimSuffix(strings.TrimPrefix(q.Name, "_acme-challenge."), ".")
		for _, member := range w.members {
			for _, c := range member.state().Read().Challenges() {
				if string(c.Host) == host && q.Qtype == mdns.TypeTXT {
					m.Answer = append(m.Answer, &mdns.TXT{Hdr: mdns.RR_Header{Name: q.Name, Rrtype: mdns.TypeTXT, Class: mdns.ClassINET}, Txt: []string{c.Response}})
				}
			}
		}
		_ = rw.WriteMsg(m) // the CA sees a missing answer
	})}
	go func() { _ = s.ActivateAndServe() }()
	<-started
	w.t.Cleanup(func() { _ = s.Shutdown() })
	return l.Addr().String()
}

// lead runs the host loop on m until end is called or the killer strikes.
func (w *raftWorld) lead(m *raftMember, k *killer) (end func()) {
	w.t.Helper()
	k.member, k.dead = m, make(chan struct{})
	now := func() time.Time { return time.Now().UTC() }
	fetch := func(fleet.Digest) ([]byte, error) { return nil, fleet.ErrNotFound }
	tel := observability.Discard()
	ch := &hosts.Challenges{State: m.state(), Proposer: k, Fetch: fetch, Now: now, Settle: time.Millisecond}
	issuer, err := issuance.New(issuance.Options{
		Directory: w.ca.Directory, Roots: w.ca.Roots, Challenges: ch, Telemetry: tel, Storage: certstore.New(&hosts.Accounts{State: m.state(), Proposer: k, Now: now}, w.kek),
		Wrap: func(next http.RoundTripper) http.RoundTripper { return wire{k, next} },
	})
	if err != nil {
		w.t.Fatal(err)
	}
	l, err := hosts.New(hosts.Options{
		State: m.state(), Proposer: k, Fetch: fetch, Resolver: ready(true), Authorities: of(issuer), Challenges: ch, Sealer: w.kek, Telemetry: tel, Scale: 0.01, Now: now,
		Handshake: func(context.Context, fleet.HostName, string, []netip.Addr) error { return errors.New("no edges here") },
	})
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(w.t.Context())
	done := make(chan struct{})
	go func() { defer close(done); _ = l.Run(ctx) }() // how a dead leader's loop ends is nobody's concern
	return func() { cancel(); <-done }
}

// TestALeaderThatDiesAtAnyStepOfAnOrderCostsNothing kills the leader before and after each commit and each request to
// the CA of an order. The next leader goes on: there is one order at the CA, one key, and a pair that fits.
func TestALeaderThatDiesAtAnyStepOfAnOrderCostsNothing(t *testing.T) {
	if testing.Short() {
		t.Skip("elects a leader for each step")
	}
	type point struct {
		at  string
		nth int
	}
	var rows []killer
	for _, p := range []point{
		{"order_put", 1},
		{"order_progress", 1},
		{"order-plz", 1},
		{"order_progress", 2},
		{"authZ", 1},
		{"challenge_put", 1},
		{"chalZ", 1},
		{"authZ", 2},
		{"challenge_delete", 1},
		{"finalize-order", 1},
		{"my-order", 1},
		{"certZ", 1},
		{"certificate_commit", 1},
		{"renewal_plan", 1},
	} {
		rows = append(rows, killer{at: p.at, nth: p.nth}, killer{at: p.at, nth: p.nth, after: true})
	}
	const clusters = 3
	for part := range clusters {
		t.Run(fmt.Sprintf("cluster %d", part+1), func(t *testing.T) {
			t.Parallel()
			w := newRaftWorld(t)
			w.issue(t, "first.example.com", &killer{}) // makes the account
			for i := part; i < len(rows); i += clusters {
				k := &rows[i]
				when := "before"
				if k.after {
					when = "after"
				}
				t.Run(fmt.Sprintf("%s %s %d", when, k.at, k.nth), func(t *testing.T) {
					w.issue(t, fleet.HostName(fmt.Sprintf("h%d.example.com", i)), k)
				})
			}
		})
	}
}

// issue takes a new host to its certificate, with a leader that dies on the way if k says where.
func (w *raftWorld) issue(t *testing.T, name fleet.HostName, k *killer) {
	t.Helper()
	before := w.ca.Orders()
	w.do(command.HostPut{Put: command.Put{Create: true}, Name: name, Tenant: "acme", Label: "l" + strings.Split(string(name), ".")[0], Spec: fleet.HostSpec{
		Mode: fleet.ModeBlock, Origins: []fleet.Origin{{URL: "https://203.0.113.10"}},
	}})
	leading := w.leader()
	end := w.lead(leading, k)
	var spki string
	if k.at != "" {
		select {
		case <-k.dead:
		case <-time.After(killPatience):
			t.Fatalf("the leader does not get to %s: %+v", k.at, leading.state().Read().OrdersOf(name))
		}
		for _, o := range leading.state().Read().OrdersOf(name) {
			spki = o.SPKI
		}
		leading.crash(t)
		end()
		next := w.leader()
		end = w.lead(next, &killer{})
		leading.open(t)
		leading = next
	}
	defer func() { end() }()
	var c fleet.CertificateRecord
	w.until(fmt.Sprintf("%s has a certificate with a time of renewal", name), func() (ok bool) {
		v := leading.state().Read()
		c, ok = v.Certificate(name)
		return ok && !c.Renewal.At.IsZero() && len(v.OrdersOf(name)) == 0 && len(v.Challenges()) == 0
	})
	if n := w.ca.Orders() - before; n != 1 {
		t.Errorf("%d orders at the CA, want 1", n)
	}
	if spki != "" && c.SPKI != spki {
		t.Error("the key is not the one that was committed before the CA heard of it")
	}
	key, err := w.kek.Open(c.Key, keyring.CertKeyAAD(c.Tenant, c.Host, c.SPKI, c.Generation))
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.ParsePKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(ders(c.Chain)[0])
	if err != nil {
		t.Fatal(err)
	}
	public, err := x509.MarshalPKIXPublicKey(private.(crypto.Signer).Public())
	if err != nil || !bytes.Equal(public, leaf.RawSubjectPublicKeyInfo) || !slices.Equal(leaf.DNSNames, []string{string(name)}) {
		t.Errorf("the certificate does not fit its key: %v, %v", leaf.DNSNames, err)
	}
	if c.Generation != 1 || c.Renewal.Source != fleet.RenewalCA {
		t.Errorf("generation %d, renewal %+v", c.Generation, c.Renewal)
	}
	end()
	end = func() {}
	w.do(command.HostDelete{Name: name, Tenant: "acme"})
}
