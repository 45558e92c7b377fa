package controlplane

import (
	"context"
	"crypto/tls"
	"fmt"
	"strings"
	"sync"

	"github.com/hashicorp/raft"

	"github.com/edgefleet/edgefleet/controlplane/command"
	"github.com/edgefleet/edgefleet/controlplane/consensus"
	"github.com/edgefleet/edgefleet/controlplane/fsm"
	"github.com/edgefleet/edgefleet/controlplane/state"
	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/observability"
	"github.com/edgefleet/edgefleet/tls/mtls"
)

func (c Config) openConsensus(t trust, allow mtls.Allow, machine raft.FSM, tel *observability.Telemetry) (*consensus.Node, error) {
	return consensus.Open(consensus.Options{
		Dir: c.path("raft"), Member: c.Member, Bind: c.RaftListen, Advertise: c.advertised("").Raft,
		ServerTLS: mtls.ServerTLS(t.source, t.memberCA, allow),
		ClientTLS: t.raftTLS(allow),
		FSM:       machine, Telemetry: tel, ElectionTimeout: c.RaftTimeout, HeartbeatTimeout: c.RaftTimeout, SnapshotBytes: int64(c.SnapshotBytes),
	})
}

// raftTLS is how this member connects to the Raft ports of others.
func (t trust) raftTLS(allow mtls.Allow) *tls.Config {
	return mtls.ClientTLS(t.source, t.memberCA, mtls.MemberServerName(t.Cluster), allow)
}

// proposer is Raft as the API and the leader's loops see it.
type proposer struct {
	node   *consensus.Node
	member fleet.MemberID
	// state knows the members; nil before there is one.
	state *state.Store
	// raftTLS proves to another member's Raft port who this one is.
	raftTLS *tls.Config
	// membership is held while a member is admitted or removed: an announcement that is under way must not bring back who is
	// removed meanwhile.
	membership *sync.Mutex
}

// Propose commits a command and returns what the state machine answered.
func (p proposer) Propose(ctx context.Context, h command.Header, b command.Body) (any, error) {
	h, err := command.Hold(h, b, p.members)
	if err != nil {
		return nil, err
	}
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

// members are those that must understand what is proposed.
func (p proposer) members() []fleet.Member {
	if p.state == nil {
		return nil // there is nobody else yet
	}
	return p.state.Read().Members()
}

// ReadIndex waits until the local state includes everything committed before the call.
func (p proposer) ReadIndex(ctx context.Context) (uint64, error) { return p.node.ReadIndex(ctx) }

// Settled waits until the local state, of the leader, includes everything committed before it led.
func (p proposer) Settled(ctx context.Context) error { return p.node.Settled(ctx) }

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

// Admit adds a member to the Raft configuration without a vote, or changes the address of one that is there, if this
// member can reach it and known does not object: a member that cannot be reached would never vote, and nobody would know
// why. Its vote comes from autopilot.
func (p proposer) Admit(ctx context.Context, id fleet.MemberID, addr string, known func() error) error {
	p.membership.Lock()
	defer p.membership.Unlock()
	if err := known(); err != nil {
		return err
	}
	servers, err := p.node.Servers()
	if err != nil {
		return err
	}
	for _, s := range servers {
		if s.ID == id && s.Address == addr {
			return p.node.AddNonvoter(ctx, id, addr) // which makes sure of it
		}
	}
	if err := p.reach(ctx, addr); err != nil {
		return fleet.NewError(fleet.ErrConflict, "raft", "the Raft port of member %s, %s, cannot be reached from member %s, which leads: open it between all members (%v)", id, addr, p.member, err)
	}
	return p.node.AddNonvoter(ctx, id, addr)
}

// TransferLeadership hands leadership to a voter, or to any with an empty id.
func (p proposer) TransferLeadership(ctx context.Context, to fleet.MemberID) error {
	return p.node.TransferLeadership(ctx, to)
}

// reach connects to another member's Raft port as Raft would.
func (p proposer) reach(ctx context.Context, addr string) error {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	conn, err := (&tls.Dialer{Config: p.raftTLS}).DialContext(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	return conn.Close()
}

// Remove takes a member out of the cluster, if a majority of the voters that remain can be reached: else nothing could be
// committed after it, nor could it be taken back. retire, if set, removes it from the state, which comes first: from then
// on nobody lets it in again, and whoever leads next finishes the rest.
func (p proposer) Remove(ctx context.Context, id fleet.MemberID, retire func() error) error {
	p.membership.Lock()
	defer p.membership.Unlock()
	servers, err := p.node.Servers()
	if err != nil {
		return err
	}
	there, remain, away := false, 0, []string{}
	for _, s := range servers {
		there = there || s.ID == id
	}
	for _, s := range servers {
		if !there || s.ID == id || s.Suffrage != consensus.Voter {
			continue
		}
		remain++
		if s.ID != p.member && p.reach(ctx, s.Address) != nil {
			away = append(away, string(s.ID))
		}
	}
	if len(away) > 0 && 2*len(away) >= remain {
		return fleet.NewError(fleet.ErrConflict, "member", "without member %s, %d members would remain and %s cannot be reached: start or remove those first, or the cluster loses its quorum", id, remain, strings.Join(away, ", "))
	}
	if there && remain == 0 {
		return fleet.NewError(fleet.ErrConflict, "member", "member %s is the last voter: add another before removing it", id)
	}
	if retire != nil {
		if err := retire(); err != nil {
			return err
		}
	}
	return p.node.Remove(ctx, id)
}
