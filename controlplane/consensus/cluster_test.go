package consensus_test

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/edgefleet/edgefleet/controlplane/consensus"
	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/observability"
	"github.com/edgefleet/edgefleet/tls/mtls"
)

const patience = 20 * time.Second

// list is a state machine that keeps every command, and panics on "undecodable".
type list struct {
	mu       sync.Mutex
	commands []string
	restored int
	// held, if set, keeps commands from being applied until it is closed.
	held chan struct{}
}

func (f *list) Apply(l *raft.Log) any {
	if string(l.Data) == "undecodable" {
		panic("command of unknown type")
	}
	f.mu.Lock()
	held := f.held
	f.mu.Unlock()
	if held != nil {
		<-held
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.commands = append(f.commands, string(l.Data))
	return len(f.commands)
}

func (f *list) all() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.commands)
}

func (f *list) holds(command string) func() bool {
	return func() bool { return slices.Contains(f.all(), command) }
}

func (f *list) Snapshot() (raft.FSMSnapshot, error) { return listSnapshot(f.all()), nil }

func (f *list) Restore(r io.ReadCloser) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.commands, f.restored = nil, f.restored+1
	return json.NewDecoder(r).Decode(&f.commands)
}

type listSnapshot []string

func (s listSnapshot) Persist(sink raft.SnapshotSink) error {
	if err := json.NewEncoder(sink).Encode([]string(s)); err != nil {
		return err
	}
	return sink.Close()
}

func (listSnapshot) Release() {}

// member is one running member of a test cluster.
type member struct {
	*consensus.Node
	fsm     *list
	tel     *observability.Telemetry
	options consensus.Options
}

// authority issues identities of cluster c1 unless told otherwise.
type authority struct {
	cluster fleet.ClusterID
	ca      *mtls.CA
}

func newAuthority(t *testing.T) authority {
	t.Helper()
	ca, err := mtls.NewCA("members", time.Now(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	return authority{"c1", ca}
}

// identity writes an identity to disk and opens it; node identities come from the same CA, so that only the name in
// them keeps them out.
func (a authority) identity(t *testing.T, id string, node bool) *mtls.Source {
	t.Helper()
	key, err := mtls.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	var cert []byte
	if node {
		cert, err = a.ca.SignNode(a.cluster, fleet.NodeID(id), key.Public(), time.Now())
	} else {
		cert, err = a.ca.SignMember(a.cluster, fleet.MemberID(id), key.Public(), time.Now())
	}
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
	return src
}

func (a authority) serverTLS(src *mtls.Source) *tls.Config {
	return mtls.ServerTLS(src, a.ca.Pool(), mtls.MembersOnly(a.cluster))
}

func (a authority) clientTLS(src *mtls.Source) *tls.Config {
	return mtls.ClientTLS(src, a.ca.Pool(), mtls.MemberServerName(a.cluster), mtls.MembersOnly(a.cluster))
}

// options are those of a member on loopback; its port is chosen at the first Open and kept.
func (a authority) options(t *testing.T, id string) consensus.Options {
	t.Helper()
	src := a.identity(t, id, false)
	return consensus.Options{
		Dir: filepath.Join(t.TempDir(), "raft"), Member: fleet.MemberID(id), Bind: "127.0.0.1:0",
		ServerTLS: a.serverTLS(src), ClientTLS: a.clientTLS(src),
		// Longer than the default: a busy machine must not cost a leader its lease.
		ElectionTimeout: 500 * time.Millisecond, HeartbeatTimeout: 500 * time.Millisecond,
	}
}

// start opens a member with a fresh state machine, as a process start would; it is closed when the test ends.
func start(t *testing.T, o consensus.Options) *member {
	t.Helper()
	m, err := tryStart(o)
	if err != nil {
		t.Fatal(err)
	}
	m.options.Bind = m.Addr()
	t.Cleanup(func() { m.crash(t) })
	return m
}

func tryStart(o consensus.Options) (*member, error) {
	m := &member{fsm: &list{}, tel: observability.Discard()}
	o.FSM, o.Telemetry = m.fsm, m.tel
	n, err := consensus.Open(o)
	m.Node, m.options = n, o
	return m, err
}

func (m *member) crash(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), patience)
	defer cancel()
	if err := m.Crash(ctx); err != nil {
		t.Errorf("stop %s: %v", m.options.Member, err)
	}
}

// cluster starts members m1, m2 …; m1 leads when it returns, and all know the full configuration.
func cluster(t *testing.T, size int, change func(*consensus.Options)) []*member {
	t.Helper()
	a := newAuthority(t)
	var ms []*member
	for i := range size {
		o := a.options(t, fmt.Sprintf("m%d", i+1))
		if change != nil {
			change(&o)
		}
		ms = append(ms, start(t, o))
	}
	if err := ms[0].Bootstrap(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "m1 leads", ms[0].IsLeader)
	for _, m := range ms[1:] {
		join(t, ms[0], m)
	}
	apply(t, ms[0], "first")
	for _, m := range ms {
		eventually(t, "every member has the first command", m.fsm.holds("first"))
	}
	return ms
}

func join(t *testing.T, leader, m *member) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := leader.AddVoter(ctx, m.options.Member, m.Addr()); err != nil {
		t.Fatal(err)
	}
}

func apply(t *testing.T, m *member, command string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if _, _, err := m.Apply(ctx, []byte(command)); err != nil {
		t.Fatalf("apply %q: %v", command, err)
	}
}

// leaderOf waits until one of ms leads and can commit.
func leaderOf(t *testing.T, ms ...*member) *member {
	t.Helper()
	var leader *member
	eventually(t, "a member leads", func() bool {
		for _, m := range ms {
			if m.IsLeader() && m.Barrier(t.Context()) == nil {
				leader = m
				return true
			}
		}
		return false
	})
	return leader
}

func without(ms []*member, gone *member) []*member {
	return slices.DeleteFunc(slices.Clone(ms), func(m *member) bool { return m == gone })
}

// eventually waits for cond on the wall clock.
func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	deadline := time.After(patience)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !cond() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("not within %v: %s", patience, what)
		}
	}
}

func mustContain(t *testing.T, err error, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("error %q does not say %q", err, part)
		}
	}
}
