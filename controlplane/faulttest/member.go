package faulttest

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"github.com/edgefleet/edgefleet/controlplane"
	"github.com/edgefleet/edgefleet/controlplane/api"
	"github.com/edgefleet/edgefleet/controlplane/audit"
	"github.com/edgefleet/edgefleet/controlplane/blobs"
	"github.com/edgefleet/edgefleet/controlplane/command"
	"github.com/edgefleet/edgefleet/controlplane/consensus"
	"github.com/edgefleet/edgefleet/controlplane/fsm"
	"github.com/edgefleet/edgefleet/controlplane/keys"
	"github.com/edgefleet/edgefleet/controlplane/leader/heads"
	"github.com/edgefleet/edgefleet/controlplane/leader/nodes"
	"github.com/edgefleet/edgefleet/controlplane/state"
	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/observability"
)

// Failpoint is a place at which a member can be killed.
type Failpoint string

// The failpoints.
const (
	// BeforeApply is between the commit of an entry and the state machine; AfterApply right behind it.
	BeforeApply Failpoint = "before apply"
	AfterApply  Failpoint = "after apply"
	// MidSnapshot is between the first and the last byte of a snapshot.
	MidSnapshot Failpoint = "mid-snapshot"
	// BeforeHint is between the commit of heads and telling the nodes.
	BeforeHint Failpoint = "between commit and hint"
)

// Failpoints lists them.
var Failpoints = []Failpoint{BeforeApply, AfterApply, MidSnapshot, BeforeHint}

// settling is longer than a slow disk takes for one append.
const settling = 600 * time.Millisecond

// member is one member across its restarts.
type member struct {
	id      fleet.MemberID
	cluster *Cluster
	disk    *Disk
	// skew is how far its clock is off.
	skew atomic.Int64

	// life is held by whoever starts or ends the process. It is a channel because those who wait must not stop the clock.
	life chan struct{}
	run  atomic.Pointer[process] // nil while it is down
}

// process is one run of a member, from start to crash.
type process struct {
	*member
	mount *mount
	store *state.Store
	node  *consensus.Node
	tel   *observability.Telemetry
	raft  api.Consensus
	// api is set once the member knows its cluster.
	api atomic.Pointer[api.API]

	dead  atomic.Bool
	armed atomic.Pointer[Failpoint]
	ctx   context.Context
	end   context.CancelFunc
	owned sync.WaitGroup
}

func (m *member) now() time.Time { return time.Now().Add(time.Duration(m.skew.Load())) }

// start runs the member on what its disk has, with life held.
func (m *member) start() error {
	p := &process{member: m, store: state.New(), tel: observability.Discard()}
	p.ctx, p.end = context.WithCancel(context.Background())
	p.mount = m.disk.mount(func() { p.reach(MidSnapshot) })
	m.cluster.Ledger.Restarted(m.id)
	node, err := consensus.OpenOn(consensus.Options{
		Member: m.id, FSM: &machine{FSM: fsm.New(p.store), process: p}, Telemetry: p.tel,
		SnapshotThreshold: 48, SnapshotInterval: time.Second, TrailingLogs: 24, VerifyEvery: 16,
	}, consensus.Seams{
		Stream: m.cluster.Net.Join(m.id), Logs: p.mount, Stable: p.mount, Snapshots: p.mount, Applied: m.disk.applied,
	})
	if err != nil {
		m.cluster.Net.Leave(m.id)
		return fmt.Errorf("start %s: %w", m.id, err)
	}
	p.node, p.raft = node, controlplane.Consensus(node, m.id, nil)
	p.owned.Go(p.serve)
	m.run.Store(p)
	return nil
}

