package consensus

import (
	"context"
	"fmt"
	"strings"

	"github.com/hashicorp/raft"

	"github.com/edgefleet/edgefleet/fleet"
)

// Suffrage is whether a server's vote counts.
type Suffrage string

// The kinds of suffrage.
const (
	Voter    Suffrage = "voter"
	Nonvoter Suffrage = "nonvoter"
)

// Server is one member as the configuration of the cluster has it.
type Server struct {
	ID       fleet.MemberID
	Address  string
	Suffrage Suffrage
}

// Servers lists the members that this member knows of, in the order of the configuration; the latest change may not
// be committed yet.
func (n *Node) Servers() ([]Server, error) {
	var out []Server
	for _, s := range n.configuration().Servers {
		suffrage := Nonvoter
		if s.Suffrage == raft.Voter {
			suffrage = Voter
		}
		out = append(out, Server{ID: fleet.MemberID(s.ID), Address: string(s.Address), Suffrage: suffrage})
	}
	return out, nil
}

func (n *Node) configuration() raft.Configuration {
	// It is answered from memory and cannot fail.
	return n.raft.GetConfiguration().Configuration()
}

// AddVoter adds a member with a vote, gives a non-voter its vote, or changes a member's address; what is so already is
// left alone. It returns when that is committed, which is before a new member has caught up. It must be called on the
// leader; errors are as for Apply, and fleet.ErrConflict for an address that belongs to another member.
func (n *Node) AddVoter(ctx context.Context, id fleet.MemberID, addr string) error {
	return n.add(ctx, id, addr, Voter)
}

// AddNonvoter adds a member that receives the log and has no vote, or changes the address of a member; it takes nobody's
// vote away. Otherwise it is as AddVoter.
func (n *Node) AddNonvoter(ctx context.Context, id fleet.MemberID, addr string) error {
	return n.add(ctx, id, addr, Nonvoter)
}

func (n *Node) add(ctx context.Context, id fleet.MemberID, addr string, suffrage Suffrage) error {
	if err := fleet.ValidateID("member", id); err != nil {
		return err
	}
	servers, err := n.Servers()
	if err != nil {
		return err
	}
	for _, s := range servers {
		switch {
		case s.ID == id && s.Address == addr && (s.Suffrage == suffrage || suffrage == Nonvoter):
			return n.confirm(ctx, "add member")
		case s.ID != id && s.Address == addr:
			return fleet.NewError(fleet.ErrConflict, "address", "address %s belongs to member %s: remove that member first, or use another address", addr, s.ID)
		}
	}
	return n.change(ctx, "add member", func() raft.Future {
		server, address := raft.ServerID(id), raft.ServerAddress(addr)
		if suffrage == Voter {
			return n.raft.AddVoter(server, address, 0, timeoutOf(ctx))
		}
		return n.raft.AddNonvoter(server, address, 0, timeoutOf(ctx))
	})
}

// Remove takes a member out of the configuration; one that is not in it is left alone. The last voter cannot be removed
// (fleet.ErrConflict). A leader does not remove itself: it hands leadership over, and fleet.ErrNotLeader is returned, so that
// the next leader is asked; with nobody to hand over to, that error is returned. Neither changed the configuration.
func (n *Node) Remove(ctx context.Context, id fleet.MemberID) error {
	servers, err := n.Servers()
	if err != nil {
		return err
	}
	known, voters := false, 0
	for _, s := range servers {
		known = known || s.ID == id
		if s.Suffrage == Voter && s.ID != id {
			voters++
		}
	}
	if !known {
		return n.confirm(ctx, "remove member")
	}
	if voters == 0 {
		return fleet.NewError(fleet.ErrConflict, "member", "member %s is the last voter: add another before removing it", id)
	}
	if id == n.member {
		return n.yield(ctx)
	}
	return n.change(ctx, "remove member", func() raft.Future {
		return n.raft.RemoveServer(raft.ServerID(id), 0, timeoutOf(ctx))
	})
}

// yield hands leadership over to whoever will remove this member. A leader that removed itself would have a configuration
// in its log that others may not have yet; if it stops then, of two voters neither can win an election again: the one has a
// vote and a log that is too short, the other has the log and no vote (Raft thesis, section 4.2.2).
func (n *Node) yield(ctx context.Context) error {
	if err := n.TransferLeadership(ctx, ""); err != nil {
		return fmt.Errorf("remove member %s, which leads: %w", n.member, err)
	}
	return n.explain("remove member", raft.ErrNotLeader)
}

// confirm makes sure, before "nothing to do" is the answer, that what this member knows is current and committed.
func (n *Node) confirm(ctx context.Context, op string) error {
	if err := n.Barrier(ctx); err != nil {
		return fmt.Errorf("%s: %w", op, err)
	}
	return nil
}

func (n *Node) change(ctx context.Context, op string, start func() raft.Future) error {
	err := n.propose(ctx, start)
	if err == nil {
		return nil
	}
	// Raft has no sentinel for a configuration that it refuses, say because another change came first.
	if text := err.Error(); strings.HasPrefix(text, "found duplicate") || strings.HasPrefix(text, "need at least one voter") {
		return fleet.NewError(fleet.ErrConflict, "member", "%s: %v", op, err)
	}
	return n.explainChange(op, err)
}
