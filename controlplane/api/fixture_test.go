package api_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/edgefleet/edgefleet/controlplane/api"
	"github.com/edgefleet/edgefleet/controlplane/audit"
	"github.com/edgefleet/edgefleet/controlplane/blobs"
	"github.com/edgefleet/edgefleet/controlplane/client"
	"github.com/edgefleet/edgefleet/controlplane/command"
	"github.com/edgefleet/edgefleet/controlplane/events"
	"github.com/edgefleet/edgefleet/controlplane/fsm"
	"github.com/edgefleet/edgefleet/controlplane/keys"
	"github.com/edgefleet/edgefleet/controlplane/state"
	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/observability"
	"github.com/edgefleet/edgefleet/tls/keyring"
	"github.com/edgefleet/edgefleet/tls/mtls"
)

// patience is how long a test waits for something that takes a fraction of it.
const patience = 2 * time.Minute

// fixture is a cluster of members with real TLS, state machines and stores; only Raft is replaced, by one shared log.
type fixture struct {
	t       *testing.T
	log     *sharedLog
	cluster fleet.ClusterRecord
	keys    *keys.Keys
	// kek has the key that seals and a newer one.
	kek *keyring.KEK
	// has is what a member says of its key-encryption keys; by default, it has all.
	has      atomic.Pointer[func(fleet.MemberID) ([]string, error)]
	operator string
	recovery ed25519.PrivateKey
	members  []*member
	// pointing and pointingErr are what DNS says of every host.
	pointing    atomic.Bool
	pointingErr atomic.Bool
	reports     chan fleet.Report
	// said is what nodes say of origins.
	said func(fleet.HostName) (map[fleet.NodeID][]fleet.OriginOut, []fleet.NodeID)
}

type member struct {
	id      fleet.MemberID
	addr    string
	api     *api.API
	server  *http.Server
	state   *state.Store
	events  *events.Store
	library *blobs.Library
	audit   *audit.Log
	logs    *logBuffer
	tel     *observability.Telemetry
	crashes atomic.Int32
}

// sharedLog applies each entry to every member that does not lag.
type sharedLog struct {
	mu      sync.Mutex
	entries []*raft.Log
	leader  fleet.MemberID
	fail    error
	// readIndex, if set, takes the place of every ReadIndex.
	readIndex func() (uint64, error)
	// settled, if set, takes the place of every Settled.
	settled func(fleet.MemberID) error
	// refuse, if set, is asked before every proposal; an error of it is the answer.
	refuse  func(fleet.MemberID) error
	members []*replica
	// left are voters of Raft that the state does not know any more.
	left map[fleet.MemberID]bool
}

type replica struct {
	log     *sharedLog
	id      fleet.MemberID
	fsm     *fsm.FSM
	applied int
	lags    bool
	// silent is how many milliseconds ago it heard from the leader; nil: never.
	silent *int64
}

func (r *replica) Propose(_ context.Context, h command.Header, b command.Body) (any, error) {
	r.log.mu.Lock()
	defer r.log.mu.Unlock()
	if r.log.fail != nil {
		return nil, r.log.fail
	}
	if r.log.refuse != nil {
		if err := r.log.refuse(r.id); err != nil {
			return nil, err
		}
	}
	if r.log.leader != r.id {
		return nil, fleet.NewError(fleet.ErrUnavailable, "", "%s does not lead", r.id)
	}
	return r.log.propose(h, b)
}

func (l *sharedLog) propose(h command.Header, b command.Body) (any, error) {
	data, err := command.Encode(h, b)
	if err != nil {
		return nil, err
	}
	l.entries = append(l.entries, &raft.Log{Index: uint64(len(l.entries) + 1), Data: data})
	var out fsm.Result
	for _, m := range l.members {
		if r, ok := m.catchUp(); ok && (m.id == l.leader || l.leader == "") {
			out = r
		}
	}
	if out.Err != nil {
		return nil, out.Err
	}
	return out.Object, nil
}