// serve opens the keys and the API once the member knows its cluster, and leads when it does, as a member's process.
func (p *process) serve() {
	for {
		ws := p.store.Watch(state.Clusters)
		if _, ok := p.store.Read().Cluster(); ok {
			break
		}
		if ws.WatchCtx(p.ctx) != nil {
			return
		}
	}
	rec, _ := p.store.Read().Cluster()
	k, err := keys.Open(rec, p.cluster.kek)
	if err != nil {
		p.cluster.fail("open keys of %s: %v", p.id, err)
		return
	}
	segments, err := audit.Open(audit.Options{
		Dir: filepath.Join(p.cluster.dir, string(p.id)), State: p.store, Telemetry: p.tel,
		Fetch: func(context.Context, fleet.AuditSegment) ([]byte, error) { return nil, ErrCut },
	})
	if err != nil {
		p.cluster.fail("open audit segments of %s: %v", p.id, err)
		return
	}
	p.owned.Go(func() { _ = segments.Run(p.ctx) }) // it ends with the process
	lib := blobs.New(p.store, k)
	alive := nodes.New(nodes.Options{State: p.store, Proposer: p.raft, Now: p.now})
	p.api.Store(api.New(api.Options{
		Member: p.id, State: p.store, Consensus: p.raft, Keys: k, Library: lib, Report: alive.Report, Audit: segments,
		Checks:     func(context.Context) []fleet.Check { return nil },
		PointsHere: func(context.Context, fleet.Host) (bool, error) { return false, nil },
		Recheck:    func(fleet.HostName) {},
		Forward:    &wire{cluster: p.cluster, from: p.id, process: p},
		Telemetry:  p.tel, Now: p.now, ClientCAs: x509.NewCertPool(),
	}))
	err = p.node.RunLeader(p.ctx, func(ctx context.Context) error {
		p.cluster.Ledger.Leads(p.id, p.node.Stats().Term)
		loop := &heads.Loop{State: p.store, Library: lib, Proposer: headProposer{p}, Publish: p.publish, Now: p.now}
		var loops sync.WaitGroup
		loops.Go(func() { again(ctx, loop.Run) })
		loops.Go(func() { again(ctx, alive.Run) })
		loops.Wait()
		return nil
	})
	if err != nil && !errors.Is(err, fleet.ErrUnavailable) {
		p.cluster.fail("%s leads: %v", p.id, err)
	}
}

// again is what a member does with a loop that fails.
func again(ctx context.Context, run func(context.Context) error) {
	for ctx.Err() == nil {
		_ = run(ctx) // it was for want of a quorum, mostly
		_ = sleep(ctx, time.Second)
	}
}

// headProposer is the point between the commit of heads and the message about them.
type headProposer struct{ *process }

func (h headProposer) Propose(ctx context.Context, header command.Header, b command.Body) (any, error) {
	out, err := h.raft.Propose(ctx, header, b)
	if err == nil {
		h.reach(BeforeHint)
	}
	return out, err
}

// publish is the bus: it gives the message to the ledger, which knows what may be published.
func (p *process) publish(_ string, data []byte) error {
	if p.dead.Load() {
		return errGone
	}
	var set fleet.HeadSet
	if err := json.Unmarshal(data, &set); err != nil {
		return err
	}
	for _, signed := range set.Heads {
		p.cluster.heard(p.id, signed)
	}
	return nil
}

// reach kills the process if the failpoint is armed.
func (p *process) reach(at Failpoint) {
	if armed := p.armed.Load(); armed != nil && *armed == at && p.armed.CompareAndSwap(armed, nil) {
		p.kill()
	}
}

// kill ends the process as seen from outside: from now on it writes nothing and nobody hears it. stop cleans up.
func (p *process) kill() {
	if p.dead.Swap(true) {
		return
	}
	p.mount.kill()
	p.cluster.Net.Leave(p.id)
	p.end()
}

// stop kills the process and waits for its goroutines.
func (p *process) stop() {
	p.kill()
	// Raft forgets, without an answer, what it was asked while it was writing when it is shut down: let it come to rest.
	time.Sleep(settling)
	ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
	defer cancel()
	if err := p.node.Crash(ctx); err != nil && !errors.Is(err, ErrCut) {
		p.cluster.fail("stop %s: %v", p.id, err)
	}
	p.owned.Wait()
	p.sound()
}

// sound fails the history if the member found that its log is not the leader's: nothing here changes what was written.
func (p *process) sound() {
	if why := p.tel.Health.Ready()["raft_log"]; strings.Contains(why, "not the leader's") {
		p.cluster.fail("log of %s: %s", p.id, why)
	}
}

// shutdown stops the member in order.
func (p *process) shutdown() {
	p.end()
	p.owned.Wait()
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Second)
	defer cancel()
	_ = p.node.Close(ctx) // what it could not hand over the others elect
	p.sound()
	p.dead.Store(true)
	p.mount.kill()
}

// running is the member's process, nil while it is down.
func (m *member) running() *process { return m.run.Load() }

// down ends the member's process.
func (m *member) down(end func(*process)) {
	m.life <- struct{}{}
	defer func() { <-m.life }()
	m.ended(end)
}

// ended is down with life held.
func (m *member) ended(end func(*process)) {
	if p := m.run.Swap(nil); p != nil {
		end(p)
	}
}

// up starts the member unless it runs with a disk that works.
func (m *member) up() error {
	m.life <- struct{}{}
	defer func() { <-m.life }()
	if p := m.running(); p != nil && !p.dead.Load() && !p.mount.failed() {
		p.armed.Store(nil)
		return nil
	}
	m.ended((*process).stop)
	return m.start()
}

