package api

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/edgefleet/edgefleet/controlplane/client"
	"github.com/edgefleet/edgefleet/controlplane/command"
	"github.com/edgefleet/edgefleet/fleet"
)

// Healthy says when a member is well: it heard from the leader within LastContact and is at most MaxTrailing entries
// behind.
type Healthy struct {
	LastContact time.Duration
	MaxTrailing uint64
}

// statsTimeout bounds the answer of one member about itself.
const statsTimeout = time.Second

func (a *API) registerMembers() {
	handle(a, op("cluster-members", http.MethodGet, "/v1/cluster/members", "The members, as the answering one sees them, and how each stands", operators, fleet.PermClusterRead, fleet.DutyOperating).locally(), a.memberList)
	handle(a, op("cluster-member-stats", http.MethodGet, "/v1/cluster/stats", "How the answering member stands in Raft", membersOnly, fleet.PermMember, fleet.DutyOperating).locally(), a.memberStats)
	handle(a, op("cluster-transfer-leader", http.MethodPost, "/v1/cluster/transfer-leader", "Hand leadership to another voter; no request fails because of it", operators, fleet.PermClusterOperate, fleet.DutyOperating).changes(command.TypeLeaderTransfer).withoutKey().answering(http.StatusOK), a.leaderTransfer)
}

// leaderTransfer is answered by the leader, which hands over when the audit log has it.
func (a *API) leaderTransfer(ctx context.Context, in *Input[client.LeaderTransfer]) (*Body[client.LeaderTransferred], error) {
	from, to := a.o.Member, in.Body.To
	if to != "" {
		if err := a.checkSuccessor(to); err != nil {
			return nil, err
		}
	}
	h := a.header(ctx)
	h.Reason = cmp.Or(in.Body.Reason, h.Reason)
	if to != from {
		if _, err := a.o.Consensus.Propose(ctx, h, command.LeaderTransfer{From: from, To: to}); err != nil {
			return nil, err
		}
		if err := a.o.Consensus.TransferLeadership(ctx, to); err != nil {
			return nil, err
		}
	}
	leader, _ := a.leader(ctx, true)
	if leader == "" {
		return nil, fleet.NewError(fleet.ErrUnavailable, "", "member %s handed over, and who leads now is not known yet: see 'fleetctl cluster status'", from)
	}
	return &Body[client.LeaderTransferred]{Body: client.LeaderTransferred{From: from, Leader: leader}}, nil
}

// checkSuccessor refuses what cannot lead before anything is written down.
func (a *API) checkSuccessor(to fleet.MemberID) error {
	suffrage, err := a.o.Consensus.Suffrage()
	switch {
	case err != nil:
		return err
	case suffrage[to] == "":
		return fleet.NewError(fleet.ErrNotFound, "to", "member %s does not exist: 'fleetctl cluster members' lists them", to)
	case suffrage[to] != "voter":
		return fleet.NewError(fleet.ErrConflict, "to", "member %s has no vote, so it cannot lead: choose a voter", to)
	}
	return nil
}

func (a *API) memberStats(context.Context, *struct{}) (*Body[client.RaftStats], error) {
	return &Body[client.RaftStats]{Body: a.o.OwnStats()}, nil
}

func (a *API) memberList(ctx context.Context, _ *ReadQuery) (*Body[client.Page[client.MemberStatus]], error) {
	leader, _ := a.o.Consensus.Leader()
	members, err := a.memberStatus(a.view().Members(), leader)
	if err != nil {
		return nil, err
	}
	a.examine(ctx, members)
	return &Body[client.Page[client.MemberStatus]]{Body: client.Page[client.MemberStatus]{Items: members}}, nil
}

// memberStatus is each member's part in Raft.
func (a *API) memberStatus(members []fleet.Member, leader fleet.MemberID) ([]client.MemberStatus, error) {
	suffrage, err := a.o.Consensus.Suffrage()
	if err != nil {
		return nil, err
	}
	out := make([]client.MemberStatus, 0, len(members))
	for _, m := range members {
		st := client.MemberStatus{Member: m, Suffrage: suffrage[m.ID], Leader: m.ID == leader}
		if st.Suffrage == "" {
			st.Suffrage = "joining"
		}
		out = append(out, st)
	}
	return out, nil
}

// examine asks every member how it stands and judges it.
func (a *API) examine(ctx context.Context, members []client.MemberStatus) {
	ctx, cancel := context.WithTimeout(ctx, statsTimeout)
	defer cancel()
	stats, errs := make([]client.RaftStats, len(members)), make([]error, len(members))
	var asked sync.WaitGroup
	for i, m := range members {
		asked.Go(func() { stats[i], errs[i] = a.o.Stats(ctx, m.Member) })
	}
	asked.Wait()
	var last client.RaftStats
	for _, s := range stats {
		if s.State == "leader" && s.Term >= last.Term {
			last = s
		}
	}
	for i := range members {
		h := &client.MemberHealth{Detail: a.o.Healthy.ill(stats[i], last, errs[i])}
		h.Healthy = h.Detail == ""
		if errs[i] == nil {
			h.Stats = &stats[i]
			h.Behind = max(last.LastIndex, stats[i].LastIndex) - stats[i].LastIndex
		}
		members[i].Health = h
	}
}

// ill says what is wrong with a member, empty if nothing is.
func (h Healthy) ill(s, leader client.RaftStats, err error) string {
	switch {
	case err != nil:
		return err.Error()
	case s.State == "leader":
		return ""
	case s.LastContactMS == nil:
		return "has not heard from a leader since it started"
	case time.Duration(*s.LastContactMS)*time.Millisecond > h.LastContact:
		return fmt.Sprintf("heard from the leader %s ago", time.Duration(*s.LastContactMS)*time.Millisecond)
	case leader.LastIndex > s.LastIndex+h.MaxTrailing:
		return fmt.Sprintf("is %d entries behind the leader", leader.LastIndex-s.LastIndex)
	}
	return ""
}

// memberRemove takes a member out of the state first and of Raft then. A leader that is to go hands over, and the next
// one removes it.
func (a *API) memberRemove(ctx context.Context, in *IDPath) (*Body[Empty], error) {
	id := fleet.MemberID(in.ID)
	if _, ok := a.view().Member(id); !ok {
		return nil, fleet.NewError(fleet.ErrNotFound, "member", "member %s does not exist", id)
	}
	if id == a.o.Member {
		if err := a.o.Consensus.TransferLeadership(ctx, ""); err != nil {
			return nil, err
		}
		return nil, notLeader("member %s handed over, so that it can be removed: try again", id)
	}
	retired := false
	err := a.o.Consensus.Remove(ctx, id, func() error {
		_, err := propose[fleet.Member](ctx, a, command.MemberRetire{ID: id})
		retired = err == nil
		return err
	})
	if retired && errors.Is(err, fleet.ErrUnavailable) {
		err = nil // the next leader takes it out of Raft
	}
	return &Body[Empty]{}, err
}
