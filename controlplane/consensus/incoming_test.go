package consensus_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/raft"

	"github.com/edgefleet/edgefleet/controlplane/consensus"
	"github.com/edgefleet/edgefleet/observability"
)

func TestASnapshotThatArrivesLateTakesNothingBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBubble(t)
		defer b.close(t)
		for i := range 20 {
			if _, _, err := b.nodes[0].Apply(t.Context(), fmt.Appendf(nil, "c%d", i)); err != nil {
				t.Fatal(err)
			}
		}
		settle()
		want, before := b.fsms[1].all(), b.nodes[1].Stats()

		// What the leader sent long ago, on a connection that it has given up.
		_, old := raft.NewInmemTransport("")
		defer func() { _ = old.Close() }()
		old.Connect(b.transports[1].LocalAddr(), b.transports[1])
		leader := b.transports[0].LocalAddr()
		data := []byte(`["c0","c1"]`)
		var servers []raft.Server
		for i, tr := range b.transports {
			servers = append(servers, raft.Server{ID: raft.ServerID(fmt.Sprintf("m%d", i+1)), Address: tr.LocalAddr()})
		}
		req := &raft.InstallSnapshotRequest{
			RPCHeader:       raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte("m1"), Addr: []byte(leader)},
			SnapshotVersion: raft.SnapshotVersionMax, Term: before.Term, Leader: []byte(leader), LastLogIndex: before.LastIndex - 10, LastLogTerm: before.Term,
			Configuration: raft.EncodeConfiguration(raft.Configuration{Servers: servers}), ConfigurationIndex: 1, Size: int64(len(data)),
		}
		// Whether it is answered with an error is of no interest: nobody hears the answer.
		_ = old.InstallSnapshot("m2", b.transports[1].LocalAddr(), req, &raft.InstallSnapshotResponse{}, bytes.NewReader(data))
		settle()

		if after := b.nodes[1].Stats(); after.LastIndex < before.LastIndex {
			t.Errorf("the log ends at entry %d, entry %d was acknowledged", after.LastIndex, before.LastIndex)
		}
		if diff := cmp.Diff(want, b.fsms[1].all()); diff != "" {
			t.Errorf("the state machine went back (-before +after):\n%s", diff)
		}
	})
}

// leaderTerm is the term that the leader of a lone member leads in.
const leaderTerm = 5

// lone is a member that hears from nobody but the test, which speaks for a leader m1.
type lone struct {
	node *consensus.Node
	fsm  *list
	at   raft.ServerAddress
	// m1 is the transport of the other.
	m1 *raft.InmemTransport
}

func newLone(t *testing.T) *lone {
	t.Helper()
	l := &lone{fsm: &list{}}
	_, transport := raft.NewInmemTransport("")
	_, l.m1 = raft.NewInmemTransport("")
	l.m1.Connect(transport.LocalAddr(), transport)
	var err error
	if l.node, err = consensus.OpenInMemory(consensus.Options{Member: "m2", FSM: l.fsm, Telemetry: observability.Discard()}, transport); err != nil {
		t.Fatal(err)
	}
	l.at = transport.LocalAddr()
	return l
}

func (l *lone) close(t *testing.T) {
	t.Helper()
	if err := errors.Join(l.node.Crash(context.WithoutCancel(t.Context())), l.m1.Close()); err != nil {
		t.Error(err)
	}
}

func (l *lone) header(id string) raft.RPCHeader {
	return raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(id), Addr: []byte(id)}
}

// snapshot sends a snapshot up to an entry; the configuration in it is of m1 and m2.
func (l *lone) snapshot(t *testing.T, index uint64, commands string) {
	t.Helper()
	servers := []raft.Server{{ID: "m1", Address: "m1"}, {ID: "m2", Address: l.at}}
	req := &raft.InstallSnapshotRequest{
		RPCHeader: l.header("m1"), SnapshotVersion: raft.SnapshotVersionMax, Term: leaderTerm, Leader: []byte("m1"), LastLogIndex: index, LastLogTerm: leaderTerm,
		Configuration: raft.EncodeConfiguration(raft.Configuration{Servers: servers}), ConfigurationIndex: 1, Size: int64(len(commands)),
	}
	var res raft.InstallSnapshotResponse
	if err := l.m1.InstallSnapshot("m2", l.at, req, &res, strings.NewReader(commands)); err != nil || !res.Success {
		t.Fatalf("snapshot up to %d: %+v, %v", index, res, err)
	}
}

