package consensus_test

import (
	"bytes"
	"context"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"github.com/edgefleet/edgefleet/controlplane/consensus"
	"github.com/edgefleet/edgefleet/observability"
)

// large is a state machine whose snapshot is the work of that many milliseconds.
type large struct{ *list }

const (
	chunks = 100
	// lastChunk is the work between the last write and the end.
	lastChunk = 20 * time.Millisecond
)

func (large) Snapshot() (raft.FSMSnapshot, error) { return largeSnapshot{}, nil }

type largeSnapshot struct{}

func (largeSnapshot) Persist(sink raft.SnapshotSink) error {
	for range chunks {
		time.Sleep(time.Millisecond)
		if _, err := sink.Write(make([]byte, 64<<10)); err != nil {
			return err
		}
	}
	time.Sleep(lastChunk)
	return sink.Close()
}

func (largeSnapshot) Release() {}

func TestAMembersOwnSnapshot(t *testing.T) {
	const work = chunks * time.Millisecond
	for name, c := range map[string]struct {
		// during happens after that time.
		during      func(t *testing.T, n *consensus.Node, transport *raft.InmemTransport)
		after       time.Duration
		least, most time.Duration
		givenUp     bool
	}{
		"takes a quarter of the time": {
			during: func(*testing.T, *consensus.Node, *raft.InmemTransport) {}, least: 4*work - 4*time.Millisecond, most: 4*work + lastChunk,
		},
		"goes on at full speed when the log has grown by the limit meanwhile": {
			during: func(t *testing.T, n *consensus.Node, _ *raft.InmemTransport) {
				if _, _, err := n.Apply(t.Context(), make([]byte, 2<<10)); err != nil {
					t.Error(err)
				}
			},
			after: 4 * work / 5, least: work, most: 2 * work,
		},
		"is given up when the member stops": {
			during: func(t *testing.T, n *consensus.Node, _ *raft.InmemTransport) {
				if err := n.Crash(context.WithoutCancel(t.Context())); err != nil {
					t.Error(err)
				}
			},
			after: 4 * work / 5, most: work, givenUp: true,
		},
		"is given up when the leader's takes the place of the state": {
			during: func(_ *testing.T, n *consensus.Node, transport *raft.InmemTransport) { sendSnapshot(n, transport) },
			after:  4 * work / 5, most: work, givenUp: true,
		},
		"is given up when the leader's takes the place of the state after all was written": {
			during: func(_ *testing.T, n *consensus.Node, transport *raft.InmemTransport) { sendSnapshot(n, transport) },
			after:  4*work + lastChunk/2, least: 4 * work, most: 4*work + lastChunk, givenUp: true,
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				_, transport := raft.NewInmemTransport("")
				n, err := consensus.OpenInMemory(consensus.Options{
					Member: "m1", FSM: large{&list{}}, Telemetry: observability.Discard(), SnapshotBytes: 1 << 10,
				}, transport)
				if err != nil {
					t.Fatal(err)
				}
				b := &bubble{nodes: []*consensus.Node{n}}
				defer b.close(t)
				if err := n.Bootstrap(); err != nil {
					t.Fatal(err)
				}
				settle()
				if _, _, err := n.Apply(t.Context(), []byte("x")); err != nil {
					t.Fatal(err)
				}
				begin, done := time.Now(), make(chan error, 1)
				go func() { done <- n.Snapshot() }()
				time.Sleep(c.after)
				c.during(t, n, transport)
				err = <-done
				if took := time.Since(begin); took < c.least || took > c.most {
					t.Errorf("took %s, want %s to %s", took, c.least, c.most)
				}
				if givenUp := err != nil; givenUp != c.givenUp {
					t.Errorf("got %v, want it given up: %t", err, c.givenUp)
				}
			})
		})
	}
}

// sendSnapshot sends a newer leader's snapshot to n.
func sendSnapshot(n *consensus.Node, to *raft.InmemTransport) {
	addr, from := raft.NewInmemTransport("")
	defer func() { _ = from.Close() }()
	from.Connect(to.LocalAddr(), to)
	data, stats := []byte(`["x","y"]`), n.Stats()
	req := &raft.InstallSnapshotRequest{
		RPCHeader:       raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte("m2"), Addr: []byte(addr)},
		SnapshotVersion: raft.SnapshotVersionMax, Term: stats.Term + 1, Leader: []byte(addr), LastLogIndex: stats.LastIndex + 10, LastLogTerm: stats.Term + 1,
		Configuration:      raft.EncodeConfiguration(raft.Configuration{Servers: []raft.Server{{ID: "m1", Address: to.LocalAddr()}, {ID: "m2", Address: addr}}}),
		ConfigurationIndex: 1, Size: int64(len(data)),
	}
	// How it is answered is of no interest: what it does to the member's own snapshot is.
	_ = from.InstallSnapshot("m1", to.LocalAddr(), req, &raft.InstallSnapshotResponse{}, bytes.NewReader(data))
}

func TestASnapshotOfManySyncsComesBack(t *testing.T) {
	ms := cluster(t, 1, func(*consensus.Options) {})
	for range 4 {
		apply(t, ms[0], strings.Repeat("x", 1<<20))
	}
	if err := ms[0].Snapshot(); err != nil {
		t.Fatal(err)
	}
	want := ms[0].fsm.all()
	ms[0].crash(t)
	m := start(t, ms[0].options)
	if got := m.fsm.all(); !slices.Equal(got, want) {
		t.Errorf("%d commands came back of %d, or others", len(got), len(want))
	}
}
