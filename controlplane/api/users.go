package api

import (
	"context"
	"net/http"
	"time"

	"github.com/edgefleet/edgefleet/controlplane/client"
	"github.com/edgefleet/edgefleet/controlplane/command"
	"github.com/edgefleet/edgefleet/fleet"
)

// registerUsers registers the users and roles of the vendor's scope, and of each tenant's. Which party removes whom is
// a duty: the client removes its own people.
func (a *API) registerUsers() {
	read, write := fleet.PermUsersRead, fleet.PermUsersWrite
	handle(a, op("operator-user-list", http.MethodGet, "/v1/users", "The vendor's users", operators, read, fleet.DutyAccess), a.operatorUserList)
	handle(a, op("operator-user-create", http.MethodPost, "/v1/users", "Make a user of the vendor", operators, write, fleet.DutyAccess).changes(command.TypeUserPut), a.operatorUserCreate)
	handle(a, op("operator-user-show", http.MethodGet, "/v1/users/{id}", "A user of the vendor", operators, read, fleet.DutyAccess), a.operatorUserShow)
	handle(a, op("operator-user-update", http.MethodPatch, "/v1/users/{id}", "Change a vendor's user's name or roles", operators, write, fleet.DutyAccess).changes(command.TypeUserPut).withRevision(), a.operatorUserUpdate)
	handle(a, op("operator-user-disable", http.MethodPost, "/v1/users/{id}/disable", "End a vendor's user's tokens on every member at once", operators, write, fleet.DutyAccess).changes(command.TypeUserPut).answering(http.StatusOK), a.operatorUserDisable)
	handle(a, op("operator-user-enable", http.MethodPost, "/v1/users/{id}/enable", "Let a disabled user of the vendor in again", operators, write, fleet.DutyAccess).changes(command.TypeUserPut).answering(http.StatusOK), a.operatorUserEnable)
	handle(a, op("operator-user-delete", http.MethodDelete, "/v1/users/{id}", "Delete a user of the vendor with all tokens", operators, write, fleet.DutyAccess).changes(command.TypeUserDelete), a.operatorUserDelete)

	handle(a, op("user-list", http.MethodGet, "/v1/tenants/{tenant}/users", "A tenant's users", tenantOwn, read, fleet.DutyConsole), a.userList)
	handle(a, op("user-create", http.MethodPost, "/v1/tenants/{tenant}/users", "Make a user of a tenant", tenantOwn, write, fleet.DutyConsole).changes(command.TypeUserPut), a.userCreate)
	handle(a, op("user-show", http.MethodGet, "/v1/tenants/{tenant}/users/{id}", "A tenant's user", tenantOwn, read, fleet.DutyConsole), a.userShow)
	handle(a, op("user-update", http.MethodPatch, "/v1/tenants/{tenant}/users/{id}", "Change a tenant's user's name or roles", tenantOwn, write, fleet.DutyConsole).changes(command.TypeUserPut).withRevision(), a.userUpdate)
	handle(a, op("user-disable", http.MethodPost, "/v1/tenants/{tenant}/users/{id}/disable", "End a tenant's user's tokens on every member at once", tenantOwn, write, fleet.DutyLeavers).changes(command.TypeUserPut).answering(http.StatusOK), a.userDisable)
	handle(a, op("user-enable", http.MethodPost, "/v1/tenants/{tenant}/users/{id}/enable", "Let a disabled user of a tenant in again", tenantOwn, write, fleet.DutyLeavers).changes(command.TypeUserPut).answering(http.StatusOK), a.userEnable)
	handle(a, op("user-delete", http.MethodDelete, "/v1/tenants/{tenant}/users/{id}", "Delete a user of a tenant with all tokens", tenantOwn, write, fleet.DutyLeavers).changes(command.TypeUserDelete), a.userDelete)
	a.registerRoles()
}

// UserQuery selects users or tokens.
type UserQuery struct {
	Idle string `query:"idle" maxLength:"32" doc:"only those that nobody used for this long, such as 2160h"`
	ListQuery
}

// since is the time before which something counts as idle; false without the question.
func (q UserQuery) since(now time.Time) (time.Time, bool, error) {
	if q.Idle == "" {
		return time.Time{}, false, nil
	}
	d, err := time.ParseDuration(q.Idle)
	if err != nil || d <= 0 {
		return time.Time{}, false, fleet.Invalid("idle", "%q is not a duration such as 2160h", q.Idle)
	}
	return now.Add(-d), true, nil
}

// TenantUserQuery selects a tenant's users or tokens.
type TenantUserQuery struct {
	TenantPath
	UserQuery
}

// UserCreateInput makes a tenant's user.
type UserCreateInput struct {
	TenantPath
	Body client.UserCreate
}

// OperatorUserUpdateInput changes a user of the vendor.
type OperatorUserUpdateInput struct {
	IDPath
	Body client.UserUpdate
}

// UserUpdateInput changes a user of a tenant.
type UserUpdateInput struct {
	TenantObject
	Body client.UserUpdate
}

type (
	userPage  = Body[client.Page[fleet.User]]
	userBody  = Body[fleet.User]
	userEnded = Body[client.UserEnded]
)

func (a *API) operatorUserList(_ context.Context, in *UserQuery) (*userPage, error) {
	return a.users("", *in)
}

func (a *API) userList(_ context.Context, in *TenantUserQuery) (*userPage, error) {
	return a.users(in.tenant(), in.UserQuery)
}

func (a *API) operatorUserCreate(ctx context.Context, in *Input[client.UserCreate]) (*userBody, error) {
	return a.createUser(ctx, "", in.Body)
}

func (a *API) userCreate(ctx context.Context, in *UserCreateInput) (*userBody, error) {
	return a.createUser(ctx, in.tenant(), in.Body)
}

