package api

import (
	"cmp"
	"context"
	"net/http"

	"github.com/edgefleet/edgefleet/controlplane/client"
	"github.com/edgefleet/edgefleet/controlplane/command"
	"github.com/edgefleet/edgefleet/fleet"
)

func (a *API) registerMembers() {
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
