package api

import (
	"context"
	"net/http"
	"time"

	"github.com/edgefleet/edgefleet/controlplane/client"
	"github.com/edgefleet/edgefleet/controlplane/events"
	"github.com/edgefleet/edgefleet/fleet"
)

func (a *API) registerAttacks() {
	handle(a, op("attack-list", http.MethodGet, "/v1/tenants/{tenant}/attacks", "A tenant's attacks (hits by type, parameter and host, none more than an hour after the one before), the latest hit first, from this member's store", tenantOwn, fleet.PermEventsRead, fleet.DutyConsole).locally(), a.attackList)
	handle(a, op("attack-show", http.MethodGet, "/v1/tenants/{tenant}/attacks/{attack}", "One attack; event-list with it as filter has its hits", tenantOwn, fleet.PermEventsRead, fleet.DutyConsole).locally(), a.attackShow)
}

// AttackQuery selects attacks.
type AttackQuery struct {
	TenantPath
	Host   string    `query:"host" maxLength:"253" doc:"only this host"`
	Type   string    `query:"type" maxLength:"32" doc:"only this attack type"`
	Since  time.Time `query:"since" doc:"the last hit not before"`
	Until  time.Time `query:"until" doc:"the last hit before"`
	Cursor string    `query:"cursor" maxLength:"512" doc:"next of the page before"`
	Limit  int       `query:"limit" minimum:"1" maximum:"100" default:"50" doc:"attacks a page"`
}

func (a *API) attackList(ctx context.Context, in *AttackQuery) (*Body[client.Page[fleet.Attack]], error) {
	p, err := a.o.Events.Attacks(ctx, events.AttackQuery{
		Tenant: in.tenant(), Host: fleet.HostName(in.Host), Type: fleet.AttackType(in.Type), Since: in.Since, Until: in.Until, Cursor: in.Cursor, Limit: in.Limit,
	})
	return &Body[client.Page[fleet.Attack]]{Body: client.Page[fleet.Attack]{Items: p.Attacks, Next: p.Next}}, err
}

// AttackPath names an attack.
type AttackPath struct {
	TenantPath
	Attack string `path:"attack" maxLength:"64" doc:"attack id"`
}

func (a *API) attackShow(ctx context.Context, in *AttackPath) (*Body[fleet.Attack], error) {
	found, err := a.o.Events.Attack(ctx, in.tenant(), fleet.AttackID(in.Attack))
	return &Body[fleet.Attack]{Body: found}, err
}
