package consensus_test

import (
	"bytes"
	"fmt"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/raft"
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