func (a *API) operatorUserShow(_ context.Context, in *IDRead) (*userBody, error) {
	u, err := a.user(in.ID, "")
	return &userBody{Body: u}, err
}

func (a *API) userShow(_ context.Context, in *TenantObjectRead) (*userBody, error) {
	u, err := a.user(in.ID, in.tenant())
	return &userBody{Body: u}, err
}

func (a *API) operatorUserUpdate(ctx context.Context, in *OperatorUserUpdateInput) (*userBody, error) {
	return a.updateUser(ctx, in.ID, "", in.Body)
}

func (a *API) userUpdate(ctx context.Context, in *UserUpdateInput) (*userBody, error) {
	return a.updateUser(ctx, in.ID, in.tenant(), in.Body)
}

func (a *API) operatorUserDisable(ctx context.Context, in *IDPath) (*userEnded, error) {
	return a.switchUser(ctx, in.ID, "", true)
}

func (a *API) userDisable(ctx context.Context, in *TenantObject) (*userEnded, error) {
	return a.switchUser(ctx, in.ID, in.tenant(), true)
}

func (a *API) operatorUserEnable(ctx context.Context, in *IDPath) (*userEnded, error) {
	return a.switchUser(ctx, in.ID, "", false)
}

func (a *API) userEnable(ctx context.Context, in *TenantObject) (*userEnded, error) {
	return a.switchUser(ctx, in.ID, in.tenant(), false)
}

func (a *API) operatorUserDelete(ctx context.Context, in *IDPath) (*Body[client.Settled], error) {
	return a.deleteUser(ctx, in.ID, "")
}

func (a *API) userDelete(ctx context.Context, in *TenantObject) (*Body[client.Settled], error) {
	return a.deleteUser(ctx, in.ID, in.tenant())
}

func (a *API) users(tenant fleet.TenantID, q UserQuery) (*userPage, error) {
	since, idle, err := q.since(a.o.Now())
	if err != nil {
		return nil, err
	}
	us := a.view().UsersAfter(tenant, fleet.UserID(q.Cursor), q.Limit+1, func(u fleet.User) bool { return !idle || u.Idle(since) })
	return page(us, q.Limit, func(u fleet.User) string { return string(u.ID) }), nil
}

func (a *API) user(name string, tenant fleet.TenantID) (fleet.User, error) {
	u, ok := a.view().User(fleet.NewUserID(name, tenant))
	if !ok || u.Tenant != tenant {
		return fleet.User{}, fleet.NewError(fleet.ErrNotFound, "user", "user %s does not exist", name)
	}
	return u, nil
}

// decidable returns a user about whom the caller may decide: one who may nothing that the caller may not.
func (a *API) decidable(ctx context.Context, name string, tenant fleet.TenantID) (fleet.User, error) {
	u, err := a.user(name, tenant)
	if err != nil {
		return u, err
	}
	return u, a.requireAll(ctx, "deciding about user "+string(u.ID), a.view().UserPermissions(u))
}

func (a *API) createUser(ctx context.Context, tenant fleet.TenantID, in client.UserCreate) (*userBody, error) {
	id := fleet.NewUserID(in.ID, tenant)
	if err := a.requireAll(ctx, "giving these roles", a.view().RolePermissions(tenant, in.Roles...)); err != nil {
		return nil, err
	}
	u, err := propose[fleet.User](ctx, a, command.UserPut{
		Put: command.Put{Create: true}, ID: id, Tenant: tenant, Spec: fleet.UserSpec{Name: in.Name, Email: in.Email, Roles: in.Roles},
	})
	return &userBody{Body: u}, err
}

func (a *API) updateUser(ctx context.Context, name string, tenant fleet.TenantID, in client.UserUpdate) (*userBody, error) {
	u, err := a.amendUser(ctx, name, tenant, func(spec *fleet.UserSpec) {
		set(&spec.Name, in.Name)
		set(&spec.Email, in.Email)
		set(&spec.Roles, in.Roles)
	})
	return &userBody{Body: u}, err
}

// amendUser changes a user. Nobody decides about who may more than they, nor gives what they do not have.
func (a *API) amendUser(ctx context.Context, name string, tenant fleet.TenantID, edit func(*fleet.UserSpec)) (fleet.User, error) {
	return amend(ctx, func() (fleet.User, error) {
		u, err := a.decidable(ctx, name, tenant)
		if err != nil {
			return u, err
		}
		edit(&u.Spec)
		if err := a.requireAll(ctx, "giving these roles", a.view().UserPermissions(u)); err != nil {
			return u, err
		}
		return propose[fleet.User](ctx, a, command.UserPut{Put: conditionOn(ctx, u.Meta), ID: u.ID, Tenant: u.Tenant, Spec: u.Spec})
	})
}

func (a *API) switchUser(ctx context.Context, name string, tenant fleet.TenantID, disabled bool) (*userEnded, error) {
	u, err := a.amendUser(ctx, name, tenant, func(spec *fleet.UserSpec) { spec.Disabled = disabled })
	if err != nil {
		return nil, err
	}
	return &userEnded{Body: client.UserEnded{User: u, Settled: a.settle(ctx, u.Revision)}}, nil
}

func (a *API) deleteUser(ctx context.Context, name string, tenant fleet.TenantID) (*Body[client.Settled], error) {
	_, err := amend(ctx, func() (any, error) {
		u, err := a.decidable(ctx, name, tenant)
		if err != nil {
			return nil, err
		}
		return propose[any](ctx, a, command.UserDelete{ID: u.ID, IfRevision: conditionOn(ctx, u.Meta).IfRevision})
	})
	if err != nil {
		return nil, err
	}
	return &Body[client.Settled]{Body: a.settle(ctx, a.view().Index())}, nil
}
