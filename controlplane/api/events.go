package api

import (
	"context"
	"net/http"
	"time"

	"github.com/edgefleet/edgefleet/controlplane/client"
	"github.com/edgefleet/edgefleet/controlplane/events"
	"github.com/edgefleet/edgefleet/fleet"
)

func (a *API) registerEvents() {
	handle(a, op("event-list", http.MethodGet, "/v1/tenants/{tenant}/events", "A tenant's attack events, newest first, from this member's store", tenantOwn, fleet.PermEventsRead, fleet.DutyConsole).locally(), a.eventList)
	handle(a, op("event-show", http.MethodGet, "/v1/tenants/{tenant}/events/{event}", "One attack event", tenantOwn, fleet.PermEventsRead, fleet.DutyConsole).locally(), a.eventShow)
	a.registerTail()
	a.registerAttacks()
	a.registerEventPeers()
	a.registerEventQueries()
}

// EventQuery selects events.
type EventQuery struct {
	TenantPath
	Host   string    `query:"host" maxLength:"253" doc:"only this host"`
	Type   string    `query:"type" maxLength:"32" doc:"only this attack type"`
	Status string    `query:"status" enum:"blocked,monitored" doc:"only these"`
	Since  time.Time `query:"since" doc:"not before"`
	Until  time.Time `query:"until" doc:"before"`
	Attack string    `query:"attack" maxLength:"64" doc:"only hits of this attack"`
	Cursor string    `query:"cursor" maxLength:"512" doc:"next of the page before"`
	Limit  int       `query:"limit" minimum:"1" maximum:"100" default:"50" doc:"events a page"`
}

func (a *API) eventList(ctx context.Context, in *EventQuery) (*Body[client.Page[fleet.Event]], error) {
	p, err := a.o.Events.Query(ctx, events.Query{
		Tenant: in.tenant(), Host: fleet.HostName(in.Host), Type: fleet.AttackType(in.Type), Status: fleet.BlockStatus(in.Status),
		Since: in.Since, Until: in.Until, Attack: fleet.AttackID(in.Attack), Cursor: in.Cursor, Limit: in.Limit,
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
