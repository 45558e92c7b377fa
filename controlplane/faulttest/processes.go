package faulttest

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptrace"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/edgefleet/edgefleet/controlplane/client"
	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/loadtest/harness"
)

// The ports of a member, each at an address of its own.
const (
	portAPI, portRaft, portNATS, portRoute, portAdmin, portDNS = "8440", "8441", "8442", "8443", "8444", "8453"
)

// diskMegabytes is the size of a member's disk, if it has one of its own: a few segments of the log and the streams.
const diskMegabytes = 160

// realPatience is how long real members may take to be whole again, on a machine with other work.
const realPatience = time.Minute

// Processes is a control plane of real processes, made to be broken: they reach each other through proxies only.
type Processes struct {
	Net    *Network
	Ledger *Ledger
	// SmallDisks says that each member has a disk of its own, which can be filled: only root may make one.
	SmallDisks bool

	env      *harness.Env
	binary   string
	ids      []fleet.MemberID
	members  map[fleet.MemberID]*realMember
	operator string
	recovery ed25519.PrivateKey
	cluster  fleet.ClusterRecord
	http     *http.Client
	stop     context.CancelFunc

	mu    sync.Mutex
	story []string
	begin time.Time
	// done counts the faults that came as they should.
	done map[Fault]int
}

// realMember is one member: here is where it listens, host where the others find it.
type realMember struct {
	id           fleet.MemberID
	here, host   string
	config, data string
	// life is held by whoever starts or ends the process.
	life sync.Mutex
	run  *harness.Process
	// pid is that of run, for the proxies.
	pidMu sync.Mutex
	pid   int
}

// StartProcesses starts a control plane of three members; rng decides when programs that set it up are killed first.
func StartProcesses(ctx context.Context, env *harness.Env, rng *rand.Rand) (_ *Processes, err error) {
	p := &Processes{
		Net: NewNetwork(0), Ledger: NewLedger(), SmallDisks: true, env: env, members: map[fleet.MemberID]*realMember{}, done: map[Fault]int{}, begin: time.Now(),
	}
	if p.binary, err = env.Binary("controlplane"); err != nil {
		return nil, err
	}
	var live context.Context
	live, p.stop = context.WithCancel(context.WithoutCancel(ctx))
	defer func() {
		if err != nil {
			err = errors.Join(err, p.Close())
		}
	}()
	for i := range 3 {
		if err := p.add(live, fleet.MemberID(fmt.Sprintf("m%d", i+1))); err != nil {
			return nil, err
		}
	}
	if err := p.initialize(ctx, rng); err != nil {
		return nil, err
	}
	for _, id := range p.ids[1:] {
		if err := p.join(ctx, p.members[id], rng); err != nil {
			return nil, err
		}
	}
	standings, err := p.rest(ctx)
	if err != nil {
		return nil, err
	}
	p.cluster, _ = standings[0].View.Cluster()
	return p, nil
}

// add gives a member its addresses, its disk and its configuration.
func (p *Processes) add(ctx context.Context, id fleet.MemberID) error {
	m := &realMember{id: id, data: filepath.Join(p.env.Dir, string(id))}
	var err error
	if m.here, err = p.env.Host(); err != nil {
		return err
	}
	if m.host, err = p.env.Host(); err != nil {
		return err
	}
	for _, port := range []string{portAPI, portRaft, portRoute} {
		l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", net.JoinHostPort(m.host, port))
		if err != nil {
			return fmt.Errorf("listen in front of %s: %w", id, err)
		}
		go proxy{net: p.Net, member: id, from: net.JoinHostPort(m.host, port), to: net.JoinHostPort(m.here, port), whose: p.whose}.run(ctx, l)
	}
	if err := os.Mkdir(m.data, 0o700); err != nil {
		return fmt.Errorf("make the data directory of %s: %w", id, err)
	}
	if err := syscall.Mount("tmpfs", m.data, "tmpfs", 0, fmt.Sprintf("size=%dm,mode=0700", diskMegabytes)); err != nil {
		p.SmallDisks = false
	}
	at := func(port string) string { return net.JoinHostPort(m.here, port) }
	m.config, err = p.env.WriteFile(string(id)+".yaml", fmt.Appendf(nil, `data_dir: %s
member: %s
cluster_zone: edge.example
advertise: %s
api_listen: %s
raft_listen: %s
nats_listen: %s
nats_route_listen: %s
dns_listen: %s
admin_listen: %s
kek_file: %s
resolvers: ["%s"]
raft_timeout: 500ms
snapshot_bytes: 1048576
audit_keep: 1000000
log_level: warn
`, m.data, id, m.host, at(portAPI), at(portRaft), at(portNATS), at(portRoute), at(portDNS), at(portAdmin), filepath.Join(p.env.Dir, "kek"), at(portDNS)))
	if err != nil {
		return err
	}
	p.ids, p.members[id] = append(p.ids, id), m
	return nil
}

