package controlplane

import (
	"context"
	"fmt"

	"github.com/hashicorp/raft"

	"github.com/edgefleet/edgefleet/controlplane/command"
	"github.com/edgefleet/edgefleet/controlplane/consensus"
	"github.com/edgefleet/edgefleet/controlplane/fsm"
	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/observability"
	"github.com/edgefleet/edgefleet/tls/mtls"
)

func (c Config) openConsensus(t trust, machine raft.FSM, tel *observability.Telemetry) (*consensus.Node, error) {
	allow := mtls.MembersOnly(t.Cluster)
	return consensus.Open(consensus.Options{
		Dir: c.path("raft"), Member: c.Member, Bind: c.RaftListen, Advertise: c.advertised("").Raft,
		ServerTLS: mtls.ServerTLS(t.source, t.memberCA, allow),
		ClientTLS: mtls.ClientTLS(t.source, t.memberCA, mtls.MemberServerName(t.Cluster), allow),
		FSM:       machine, Telemetry: tel,
	})
}

// proposer is Raft as the API and the leader's loops see it.
type proposer struct {
	node   *consensus.Node
	member fleet.MemberID
}

// Propose commits a command and returns what the state machine answered.
func (p proposer) Propose(ctx context.Context, h command.Header, b command.Body) (any, error) {
	entry, err := command.Encode(h, b)
	if err != nil {
		return nil, err
	}
	answer, _, err := p.node.Apply(ctx, entry)
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

// ReadIndex waits until the local state includes everything committed before the call.
func (p proposer) ReadIndex(ctx context.Context) (uint64, error) { return p.node.ReadIndex(ctx) }

// Leader names the leader and whether it is this member.
func (p proposer) Leader() (fleet.MemberID, bool) {
	id, _, ok := p.node.Leader()
	if !ok {
		return "", false
	}
	return id, id == p.member && p.node.IsLeader()
}

// Status is Raft's term and last index.
func (p proposer) Status() (term, index uint64) {
	s := p.node.Stats()
	return s.Term, s.LastIndex
}

// Suffrage lists the members of the Raft configuration.
func (p proposer) Suffrage() (map[fleet.MemberID]string, error) {
	servers, err := p.node.Servers()
	if err != nil {
		return nil, err
	}
	m := map[fleet.MemberID]string{}
	for _, s := range servers {
		m[s.ID] = string(s.Suffrage)
	}
	return m, nil
}

// voters counts the voting members.
func (p proposer) voters() int {
	n := 0
	servers, _ := p.node.Servers() // an error reads as no voters: nothing is acknowledged
	for _, s := range servers {
		if s.Suffrage == consensus.Voter {
			n++
		}
	}
	return n
}

// AddVoter adds a member to the Raft configuration.
func (p proposer) AddVoter(ctx context.Context, id fleet.MemberID, addr string) error {
	return p.node.AddVoter(ctx, id, addr)
}

// Remove takes a member out of the Raft configuration.
func (p proposer) Remove(ctx context.Context, id fleet.MemberID) error { return p.node.Remove(ctx, id) }
