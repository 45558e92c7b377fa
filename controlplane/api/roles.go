package api

import (
	"context"
	"net/http"
	"slices"

	"github.com/edgefleet/edgefleet/controlplane/client"
	"github.com/edgefleet/edgefleet/controlplane/command"
	"github.com/edgefleet/edgefleet/fleet"
)

func (a *API) registerRoles() {
	read, write := fleet.PermUsersRead, fleet.PermUsersWrite
	handle(a, op("operator-role-list", http.MethodGet, "/v1/roles", "Built-in roles and the vendor's own", operators, read, fleet.DutyAccess), a.operatorRoleList)
	handle(a, op("operator-role-create", http.MethodPost, "/v1/roles", "Make a role of the vendor: a named set of permissions", operators, write, fleet.DutyAccess).changes(command.TypeRolePut), a.operatorRoleCreate)
	handle(a, op("operator-role-delete", http.MethodDelete, "/v1/roles/{id}", "Delete a role of the vendor that nobody has", operators, write, fleet.DutyAccess).changes(command.TypeRoleDelete), a.operatorRoleDelete)
	handle(a, op("role-list", http.MethodGet, "/v1/tenants/{tenant}/roles", "Built-in roles and a tenant's own", tenantOwn, read, fleet.DutyConsole), a.roleList)
	handle(a, op("role-create", http.MethodPost, "/v1/tenants/{tenant}/roles", "Make a role of a tenant: a named set of permissions", tenantOwn, write, fleet.DutyConsole).changes(command.TypeRolePut), a.roleCreate)
	handle(a, op("role-delete", http.MethodDelete, "/v1/tenants/{tenant}/roles/{id}", "Delete a role of a tenant that nobody has", tenantOwn, write, fleet.DutyConsole).changes(command.TypeRoleDelete), a.roleDelete)

	handle(a, op("access-show", http.MethodGet, "/v1/access", "What holds for everybody's access", operators, read, fleet.DutyAccess), a.accessShow)
	handle(a, op("access-update", http.MethodPatch, "/v1/access", "Change what holds for everybody's access", operators, write, fleet.DutyAccess).changes(command.TypeAccessPut).withRevision(), a.accessUpdate)
	handle(a, op("token-rotate", http.MethodPost, "/v1/whoami/rotate", "Replace the token that is used by a new one", anyToken, fleet.PermSelf, fleet.DutyConsole).changes(command.TypeTokenIssue).withoutKey(), a.tokenRotate)
}

// RoleCreateInput makes a tenant's role.
type RoleCreateInput struct {
	TenantPath
	Body client.RoleCreate
}

type (
	rolePage = Body[client.Page[client.Role]]
	roleBody = Body[client.Role]
)

func (a *API) operatorRoleList(_ context.Context, _ *ReadQuery) (*rolePage, error) {
	return a.roles(""), nil
}

func (a *API) roleList(_ context.Context, in *TenantRead) (*rolePage, error) {
	return a.roles(in.tenant()), nil
}

func (a *API) operatorRoleCreate(ctx context.Context, in *Input[client.RoleCreate]) (*roleBody, error) {
	return a.createRole(ctx, "", in.Body)
}

func (a *API) roleCreate(ctx context.Context, in *RoleCreateInput) (*roleBody, error) {
	return a.createRole(ctx, in.tenant(), in.Body)
}

func (a *API) operatorRoleDelete(ctx context.Context, in *IDPath) (*Body[Empty], error) {
	return a.deleteRole(ctx, in.ID, "")
}

func (a *API) roleDelete(ctx context.Context, in *TenantObject) (*Body[Empty], error) {
	return a.deleteRole(ctx, in.ID, in.tenant())
}

// roles lists all roles of a scope; there are few.
func (a *API) roles(tenant fleet.TenantID) *rolePage {
	out := client.Page[client.Role]{}
	for _, name := range fleet.BuiltinRoles() {
		p, _ := fleet.BuiltinPermissions(name)
		out.Items = append(out.Items, client.Role{Name: name, Builtin: true, Tenant: tenant, Permissions: p.InScope(tenant).List()})
	}
	for _, r := range a.view().RolesOf(tenant) {
		out.Items = append(out.Items, roleView(r))
	}
	return &rolePage{Body: out}
}

func roleView(r fleet.CustomRole) client.Role {
	return client.Role{Name: r.Name, Tenant: r.Tenant, Comment: r.Comment, Permissions: r.Permissions}
}

func (a *API) createRole(ctx context.Context, tenant fleet.TenantID, in client.RoleCreate) (*roleBody, error) {
	if err := a.requireAll(ctx, "a role with these permissions", fleet.NewPermissionSet(in.Permissions...)); err != nil {
		return nil, err
	}
	r, err := propose[fleet.CustomRole](ctx, a, command.RolePut{Role: fleet.CustomRole{
		Key: fleet.RoleKey(in.Name, tenant), Name: in.Name, Tenant: tenant, Comment: in.Comment, Permissions: sorted(in.Permissions),
	}})
	return &roleBody{Body: roleView(r)}, err
}

// sorted is ps in order, each once.
func sorted(ps []fleet.Permission) []fleet.Permission {
	if len(ps) == 0 {
		return nil
	}
	return slices.Compact(slices.Sorted(slices.Values(ps)))
}

func (a *API) deleteRole(ctx context.Context, name string, tenant fleet.TenantID) (*Body[Empty], error) {
	_, err := propose[any](ctx, a, command.RoleDelete{Key: fleet.RoleKey(fleet.RoleName(name), tenant)})
	return &Body[Empty]{}, err
}

func (a *API) accessShow(_ context.Context, _ *ReadQuery) (*Body[fleet.AccessPolicy], error) {
	return &Body[fleet.AccessPolicy]{Body: a.view().Access()}, nil
}

func (a *API) accessUpdate(ctx context.Context, in *Input[client.AccessUpdate]) (*Body[fleet.AccessPolicy], error) {
	p, err := amend(ctx, func() (fleet.AccessPolicy, error) {
		p := a.view().Access()
		set(&p.FourEyes, in.Body.FourEyes)
		set(&p.MaxTokenDays, in.Body.MaxTokenDays)
		return propose[fleet.AccessPolicy](ctx, a, command.AccessPut{IfRevision: conditionOn(ctx, p.Meta).IfRevision, Policy: p})
	})
	return &Body[fleet.AccessPolicy]{Body: p}, err
}