// machine tells the ledger of every entry, and has the failpoints around it: it takes no batches.
type machine struct {
	raft.FSM
	process *process
}

// Apply implements raft.FSM.
func (m *machine) Apply(l *raft.Log) any {
	m.process.reach(BeforeApply)
	out := m.FSM.Apply(l)
	m.process.cluster.Ledger.Applied(m.process.id, m.process.store.Read(), false)
	m.process.mount.raise(l.Index)
	m.process.reach(AfterApply)
	return out
}

// Restore implements raft.FSM.
func (m *machine) Restore(rc io.ReadCloser) error {
	before := m.process.store.Read().Index()
	if err := m.FSM.Restore(rc); err != nil {
		return err
	}
	m.process.cluster.note("%s: snapshot of index %d in place of index %d", m.process.id, m.process.store.Read().Index(), before)
	m.process.cluster.Ledger.Applied(m.process.id, m.process.store.Read(), true)
	return nil
}

// errNobody is what a client gets whose connection was refused: nothing was sent.
var errNobody = errors.New("connection refused")

// wire is how a member reaches the API of another: in memory, over the network that fails.
type wire struct {
	cluster *Cluster
	from    fleet.MemberID
	process *process
}

// RoundTrip implements http.RoundTripper.
func (w *wire) RoundTrip(r *http.Request) (*http.Response, error) {
	to := fleet.MemberID(r.URL.Host)
	if err := w.cluster.Net.Pass(r.Context(), w.from, to); err != nil {
		return nil, err
	}
	leaf, ca, err := w.cluster.certificate(w.from)
	if err != nil {
		return nil, err
	}
	in := r.Clone(r.Context())
	in.RequestURI, in.RemoteAddr = r.URL.RequestURI(), "192.0.2.1:1"
	in.TLS = &tls.ConnectionState{PeerCertificates: []*x509.Certificate{leaf}, VerifiedChains: [][]*x509.Certificate{{leaf, ca}}}
	res, err := w.cluster.members[to].handle(in)
	if err != nil {
		return nil, err
	}
	if w.process.dead.Load() {
		return nil, errGone
	}
	return res, w.cluster.Net.Pass(r.Context(), to, w.from)
}

// handle is a request that has arrived at the member; an error is a connection that broke.
func (m *member) handle(r *http.Request) (*http.Response, error) {
	p := m.running()
	if p == nil || p.dead.Load() || p.api.Load() == nil {
		return nil, errNobody
	}
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	defer context.AfterFunc(p.ctx, cancel)() // the connection ends with the process
	r = r.WithContext(ctx)
	rec := httptest.NewRecorder()
	done := make(chan struct{})
	p.owned.Go(func() {
		defer close(done)
		p.api.Load().ServeHTTP(rec, r)
	})
	select {
	case <-done:
	case <-r.Context().Done():
		return nil, context.Cause(r.Context())
	}
	if p.dead.Load() {
		return nil, ErrCut
	}
	return rec.Result(), nil
}

// answer is what a client was told.
type answer struct {
	status    int
	requestID string
	// replayed: the change was made before, under the same idempotency key.
	replayed bool
	body     []byte
}

// call sends a client's request to a member.
func (c *Cluster) call(ctx context.Context, rng *rand.Rand, to fleet.MemberID, token string, q request, body any) (answer, error) {
	var b []byte
	if body != nil {
		var err error
		if b, err = json.Marshal(body); err != nil {
			return answer{}, err
		}
	}
	r, err := http.NewRequestWithContext(ctx, q.method, "https://"+string(to)+q.path, bytes.NewReader(b))
	if err != nil {
		return answer{}, err
	}
	r.RequestURI, r.RemoteAddr = r.URL.RequestURI(), "192.0.2.2:1"
	r.Header.Set("Content-Type", "application/json")
	for name, value := range map[string]string{"If-Match": q.match, "Idempotency-Key": q.key} {
		if value != "" {
			r.Header.Set(name, value)
		}
	}
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	if err := sleep(ctx, time.Duration(rng.IntN(2000))*time.Microsecond); err != nil {
		return answer{}, err
	}
	res, err := c.members[to].handle(r)
	if err != nil {
		return answer{}, err
	}
	defer func() { _ = res.Body.Close() }()
	out := answer{status: res.StatusCode, requestID: res.Header.Get("X-Request-Id"), replayed: res.Header.Get("Idempotency-Replayed") == "true"}
	out.body, err = io.ReadAll(res.Body)
	return out, err
}
