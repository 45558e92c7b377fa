package consensus

import (
	"io"
	"strconv"
	"sync"

	"github.com/hashicorp/raft"
)

// incoming is Raft's transport, with what others send put so that Raft takes it as the Raft paper says. What it mends is of
// Raft 1.7.3 and 1.8.0; the methods say what each is.
type incoming struct {
	transport
	requests chan raft.RPC
	closed   chan struct{}
	closing  sync.Once
	answers  sync.WaitGroup
}

// transport is what incoming needs: Raft asks for votes in advance only over a transport that can.
type transport interface {
	raft.Transport
	raft.WithPreVote
	raft.WithClose
}

func newIncoming(t transport) *incoming {
	return &incoming{transport: t, requests: make(chan raft.RPC), closed: make(chan struct{})}
}

// Consumer implements raft.Transport.
func (i *incoming) Consumer() <-chan raft.RPC { return i.requests }

// Close implements raft.WithClose.
func (i *incoming) Close() error {
	i.closing.Do(func() { close(i.closed) })
	return i.transport.Close()
}

// run passes on to n what others send, one after another, until Close. Requests are copied: in memory they are still the
// sender's.
func (i *incoming) run(n *Node) {
	defer i.answers.Wait()
	for {
		var rpc raft.RPC
		select {
		case rpc = <-i.transport.Consumer():
		case <-i.closed:
			return
		}
		switch req := rpc.Command.(type) {
		case *raft.RequestVoteRequest:
			rpc.Command = asVoter(req)
		case *raft.RequestPreVoteRequest:
			rpc.Command = asVoterInAdvance(req, n.configuration())
		case *raft.AppendEntriesRequest:
			rpc.Command = n.fromWhereItStands(req)
		case *raft.InstallSnapshotRequest:
			if i.settle(n, req, rpc) {
				continue
			}
		}
		i.pass(rpc)
	}
}

func (i *incoming) pass(rpc raft.RPC) {
	select {
	case i.requests <- rpc:
	case <-i.closed:
	}
}

// asVoter gives a request no id, as old versions did, which Raft does not look up.
//
// Raft refuses its vote to whoever has none in the configuration that this member knows. That may be an old one: a member
// comes in, or gets its vote, while this one is down, and the leader dies. Of the two that remain the one with the newer log
// does not get the vote then and the one with the older log must not, for good. The Raft dissertation (section 4.1) has
// members vote for who is not in their configuration. A member that was taken out disturbs nobody by that: its log ends
// before its removal, which a majority has, and it asks in advance.
func asVoter(req *raft.RequestVoteRequest) *raft.RequestVoteRequest {
	out := *req
	out.ID = nil
	return &out
}

// asVoterInAdvance does the same for votes in advance, which have no old version: whoever has no vote in c asks in the name
// of one who has; Raft uses the name for nothing else.
func asVoterInAdvance(req *raft.RequestPreVoteRequest, c raft.Configuration) *raft.RequestPreVoteRequest {
	out, other := *req, []byte(nil)
	for _, s := range c.Servers {
		switch {
		case s.Suffrage != raft.Voter:
		case s.ID == raft.ServerID(req.ID):
			return &out
		default:
			other = []byte(s.ID)
		}
	}
	if other != nil {
		out.ID = other
	}
	return &out
}

// settle answers a snapshot of which this member has everything, as the Raft paper does (section 7): it keeps the log that
// follows, and says that it has it. It reports whether it did.
//
// Such a snapshot was sent long ago, on a connection that the leader gave up and that delivers still, or by a leader that
// went back in search of where the logs agree because this member's disk failed. Raft installs it: it sets the state machine
// back and drops the whole log, with entries that this member has acknowledged since and that the cluster has committed
// because of that. Were this member to vote then, they could be lost.
//
// A heartbeat goes first. Until it is answered Raft may be at something else that was sent before; and a candidate takes note
// of the leader that a snapshot is from but stays a candidate, who forgets leaders only when it becomes a follower: is that
// leader gone, it refuses everybody its vote because it "has a leader". A heartbeat makes it a follower.
func (i *incoming) settle(n *Node, req *raft.InstallSnapshotRequest, rpc raft.RPC) bool {
	answer := make(chan raft.RPCResponse, 1)
	i.pass(raft.RPC{
		Command:  &raft.AppendEntriesRequest{RPCHeader: req.RPCHeader, Term: req.Term, Leader: req.Leader},
		RespChan: answer,
	})
	var beat *raft.AppendEntriesResponse
	select {
	case got := <-answer:
		beat, _ = got.Response.(*raft.AppendEntriesResponse)
	case <-i.closed:
		return true
	}
	if beat == nil || !beat.Success || !n.holds(req.LastLogIndex, req.LastLogTerm) {
		return false
	}
	i.answers.Go(func() {
		_, err := io.Copy(io.Discard, rpc.Reader) // the connection is used further
		rpc.Respond(&raft.InstallSnapshotResponse{RPCHeader: beat.RPCHeader, Term: beat.Term, Success: true}, err)
	})
	return true
}

// holds reports whether this member has everything up to an entry of a leader's snapshot: it was applied here, or the log
// has it, and thereby all before it.
func (n *Node) holds(index, term uint64) bool {
	if n.raft.AppliedIndex() >= index {
		return true
	}
	var l raft.Log
	return n.logs.GetLog(index, &l) == nil && l.Term == term
}

// fromWhereItStands puts a leader's entries so that Raft takes what this member does not have.
//
// A log that begins behind a snapshot has no entry to compare with when a leader goes back that far: Raft says no at each
// step, until the leader, which finds no end, sends a snapshot again, and that for ever. But what a snapshot has was
// committed, and every leader has it: what follows it fits.
//
// And Raft takes everything in its log for committed up to the leader's commit index, also what the request does not speak
// of and the leader may not have: the Raft paper (figure 2) goes no further than the last entry of the request.
func (n *Node) fromWhereItStands(req *raft.AppendEntriesRequest) *raft.AppendEntriesRequest {
	out := *req
	out.LeaderCommitIndex = min(req.LeaderCommitIndex, req.PrevLogEntry+uint64(len(req.Entries)))
	if req.PrevLogEntry == 0 || req.PrevLogEntry == n.raft.LastIndex() || n.logs.GetLog(req.PrevLogEntry, &raft.Log{}) == nil {
		return &out
	}
	snapshot := n.snapshotIndex()
	if req.PrevLogEntry > snapshot {
		return &out
	}
	for len(out.Entries) > 0 && out.Entries[0].Index <= snapshot {
		out.Entries = out.Entries[1:]
	}
	out.PrevLogEntry, out.PrevLogTerm = 0, 0
	if len(out.Entries) == 0 {
		out.LeaderCommitIndex = 0
	}
	return &out
}

// snapshotIndex is the last entry of the newest snapshot that Raft stands on.
func (n *Node) snapshotIndex() uint64 {
	index, err := strconv.ParseUint(n.raft.Stats()["last_snapshot_index"], 10, 64)
	if err != nil {
		return 0
	}
	return index
}
