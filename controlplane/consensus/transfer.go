package consensus

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/edgefleet/edgefleet/fleet"
)

// settleTimeout bounds how long a hand-over waits for what was proposed before it.
const settleTimeout = time.Second

// reachTimeout bounds how long a hand-over waits for the Raft port of a successor.
const reachTimeout = 500 * time.Millisecond

// TransferLeadership hands leadership to the given voter, or with an empty id to the one that is furthest, else to any
// other, and returns when this member no longer leads.
//
// What was proposed before is committed first, and what is proposed meanwhile waits: no caller of Apply sees an unknown
// outcome because of it. When it is over, those that waited are told that this member does not lead (fleet.ErrNotLeader),
// or go on if the hand-over failed.
//
// Errors: fleet.ErrUnavailable when this member does not lead, or nobody took over; fleet.ErrNotFound and
// fleet.ErrConflict when the member does not exist, or may not lead.
func (n *Node) TransferLeadership(ctx context.Context, to fleet.MemberID) error {
	if !n.IsLeader() {
		return n.explain("transfer leadership", raft.ErrNotLeader)
	}
	if to == n.member {
		return nil
	}
	successors, all, err := n.successors(to)
	if err != nil {
		return err
	}
	if err := n.gate.shut(ctx, n.closing); err != nil {
		return err
	}
	defer n.gate.open()
	var starts []func() raft.Future
	if to == "" && all {
		starts = append(starts, func() raft.Future { return n.raft.LeadershipTransfer() })
	}
	for _, s := range successors {
		starts = append(starts, func() raft.Future { return n.raft.LeadershipTransferToServer(s.ID, s.Address) })
	}
	for _, start := range starts {
		if err = n.await(ctx, start, nil); err == nil || !n.IsLeader() || ctx.Err() != nil {
			break
		}
	}
	if err != nil && n.IsLeader() {
		return n.explain("transfer leadership", err)
	}
	return nil
}

// successors are the voters that may take over and can be reached: Raft takes nothing else until a member that is away
// has had seconds to answer. all says that every other voter can.
func (n *Node) successors(to fleet.MemberID) (reached []raft.Server, all bool, err error) {
	var others []raft.Server
	for _, s := range n.configuration().Servers {
		switch {
		case s.ID == raft.ServerID(n.member), to != "" && s.ID != raft.ServerID(to):
		case s.Suffrage == raft.Voter:
			others = append(others, s)
		case to != "":
			return nil, false, fleet.NewError(fleet.ErrConflict, "member", "member %s has no vote, so it cannot lead: choose a voter", to)
		}
	}
	switch {
	case len(others) > 0:
	case to != "":
		return nil, false, fleet.NewError(fleet.ErrNotFound, "member", "member %s does not exist: 'fleetctl cluster members' lists them", to)
	default:
		return nil, false, fleet.NewError(fleet.ErrConflict, "member", "member %s is the only voter: there is nobody to hand over to", n.member)
	}
	if reached = n.reachable(others); len(reached) == 0 {
		return nil, false, fleet.NewError(fleet.ErrUnavailable, "member", "no member that could take over can be reached on its Raft port: is it running, and does a firewall allow it?")
	}
	return reached, len(reached) == len(others), nil
}

// reachable are those of the servers whose Raft port answers.
func (n *Node) reachable(servers []raft.Server) []raft.Server {
	if n.parts.dial == nil {
		return servers
	}
	answered := make([]bool, len(servers))
	var probes sync.WaitGroup
	for i, s := range servers {
		probes.Go(func() {
			conn, err := n.parts.dial(s.Address, reachTimeout)
			if answered[i] = err == nil; answered[i] {
				_ = conn.Close() // it was only to be made
			}
		})
	}
	probes.Wait()
	var out []raft.Server
	for i, s := range servers {
		if answered[i] {
			out = append(out, s)
		}
	}
	return out
}

// gate is what proposals pass through; it is shut while leadership is handed over.
type gate struct {
	mu     sync.Mutex
	inside int
	// reopens is closed when the gate opens again; nil while it is open.
	reopens chan struct{}
	// empty is closed when nobody is inside any more; nil while nobody waits for that.
	empty chan struct{}
}

// enter waits until the gate is open; who entered calls leave.
func (g *gate) enter(ctx context.Context, closing <-chan struct{}) error {
	for {
		g.mu.Lock()
		reopens := g.reopens
		if reopens == nil {
			g.inside++
		}
		g.mu.Unlock()
		if reopens == nil {
			return nil
		}
		select {
		case <-reopens:
		case <-ctx.Done():
			return ctx.Err()
		case <-closing:
			return raft.ErrRaftShutdown
		}
	}
}

func (g *gate) leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.inside--
	if g.inside == 0 && g.empty != nil {
		close(g.empty)
		g.empty = nil
	}
}

// shut closes the gate and waits until nobody is inside.
func (g *gate) shut(ctx context.Context, closing <-chan struct{}) error {
	g.mu.Lock()
	if g.reopens != nil {
		g.mu.Unlock()
		return fleet.NewError(fleet.ErrConflict, "member", "leadership is being handed over already: see 'fleetctl cluster status'")
	}
	g.reopens = make(chan struct{})
	if g.inside == 0 {
		g.mu.Unlock()
		return nil
	}
	empty := make(chan struct{})
	g.empty = empty
	g.mu.Unlock()
	timeout := time.NewTimer(settleTimeout)
	defer timeout.Stop()
	var err error
	select {
	case <-empty:
		return nil
	case <-timeout.C:
		err = errors.New("changes that were proposed are not committed")
	case <-ctx.Done():
		err = ctx.Err()
	case <-closing:
		err = errClosed
	}
	g.open()
	return fmt.Errorf("transfer leadership: %w: %w", fleet.ErrUnavailable, err)
}

func (g *gate) open() {
	g.mu.Lock()
	defer g.mu.Unlock()
	close(g.reopens)
	g.reopens, g.empty = nil, nil
}