func (r *replica) catchUp() (last fsm.Result, ok bool) {
	for !r.lags && r.applied < len(r.log.entries) {
		last, ok = r.fsm.Apply(r.log.entries[r.applied]).(fsm.Result)
		r.applied++
	}
	return last, ok
}

func (r *replica) ReadIndex(context.Context) (uint64, error) {
	r.log.mu.Lock()
	defer r.log.mu.Unlock()
	if r.log.readIndex != nil {
		return r.log.readIndex()
	}
	return uint64(r.applied), nil //nolint:gosec // a count
}

func (r *replica) Settled(context.Context) error {
	r.log.mu.Lock()
	defer r.log.mu.Unlock()
	if r.log.settled != nil {
		return r.log.settled(r.id)
	}
	return nil
}

func (r *replica) Leader() (fleet.MemberID, bool) {
	r.log.mu.Lock()
	defer r.log.mu.Unlock()
	return r.log.leader, r.log.leader == r.id
}

func (r *replica) Status() (term, index uint64) { return 1, uint64(r.applied) } //nolint:gosec // a count

func (r *replica) Suffrage() (map[fleet.MemberID]string, error) {
	s := map[fleet.MemberID]string{}
	for _, m := range r.log.members {
		s[m.id] = "voter"
	}
	return s, nil
}

func (*replica) Admit(_ context.Context, _ fleet.MemberID, _ string, known func() error) error {
	return known()
}

func (r *replica) Remove(_ context.Context, id fleet.MemberID, retire func() error) error {
	err := retire()
	if err == nil {
		r.log.mu.Lock()
		defer r.log.mu.Unlock()
		delete(r.log.left, id)
	}
	return err
}

// TransferLeadership makes another member lead, if one is named.
func (r *replica) TransferLeadership(_ context.Context, to fleet.MemberID) error {
	r.log.mu.Lock()
	defer r.log.mu.Unlock()
	if to != "" {
		r.log.leader = to
	}
	return nil
}

// stats are of a follower, unless the replica leads, that heard from the leader as long ago as the test says.
func (r *replica) stats() client.RaftStats {
	r.log.mu.Lock()
	defer r.log.mu.Unlock()
	if r.log.leader == r.id {
		return client.RaftStats{Member: r.id, State: "leader"}
	}
	return client.RaftStats{Member: r.id, State: "follower", LastContactMS: r.silent}
}

// cutOff says how long ago, in milliseconds, a member heard from the leader; nil: never.
func (f *fixture) cutOff(i int, ms *int64) {
	f.log.mu.Lock()
	defer f.log.mu.Unlock()
	f.log.members[i].silent = ms
}

// lag makes a member apply nothing, or all again.
func (f *fixture) lag(i int, lags bool) {
	f.log.mu.Lock()
	defer f.log.mu.Unlock()
	f.log.members[i].lags = lags
	f.log.members[i].catchUp()
}

func (f *fixture) lead(id fleet.MemberID) {
	f.log.mu.Lock()
	defer f.log.mu.Unlock()
	f.log.leader = id
}

// propose changes the state as the leader's loops do.
func (f *fixture) propose(b command.Body) {
	f.t.Helper()
	f.log.mu.Lock()
	defer f.log.mu.Unlock()
	_, err := f.log.propose(command.Header{Time: time.Now().UTC(), Actor: fleet.Actor{Name: "test", Party: fleet.Vendor}}, b)
	if err != nil {
		f.t.Fatalf("%s: %v", b.Type(), err)
	}
}

// letGo ends the hosts that are being deleted, as the leader's loop does when no edge has them any more.
func (f *fixture) letGo() {
	f.t.Helper()
	for _, h := range f.members[0].state.Read().HostsDeleting() {
		f.propose(command.HostDelete{Name: h.Name, Tenant: h.Tenant})
	}
}

