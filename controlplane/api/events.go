package api

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/sse"

	"github.com/edgefleet/edgefleet/controlplane/client"
	"github.com/edgefleet/edgefleet/controlplane/events"
	"github.com/edgefleet/edgefleet/fleet"
)

func (a *API) registerEvents() {
	handle(a, operation{"event-list", http.MethodGet, "/v1/tenants/{tenant}/events", "A tenant's attack events, newest first, from this member's store", tenantOwn, fleet.DutyConsole}, a.eventList)
	handle(a, operation{"event-show", http.MethodGet, "/v1/tenants/{tenant}/events/{event}", "One attack event", tenantOwn, fleet.DutyConsole}, a.eventShow)
	op := operation{"event-tail", http.MethodGet, "/v1/tenants/{tenant}/events:tail", "A tenant's attack events as they arrive (server-sent events)", tenantOwn, fleet.DutyConsole}
	sse.Register(a.huma, huma.Operation{
		OperationID: op.id, Method: op.method, Path: op.path, Summary: op.summary, Tags: []string{"v1"},
		Security: []map[string][]string{{"token": {}}}, Extensions: map[string]any{"x-duty": string(op.duty)},
		Middlewares: huma.Middlewares{func(ctx huma.Context, next func(huma.Context)) {
			c := callerOf(ctx.Context())
			if err := a.authorize(op, c, fleet.TenantID(ctx.Param("tenant"))); err != nil {
				p := problem(err, c.requestID)
				_ = huma.WriteErr(a.huma, ctx, p.Status, p.Detail)
				return
			}
			next(ctx)
		}},
	}, map[string]any{"event": fleet.Event{}}, a.eventTail)
}

// EventQuery selects events.
type EventQuery struct {
	TenantPath
	Host   string    `query:"host" maxLength:"253" doc:"only this host"`
	Type   string    `query:"type" maxLength:"32" doc:"only this attack type"`
	Status string    `query:"status" enum:"blocked,monitored" doc:"only these"`
	Since  time.Time `query:"since" doc:"not before"`
	Until  time.Time `query:"until" doc:"before"`
	Cursor string    `query:"cursor" maxLength:"512" doc:"next of the page before"`
	Limit  int       `query:"limit" minimum:"1" maximum:"100" default:"50" doc:"events a page"`
}

func (a *API) eventList(ctx context.Context, in *EventQuery) (*Body[client.Page[fleet.Event]], error) {
	p, err := a.o.Events.Query(ctx, events.Query{
		Tenant: in.tenant(), Host: fleet.HostName(in.Host), Type: fleet.AttackType(in.Type), Status: fleet.BlockStatus(in.Status),
		Since: in.Since, Until: in.Until, Cursor: in.Cursor, Limit: in.Limit,
	})
	if err != nil {
		return nil, err
	}
	out := client.Page[fleet.Event]{Items: p.Events, Next: p.Next}
	if out.Items == nil {
		out.Items = []fleet.Event{}
	}
	return &Body[client.Page[fleet.Event]]{Body: out}, nil
}

// EventPath names an event.
type EventPath struct {
	TenantPath
	Event string `path:"event" maxLength:"160" doc:"event id"`
}

func (a *API) eventShow(ctx context.Context, in *EventPath) (*Body[fleet.Event], error) {
	e, err := a.o.Events.Get(ctx, in.tenant(), fleet.EventID(in.Event))
	return &Body[fleet.Event]{Body: e}, err
}

func (a *API) eventTail(ctx context.Context, in *TenantPath, send sse.Sender) {
	ch, cancel := a.o.Events.Subscribe()
	defer cancel()
	for {
		select {
		case <-ctx.Done():
			return
		case e, ok := <-ch:
			if !ok {
				return
			}
			if e.Tenant == in.tenant() && send.Data(e) != nil {
				return
			}
		}
	}
}

// parseRange reads "bytes=N-".
func parseRange(h string, size int) (int, error) {
	s, ok := strings.CutPrefix(h, "bytes=")
	s, open := strings.CutSuffix(s, "-")
	n, err := strconv.Atoi(s)
	if !ok || !open || err != nil || n < 0 || n > size {
		return 0, fleet.Invalid("range", "range %q is not bytes=N- within %d bytes", h, size)
	}
	return n, nil
}

func contentRange(offset, size int) string {
	return fmt.Sprintf("bytes %d-%d/%d", offset, size-1, size)
}