// whose is the member that a process is; none of them is a program that runs to its end.
func (p *Processes) whose(pid int) fleet.MemberID {
	for _, id := range p.ids {
		m := p.members[id]
		m.pidMu.Lock()
		same := m.pid == pid && pid != 0
		m.pidMu.Unlock()
		if same {
			return id
		}
	}
	return ""
}

// anew does what the programs ask for after one of them did not end well: it moves aside what is in the data directory.
// The keys beside it stay.
func (p *Processes) anew(m *realMember) error {
	files, err := os.ReadDir(m.data)
	if err != nil {
		return fmt.Errorf("list what %s has: %w", m.id, err)
	}
	for _, f := range files {
		if err := os.RemoveAll(filepath.Join(m.data, f.Name())); err != nil {
			return fmt.Errorf("empty the directory of %s: %w", m.id, err)
		}
	}
	return nil
}

// killed starts a program and kills it at a random time, if it has not ended by then.
func (p *Processes) killed(ctx context.Context, rng *rand.Rand, args ...string) error {
	run, err := p.env.Start(harness.Command{Name: "killed-" + args[0], Path: p.binary, Args: args})
	if err != nil {
		return err
	}
	after := time.Duration(rng.IntN(400)) * time.Millisecond
	err = sleep(ctx, after)
	run.Kill()
	p.note("%s was killed after %s, unless it had ended", args[0], after)
	return err
}

// initialize makes the cluster, after an attempt that was killed.
func (p *Processes) initialize(ctx context.Context, rng *rand.Rand) error {
	m := p.members[p.ids[0]]
	if err := p.killed(ctx, rng, "init", "--config", m.config); err != nil {
		return err
	}
	if err := p.anew(m); err != nil {
		return err
	}
	if _, err := p.env.Tool(ctx, "init", p.binary, "init", "--config", m.config); err != nil {
		return fmt.Errorf("init, after one that was killed: %w", err)
	}
	text, err := os.ReadFile(filepath.Join(m.data, "operator.token"))
	if err != nil {
		return fmt.Errorf("read the operator's token: %w", err)
	}
	p.operator = strings.TrimSpace(string(text))
	if p.recovery, err = readRecovery(filepath.Join(m.data, "recovery.key")); err != nil {
		return err
	}
	ca, err := os.ReadFile(filepath.Join(m.data, "api-ca.crt"))
	if err != nil {
		return fmt.Errorf("read the API's authority: %w", err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca)
	p.http = &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS13}, DialContext: p.dial}}
	if err := p.up(ctx, m); err != nil {
		return err
	}
	return p.await(ctx, "the first member leads", func(ctx context.Context) error {
		s, err := p.status(ctx, m.id)
		if err == nil && s.Leader != m.id {
			err = fmt.Errorf("%w: %q leads", fleet.ErrUnavailable, s.Leader)
		}
		return err
	})
}

// dial reaches a member where it listens: the network between members is not the clients'.
func (p *Processes) dial(ctx context.Context, network, address string) (net.Conn, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	for _, m := range p.members {
		if m.host == host {
			host = m.here
		}
	}
	return (&net.Dialer{Timeout: 5 * time.Second}).DialContext(ctx, network, net.JoinHostPort(host, port))
}

// join takes a member in, after an attempt that was killed.
func (p *Processes) join(ctx context.Context, m *realMember, rng *rand.Rand) error {
	args, err := p.joining(ctx, m)
	if err != nil {
		return err
	}
	if err := errors.Join(p.killed(ctx, rng, args...), p.anew(m), p.forget(ctx, m.id)); err != nil {
		return fmt.Errorf("join of %s, killed: %w", m.id, err)
	}
	if err := p.enter(ctx, m); err != nil {
		return err
	}
	return p.up(ctx, m)
}

func (p *Processes) note(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.story = append(p.story, fmt.Sprintf("%8s  ", time.Since(p.begin).Truncate(time.Millisecond))+fmt.Sprintf(format, args...))
}

// Story is what was done to the members, in order.
func (p *Processes) Story() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]string(nil), p.story...)
}

// Age is how long ago the first member was begun.
func (p *Processes) Age() time.Duration { return time.Since(p.begin) }