// open makes a cluster of n members, m1 leading, with one operator token.
func open(t *testing.T, n int, change ...func(*http.Server)) *fixture {
	t.Helper()
	f := &fixture{t: t, log: &sharedLog{}, reports: make(chan fleet.Report, 16)}
	kek := twoKEKs(t)
	f.kek = kek
	recovery, private, err := ed25519.GenerateKey(rand.Reader)
	must(t, err)
	f.recovery = private
	f.cluster, err = keys.Generate("c-test", "edge.example", kek, recovery, time.Now())
	must(t, err)
	f.keys, err = keys.Open(f.cluster, kek)
	must(t, err)
	for i := range n {
		f.addMember(fleet.MemberID("m"+string(rune('1'+i))), change)
	}
	rec, text := api.NewToken(fleet.Token{Role: fleet.RoleOperator})
	f.operator = text
	f.propose(command.ClusterInit{Cluster: f.cluster, Member: f.members[0].record(), Token: rec})
	for _, m := range f.members[1:] {
		f.propose(command.MemberPut{Member: m.record()})
	}
	f.lead("m1")
	kek.Use(func() string {
		c, _ := f.members[0].state.Read().Cluster()
		return c.KEK()
	})
	return f
}

// twoKEKs is a file of key-encryption keys to which a newer one was added.
func twoKEKs(t *testing.T) *keyring.KEK {
	t.Helper()
	path := filepath.Join(t.TempDir(), "kek")
	first, err := keyring.NewKEK()
	must(t, err)
	must(t, first.Save(path))
	both, err := keyring.AddKEK(path)
	must(t, err)
	return both
}

func (m *member) record() fleet.Member {
	return fleet.Member{ID: m.id, API: m.addr, Raft: m.addr, NATS: m.addr, NATSRoute: m.addr, DNS: m.addr, Format: command.Format}
}

func (f *fixture) addMember(id fleet.MemberID, change []func(*http.Server)) {
	f.t.Helper()
	t := f.t
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	m := &member{id: id, addr: ln.Addr().String(), state: state.New(), logs: &logBuffer{}}
	m.events, err = events.Open(events.Options{Dir: t.TempDir()})
	must(t, err)
	t.Cleanup(func() { _ = m.events.Close() })
	tel, err := observability.Setup(t.Context(), observability.Options{Service: "test", LogLevel: "debug", Output: m.logs})
	must(t, err)
	m.tel = tel
	r := &replica{log: f.log, id: id, fsm: fsm.New(m.state)}
	f.log.members = append(f.log.members, r)
	ca, err := mtls.PoolFromPEM([]byte(f.cluster.MemberCA), []byte(f.cluster.NodeCA))
	must(t, err)
	m.library = blobs.New(m.state, f.keys)
	m.audit, err = audit.Open(audit.Options{Dir: t.TempDir(), State: m.state, Telemetry: tel, Fetch: func(context.Context, fleet.AuditSegment) ([]byte, error) { return nil, errors.New("no other member") }})
	must(t, err)
	cert := f.memberCert(id)
	m.api = api.New(api.Options{
		Member: id, State: m.state, Consensus: r, Keys: f.keys, Library: m.library, Events: m.events, Audit: m.audit,
		Report: func(r fleet.Report) { f.reports <- r },
		OriginsOut: func(h fleet.HostName) (map[fleet.NodeID][]fleet.OriginOut, []fleet.NodeID) {
			if f.said == nil {
				return nil, nil
			}
			return f.said(h)
		},
		Checks: func(context.Context) []fleet.Check { return nil }, CheckZone: func(context.Context) []fleet.Check { return []fleet.Check{} },
		CertBudget: func() client.CertBudget {
			return client.CertBudget{Authorities: []client.AuthorityBudget{{Directory: "https://ca.example/dir", State: "ok"}}}
		},
		Zone: func() client.Zone {
			return client.Zone{Member: id, NameServers: []client.ZoneNameServer{}, Sets: []fleet.DNSSet{}}
		}, Backups: func() fleet.BackupStatus { return fleet.BackupStatus{Member: id, Kept: []fleet.Backup{}} },
		Crash: map[bool]func(){true: func() { m.crashes.Add(1) }}[id != "m3"], // which takes no part in drills
		PointsHere: func(context.Context, fleet.Host) (bool, error) {
			if f.pointingErr.Load() {
				return false, errors.New("no answer")
			}
			return f.pointing.Load(), nil
		},
		Recheck:  func(fleet.HostName) {},
		OwnStats: r.stats,
		Stats: func(_ context.Context, m fleet.Member) (client.RaftStats, error) {
			has, err := f.kek.Names(), error(nil)
			if says := f.has.Load(); says != nil {
				has, err = (*says)(m.ID)
			}
			return client.RaftStats{Member: m.ID, State: "leader", KEKs: has}, err
		},
		Forward:   &http.Transport{TLSClientConfig: f.tls(&cert), ForceAttemptHTTP2: true},
		ClientCAs: ca, Telemetry: tel, Now: time.Now,
	})
	running, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- m.api.Run(running) }()
	t.Cleanup(func() {
		stop()
		must(t, <-ended)
	})
	m.server = m.api.Server(f.serverSource())
	m.server.ErrorLog = slog.NewLogLogger(tel.Logger.Handler(), slog.LevelDebug)
	for _, c := range change {
		c(m.server)
	}
	go func() { _ = m.server.ServeTLS(ln, "", "") }()
	t.Cleanup(func() { _ = m.server.Close() })
	f.members = append(f.members, m)
}