// entries sends the commands from first to last, and no entry if first is behind last.
func (l *lone) entries(t *testing.T, first, last, commit uint64) bool {
	t.Helper()
	req := &raft.AppendEntriesRequest{
		RPCHeader: l.header("m1"), Term: leaderTerm, Leader: []byte("m1"), PrevLogEntry: first - 1, PrevLogTerm: leaderTerm, LeaderCommitIndex: commit,
	}
	for i := first; i <= last; i++ {
		req.Entries = append(req.Entries, &raft.Log{Index: i, Term: leaderTerm, Type: raft.LogCommand, Data: fmt.Appendf(nil, "c%d", i)})
	}
	var res raft.AppendEntriesResponse
	if err := l.m1.AppendEntries("m2", l.at, req, &res); err != nil {
		t.Fatal(err)
	}
	synctest.Wait()
	return res.Success
}

// votes asks for a vote in advance, and for the vote if that is given.
func (l *lone) votes(t *testing.T, candidate string, term, lastIndex, lastTerm uint64) bool {
	t.Helper()
	var before raft.RequestPreVoteResponse
	ask := &raft.RequestPreVoteRequest{RPCHeader: l.header(candidate), Term: term, LastLogIndex: lastIndex, LastLogTerm: lastTerm}
	if err := l.m1.RequestPreVote("m2", l.at, ask, &before); err != nil {
		t.Fatal(err)
	}
	if !before.Granted {
		return false
	}
	var res raft.RequestVoteResponse
	vote := &raft.RequestVoteRequest{RPCHeader: l.header(candidate), Term: term, LastLogIndex: lastIndex, LastLogTerm: lastTerm}
	if err := l.m1.RequestVote("m2", l.at, vote, &res); err != nil {
		t.Fatal(err)
	}
	return res.Granted
}

func TestAMemberWhoseLogBeginsBehindASnapshotKeepsWhatItHas(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLone(t)
		defer l.close(t)
		l.snapshot(t, 20, `["newer"]`)
		l.snapshot(t, 10, `["older"]`)
		l.snapshot(t, 20, `["again"]`)
		if diff := cmp.Diff([]string{"newer"}, l.fsm.all()); diff != "" {
			t.Errorf("the state machine (-want +got):\n%s", diff)
		}
		if !l.entries(t, 12, 18, 20) {
			t.Error("entries that the snapshot has were refused")
		}
		if !l.entries(t, 15, 22, 22) {
			t.Error("entries from before the snapshot on to behind it were refused")
		}
		if !l.entries(t, 21, 23, 23) {
			t.Error("entries right behind the snapshot were refused")
		}
		if l.entries(t, 26, 27, 27) {
			t.Error("entries behind a gap were taken")
		}
		if diff := cmp.Diff([]string{"newer", "c21", "c22", "c23"}, l.fsm.all()); diff != "" {
			t.Errorf("the state machine (-want +got):\n%s", diff)
		}
		if got := l.node.Stats(); got.LastIndex != 23 || got.Commit != 23 {
			t.Errorf("the log stands at %+v", got)
		}
	})
}

func TestNothingIsCommittedThatALeaderDidNotSpeakOf(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLone(t)
		defer l.close(t)
		l.snapshot(t, 20, `[]`)
		l.entries(t, 21, 25, 20)
		if !l.entries(t, 23, 22, 25) {
			t.Error("a request without entries was refused")
		}
		if got := l.node.Stats().Commit; got != 22 {
			t.Errorf("committed up to %d", got)
		}
		if diff := cmp.Diff([]string{"c21", "c22"}, l.fsm.all()); diff != "" {
			t.Errorf("the state machine (-want +got):\n%s", diff)
		}
	})
}

func TestAVoteIsForWhoeverHasTheLog(t *testing.T) {
	for name, tc := range map[string]struct {
		candidate       string
		index, term     uint64
		leaderIsThere   bool
		snapshotArrives bool
		want            bool
	}{
		"a member of the configuration":                           {candidate: "m1", index: 20, term: 5, want: true},
		"a member that came in while this one was down":           {candidate: "m3", index: 30, term: 5, want: true},
		"a log that is older":                                     {candidate: "m3", index: 19, term: 5},
		"a leader is there":                                       {candidate: "m3", index: 30, term: 5, leaderIsThere: true},
		"a snapshot of a leader that is gone makes no leader":     {candidate: "m3", index: 50, term: 5, snapshotArrives: true, want: true},
		"a log that is older than the snapshot that came so late": {candidate: "m3", index: 30, term: 5, snapshotArrives: true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newLone(t)
				defer l.close(t)
				l.snapshot(t, 20, `[]`)
				settle()
				if tc.snapshotArrives {
					l.snapshot(t, 40, `[]`)
					settle()
				}
				if tc.leaderIsThere {
					l.entries(t, 21, 21, 20)
				}
				if got := l.votes(t, tc.candidate, 6, tc.index, tc.term); got != tc.want {
					t.Errorf("voted: %v, want %v", got, tc.want)
				}
			})
		})
	}
}