// Dir is where the logs of the processes are.
func (p *Processes) Dir() string { return p.env.Dir }

// up starts a member that does not run.
func (p *Processes) up(ctx context.Context, m *realMember) error {
	m.life.Lock()
	defer m.life.Unlock()
	if m.run != nil && m.run.Alive() == nil {
		return nil
	}
	run, err := p.env.Start(harness.Command{Name: string(m.id), Path: p.binary, Args: []string{"run", "--config", m.config}})
	if err != nil {
		return err
	}
	m.run = run
	m.pidMu.Lock()
	m.pid = run.PID()
	m.pidMu.Unlock()
	return ctx.Err()
}

// down kills a member.
func (p *Processes) down(m *realMember) {
	m.life.Lock()
	defer m.life.Unlock()
	if m.run != nil {
		m.run.Kill()
	}
}

// Dump ends every process so that its log shows what its goroutines were at.
func (p *Processes) Dump() {
	for _, id := range p.ids {
		p.signal(p.members[id], syscall.SIGQUIT)
	}
	for _, id := range p.ids {
		if run := p.members[id].run; run != nil {
			select {
			case <-run.Ended():
			case <-time.After(settling):
			}
		}
	}
}

// signal stops a member in its tracks, or lets it go on.
func (p *Processes) signal(m *realMember, s syscall.Signal) {
	m.life.Lock()
	defer m.life.Unlock()
	if m.run != nil && m.run.Alive() == nil {
		_ = syscall.Kill(m.run.PID(), s) // it ended this moment
	}
}

func (p *Processes) await(ctx context.Context, what string, try func(context.Context) error) error {
	if err := harness.Until(ctx, realPatience, 50*time.Millisecond, try); err != nil {
		return fmt.Errorf("waited in vain: %s: %w", what, err)
	}
	return nil
}

// call implements caller.
func (p *Processes) call(ctx context.Context, _ *rand.Rand, to fleet.MemberID, token string, q request, body any) (answer, error) {
	var b []byte
	if body != nil {
		var err error
		if b, err = json.Marshal(body); err != nil {
			return answer{}, err
		}
	}
	h := http.Header{"Content-Type": {"application/json"}}
	for name, value := range map[string]string{"If-Match": q.match, "Idempotency-Key": q.key} {
		if value != "" {
			h.Set(name, value)
		}
	}
	return p.send(ctx, to, token, q, h, b)
}

// send sends a request whose body is encoded.
func (p *Processes) send(ctx context.Context, to fleet.MemberID, token string, q request, h http.Header, body []byte) (answer, error) {
	r, err := http.NewRequestWithContext(ctx, q.method, "https://"+net.JoinHostPort(p.members[to].host, portAPI)+q.path, bytes.NewReader(body))
	if err != nil {
		return answer{}, err
	}
	if r.Header = h.Clone(); token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	var connected atomic.Bool // the transport repeats requests with an idempotency key by itself
	trace := &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { connected.Store(true) }}
	res, err := p.http.Do(r.WithContext(httptrace.WithClientTrace(ctx, trace)))
	if op := (*net.OpError)(nil); errors.As(err, &op) && op.Op == "dial" && !connected.Load() {
		return answer{}, errNobody
	}
	if err != nil {
		return answer{}, err
	}
	defer func() { _ = res.Body.Close() }()
	out := answer{status: res.StatusCode, requestID: res.Header.Get("X-Request-Id"), replayed: res.Header.Get("Idempotency-Replayed") == "true"}
	out.body, err = io.ReadAll(res.Body)
	return out, err
}

// status is the cluster as one member sees it, with the hash of its state.
func (p *Processes) status(ctx context.Context, id fleet.MemberID) (s client.ClusterStatus, err error) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	a, err := p.call(ctx, nil, id, p.operator, request{method: http.MethodGet, path: "/v1/cluster?hash=true"}, nil)
	if err != nil {
		return s, err
	}
	if a.status != http.StatusOK {
		return s, fmt.Errorf("%w: %s answers %d %.300s", fleet.ErrUnavailable, id, a.status, a.body)
	}
	return s, json.Unmarshal(a.body, &s)
}

// Close kills every member and gives its disk back.
func (p *Processes) Close() (err error) {
	p.stop()
	for _, id := range p.ids {
		p.signal(p.members[id], syscall.SIGCONT)
		p.down(p.members[id])
		if e := syscall.Unmount(p.members[id].data, syscall.MNT_DETACH); e != nil && p.SmallDisks {
			err = errors.Join(err, fmt.Errorf("unmount the disk of %s: %w", id, e))
		}
	}
	return err
}
