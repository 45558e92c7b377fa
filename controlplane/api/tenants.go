package api

import (
	"context"
	"net/http"

	"github.com/edgefleet/edgefleet/controlplane/client"
	"github.com/edgefleet/edgefleet/controlplane/command"
	"github.com/edgefleet/edgefleet/fleet"
)

func (a *API) registerTenants() {
	handle(a, op("tenant-list", http.MethodGet, "/v1/tenants", "Tenants", operators, fleet.PermTenantsRead, fleet.DutyConsole), a.tenantList)
	handle(a, op("tenant-create", http.MethodPost, "/v1/tenants", "Make a tenant", operators, fleet.PermTenantsWrite, fleet.DutyConsole).changes(command.TypeTenantPut), a.tenantCreate)
	handle(a, op("tenant-show", http.MethodGet, "/v1/tenants/{tenant}", "A tenant", tenantOwn, fleet.PermTenantsRead, fleet.DutyConsole), a.tenantShow)
	handle(a, op("tenant-update", http.MethodPatch, "/v1/tenants/{tenant}", "Change a tenant", operators, fleet.PermTenantsWrite, fleet.DutyConsole).changes(command.TypeTenantPut).withRevision(), a.tenantUpdate)
	handle(a, op("tenant-delete", http.MethodDelete, "/v1/tenants/{tenant}", "Delete a tenant that has no hosts", operators, fleet.PermTenantsWrite, fleet.DutyConsole).changes(command.TypeTenantDelete).withRevision(), a.tenantDelete)
	a.registerTokens()
}

func (a *API) tenantList(_ context.Context, in *ListQuery) (*Body[client.Page[fleet.Tenant]], error) {
	return page(a.view().TenantsAfter(in.Cursor, in.Limit+1), in.Limit, func(t fleet.Tenant) string { return string(t.ID) }), nil
}

func (a *API) tenantCreate(ctx context.Context, in *Input[client.TenantCreate]) (*Body[fleet.Tenant], error) {
	b := in.Body
	t, err := propose[fleet.Tenant](ctx, a, command.TenantPut{Put: command.Put{Create: true}, ID: b.ID, Spec: fleet.TenantSpec{
		Name: b.Name, Form: orDefault(b.Form, fleet.SecurityEdge), Group: orDefault(b.Group, fleet.DefaultGroup), AllowedOrigins: b.AllowedOrigins,
	}})
	return &Body[fleet.Tenant]{Body: t}, err
}

// TenantRead names a tenant to read.
type TenantRead struct {
	TenantPath
	ReadQuery
}

func (a *API) tenantShow(_ context.Context, in *TenantRead) (*Body[fleet.Tenant], error) {
	t, err := a.tenant(in.tenant())
	return &Body[fleet.Tenant]{Body: t}, err
}

func (a *API) tenant(id fleet.TenantID) (fleet.Tenant, error) {
	t, ok := a.view().Tenant(id)
	if !ok {
		return t, fleet.NewError(fleet.ErrNotFound, "tenant", "tenant %s does not exist", id)
	}
	return t, nil
}

// TenantUpdateInput changes a tenant.
type TenantUpdateInput struct {
	TenantPath
	Body client.TenantUpdate
}

func (a *API) tenantUpdate(ctx context.Context, in *TenantUpdateInput) (*Body[fleet.Tenant], error) {
	t, err := amend(ctx, func() (fleet.Tenant, error) {
		t, err := a.tenant(in.tenant())
		if err != nil {
			return t, err
		}
		set(&t.Spec.Name, in.Body.Name)
		set(&t.Spec.AllowedOrigins, in.Body.AllowedOrigins)
		return propose[fleet.Tenant](ctx, a, command.TenantPut{Put: conditionOn(ctx, t.Meta), ID: t.ID, Spec: t.Spec})
	})
	return &Body[fleet.Tenant]{Body: t}, err
}

// set overwrites what the caller gave.
func set[T any](field, v *T) {
	if v != nil {
		*field = *v
	}
}

func (a *API) tenantDelete(ctx context.Context, in *TenantPath) (*Body[Empty], error) {
	_, err := propose[any](ctx, a, command.TenantDelete{ID: in.tenant(), IfRevision: condition(ctx).IfRevision})
	return &Body[Empty]{}, err
}

// TenantList lists a tenant's objects.
type TenantList struct {
	TenantPath
	ListQuery
}
