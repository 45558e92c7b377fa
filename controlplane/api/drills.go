package api

import (
	"context"
	"net/http"
	"slices"
	"strings"

	"github.com/edgefleet/edgefleet/controlplane/client"
	"github.com/edgefleet/edgefleet/controlplane/command"
	"github.com/edgefleet/edgefleet/fleet"
)

func (a *API) registerDrills() {
	a.registerCrash()
	handle(a, op("drill-list", http.MethodGet, "/v1/drills", "Drills and what they measured, the oldest first", operators, fleet.PermClusterRead, fleet.DutyContinuity), a.drillList)
	handle(a, op("drill-begin", http.MethodPost, "/v1/drills", "Begin a drill: a restore is carried out by the leader, and recorded; others by who asks", operators, fleet.PermClusterOperate, fleet.DutyContinuity).changes(command.TypeDrillPut), a.drillBegin)
	handle(a, op("drill-show", http.MethodGet, "/v1/drills/{id}", "A drill", operators, fleet.PermClusterRead, fleet.DutyContinuity), a.drillShow)
	handle(a, op("drill-update", http.MethodPatch, "/v1/drills/{id}", "Write a drill's marker or its result", operators, fleet.PermClusterOperate, fleet.DutyContinuity).withRevision().changes(command.TypeDrillPut), a.drillUpdate)
}

func (a *API) drillList(_ context.Context, _ *ReadQuery) (*Body[client.Page[fleet.Drill]], error) {
	items := a.view().Drills()
	if items == nil {
		items = []fleet.Drill{}
	}
	return &Body[client.Page[fleet.Drill]]{Body: client.Page[fleet.Drill]{Items: items}}, nil
}

func (a *API) drillShow(_ context.Context, in *IDRead) (*Body[fleet.Drill], error) {
	d, ok := a.view().Drill(in.ID)
	if !ok {
		return nil, fleet.NewError(fleet.ErrNotFound, "drill", "drill %s does not exist", in.ID)
	}
	return &Body[fleet.Drill]{Body: d}, nil
}

func (a *API) drillBegin(ctx context.Context, in *Input[client.DrillCreate]) (*Body[fleet.Drill], error) {
	if err := a.checkLoss(in.Body); err != nil {
		return nil, err
	}
	d := fleet.Drill{ID: newID("drill"), Kind: in.Body.Kind, Target: in.Body.Target, State: fleet.DrillRunning}
	d, err := propose[fleet.Drill](ctx, a, command.DrillPut{Put: command.Put{Create: true}, Drill: d})
	return &Body[fleet.Drill]{Body: d}, err
}

// checkLoss refuses a drill that leaves no majority of the voters, unless that is what it is for.
func (a *API) checkLoss(in client.DrillCreate) error {
	if in.Kind == fleet.DrillRestore {
		if in.LoseMajority {
			return fleet.Invalid("lose_majority", "a restore loses no members: leave it out")
		}
		return nil
	}
	suffrage, err := a.o.Consensus.Suffrage()
	if err != nil {
		return err
	}
	voters, remain := 0, 0
	lost := strings.Split(in.Target, ",")
	for id, s := range suffrage {
		if s != "voter" {
			continue
		}
		voters++
		if !slices.Contains(lost, string(id)) {
			remain++
		}
	}
	if 2*remain <= voters && !in.LoseMajority {
		return fleet.NewError(fleet.ErrConflict, "target", "without %.200s, %d of %d voters would remain, which is no majority: the drill would be the disaster; lose_majority says that it is meant", in.Target, remain, voters)
	}
	return nil
}

// DrillUpdateInput changes a drill.
type DrillUpdateInput struct {
	IDPath
	Body client.DrillUpdate
}

func (a *API) drillUpdate(ctx context.Context, in *DrillUpdateInput) (*Body[fleet.Drill], error) {
	d := in.Body.Drill
	d.ID = in.ID
	if d.State != fleet.DrillRunning {
		d.EndedAt = a.o.Now().UTC()
	}
	d, err := propose[fleet.Drill](ctx, a, command.DrillPut{Put: condition(ctx), Drill: d})
	return &Body[fleet.Drill]{Body: d}, err
}