func (f *fixture) serverSource() *mtls.Source {
	f.t.Helper()
	key, err := mtls.NewKey()
	must(f.t, err)
	pem, err := f.keys.APICA.SignServer([]string{"127.0.0.1"}, key.Public(), time.Now())
	must(f.t, err)
	keyPEM, err := mtls.EncodeKey(key)
	must(f.t, err)
	dir := f.t.TempDir()
	crt, k := filepath.Join(dir, "crt"), filepath.Join(dir, "key")
	must(f.t, mtls.WriteIdentity(crt, k, pem, keyPEM))
	s, err := mtls.OpenSource(crt, k)
	must(f.t, err)
	return s
}

type signer func(key any) ([]byte, error)

func (f *fixture) certificate(sign signer) tls.Certificate {
	f.t.Helper()
	key, err := mtls.NewKey()
	must(f.t, err)
	pem, err := sign(key.Public())
	must(f.t, err)
	keyPEM, err := mtls.EncodeKey(key)
	must(f.t, err)
	c, err := tls.X509KeyPair(pem, keyPEM)
	must(f.t, err)
	return c
}

func (f *fixture) memberCert(id fleet.MemberID) tls.Certificate {
	return f.certificate(func(k any) ([]byte, error) { return f.keys.MemberCA.SignMember("c-test", id, k, time.Now()) })
}

func (f *fixture) nodeCert(id fleet.NodeID) tls.Certificate {
	return f.certificate(func(k any) ([]byte, error) { return f.keys.NodeCA.SignNode("c-test", id, k, time.Now()) })
}

// tls is how a client connects that trusts the API's authority and shows cert, if any.
func (f *fixture) tls(cert *tls.Certificate) *tls.Config {
	c := &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: f.keys.APICA.Pool()}
	if cert != nil {
		c.Certificates = []tls.Certificate{*cert}
	}
	return c
}

// tenant makes a tenant and a token of it.
func (f *fixture) tenant(id fleet.TenantID, form fleet.Form) (token string) {
	f.t.Helper()
	f.op().call("POST", "/v1/tenants", client.TenantCreate{ID: id, Form: form}).want(201)
	var made client.TokenCreated
	f.op().call("POST", "/v1/tenants/"+string(id)+"/tokens", client.TokenCreate{}).want(201).into(&made)
	return made.Secret
}

// entries counts the entries of the log.
func (f *fixture) entries() int {
	f.log.mu.Lock()
	defer f.log.mu.Unlock()
	return len(f.log.entries)
}

// hash is what is stored of a secret.
func hash(secret string) []byte {
	sum := sha256.Sum256([]byte(secret))
	return sum[:]
}

// audit is the whole audit log.
func (f *fixture) audit() []fleet.AuditEntry {
	return f.members[0].state.Read().AuditAfter("", 0, 1<<20)
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for end := time.After(patience); !ok(); {
		select {
		case <-tick.C:
		case <-end:
			t.Fatalf("waited %s in vain: %s", patience, what)
		}
	}
}

type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
