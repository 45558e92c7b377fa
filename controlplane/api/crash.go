package api

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/edgefleet/edgefleet/controlplane/client"
	"github.com/edgefleet/edgefleet/controlplane/state"
	"github.com/edgefleet/edgefleet/fleet"
)

const (
	// drillLife is how long after its beginning a drill may kill: one that was broken off must not be a weapon.
	drillLife = 10 * time.Minute
	// drillPatience is how long a member that is behind waits to hear of a drill.
	drillPatience = 3 * time.Second
)

// registerCrash registers what a drill does to the member that it is sent to.
func (a *API) registerCrash() {
	op := op("member-crash", http.MethodPost, "/v1/cluster/members/{id}/crash", "Kill this member's process for a drill that names it; its service manager starts it again", operators, fleet.PermClusterOperate, fleet.DutyContinuity).locally().answering(http.StatusOK)
	handle(a, op, func(ctx context.Context, in *CrashInput) (*huma.StreamResponse, error) {
		if err := a.checkCrash(ctx, in); err != nil {
			return nil, err
		}
		if !in.Body.Check {
			a.o.Telemetry.Logger.WarnContext(ctx, "this member is killed for a drill", "member", a.o.Member, "drill", in.Body.Drill, "actor", callerOf(ctx).name())
		}
		return &huma.StreamResponse{Body: func(hc huma.Context) {
			_, w := humago.Unwrap(hc)
			w.Header().Set("Content-Type", "application/json")
			_, _ = w.Write([]byte("{}\n"))
			if !in.Body.Check {
				a.o.Crash() // the caller may see no answer: it looks at the outcome
			}
		}}, nil
	})
}

// CrashInput names the member, and the drill that it is for.
type CrashInput struct {
	IDPath
	Body client.MemberCrash
}

func (a *API) checkCrash(ctx context.Context, in *CrashInput) error {
	if fleet.MemberID(in.ID) != a.o.Member {
		return fleet.NewError(fleet.ErrConflict, "id", "this is member %s: ask %.80s itself", a.o.Member, in.ID)
	}
	if a.o.Crash == nil {
		return fleet.NewError(fleet.ErrDenied, "drills", "member %s takes no part in drills: set drills: true in its configuration, if its service manager starts it again after a crash", a.o.Member)
	}
	d, ok := a.awaitDrill(ctx, in.Body.Drill)
	switch {
	case !ok || d.State != fleet.DrillRunning || d.Kind == fleet.DrillRestore:
		return fleet.NewError(fleet.ErrConflict, "drill", "drill %.80q is none that runs and loses members: 'fleetctl drill run' begins one", in.Body.Drill)
	case !slices.Contains(strings.Split(d.Target, ","), in.ID):
		return fleet.NewError(fleet.ErrConflict, "drill", "drill %s loses %.200s, and not member %s", d.ID, d.Target, in.ID)
	case a.o.Now().Sub(d.CreatedAt).Abs() > drillLife:
		return fleet.NewError(fleet.ErrConflict, "drill", "drill %s began more than %s ago: begin another", d.ID, drillLife)
	}
	return nil
}

// awaitDrill reads a drill, which a member that is a little behind does not know yet.
func (a *API) awaitDrill(ctx context.Context, id string) (fleet.Drill, bool) {
	ctx, cancel := context.WithTimeout(ctx, drillPatience)
	defer cancel()
	for {
		ws := a.o.State.Watch(state.Drills)
		if d, ok := a.view().Drill(id); ok {
			return d, true
		}
		if ws.WatchCtx(ctx) != nil {
			return fleet.Drill{}, false
		}
	}
}
