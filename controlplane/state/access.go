package state

import (
	"slices"

	"github.com/edgefleet/edgefleet/fleet"
)

// PutUser stores a user.
func (t *Tx) PutUser(u fleet.User) { put(t, Users, u) }

// PutRole stores a custom role.
func (t *Tx) PutRole(r fleet.CustomRole) { put(t, Roles, r) }

// PutAccess stores the access policy.
func (t *Tx) PutAccess(p fleet.AccessPolicy) { put(t, Access, p) }

// PutApproval stores an approval.
func (t *Tx) PutApproval(a fleet.Approval) { put(t, Approvals, a) }

// DeleteUser removes a user with all tokens.
func (t *Tx) DeleteUser(id fleet.UserID) {
	for _, tok := range t.TokensOf(id) {
		t.DeleteToken(tok.ID)
	}
	del(t, Users, indexID, string(id))
}

// DeleteRole removes a custom role.
func (t *Tx) DeleteRole(key string) { del(t, Roles, indexID, key) }

// DeleteApproval removes an approval.
func (t *Tx) DeleteApproval(id fleet.ApprovalID) { del(t, Approvals, indexID, string(id)) }

// User returns a user.
func (v *View) User(id fleet.UserID) (fleet.User, bool) {
	return get[fleet.User](v, Users, indexID, string(id))
}

// UsersOf lists the users of a tenant, or for the empty tenant the vendor's.
func (v *View) UsersOf(tenant fleet.TenantID) []fleet.User {
	if tenant != "" {
		return list[fleet.User](v, Users, indexTenant, string(tenant))
	}
	return slices.DeleteFunc(list[fleet.User](v, Users, indexID), func(u fleet.User) bool { return u.Tenant != "" })
}

// UsersAfter lists at most limit users of a tenant (the vendor's for the empty one) with ids after cursor which keep
// accepts.
func (v *View) UsersAfter(tenant fleet.TenantID, cursor fleet.UserID, limit int, keep func(fleet.User) bool) []fleet.User {
	return after(v, Users, string(cursor), limit, func(u fleet.User) string { return string(u.ID) },
		func(u fleet.User) bool { return u.Tenant == tenant && keep(u) })
}

// Role returns a custom role of a scope.
func (v *View) Role(name fleet.RoleName, tenant fleet.TenantID) (fleet.CustomRole, bool) {
	return get[fleet.CustomRole](v, Roles, indexID, fleet.RoleKey(name, tenant))
}

// RolesOf lists the custom roles of a tenant, or for the empty tenant the vendor's.
func (v *View) RolesOf(tenant fleet.TenantID) []fleet.CustomRole {
	if tenant != "" {
		return list[fleet.CustomRole](v, Roles, indexTenant, string(tenant))
	}
	return slices.DeleteFunc(list[fleet.CustomRole](v, Roles, indexID), func(r fleet.CustomRole) bool { return r.Tenant != "" })
}

// TokensOf lists a user's tokens.
func (v *View) TokensOf(owner fleet.UserID) []fleet.TokenRecord {
	_, tenant := owner.Split()
	return slices.DeleteFunc(v.scopeTokens(tenant), func(t fleet.TokenRecord) bool { return t.Owner != owner })
}

// ServiceTokens counts the tokens of a scope that belong to nobody.
func (v *View) ServiceTokens(tenant fleet.TenantID) int {
	n := 0
	for _, t := range v.scopeTokens(tenant) {
		if t.Owner == "" && t.Tenant == tenant {
			n++
		}
	}
	return n
}

func (v *View) scopeTokens(tenant fleet.TenantID) []fleet.TokenRecord {
	if tenant != "" {
		return list[fleet.TokenRecord](v, Tokens, indexTenant, string(tenant))
	}
	return list[fleet.TokenRecord](v, Tokens, indexID)
}

// Access returns the access policy: the default before there is one.
func (v *View) Access() fleet.AccessPolicy {
	if p, ok := get[fleet.AccessPolicy](v, Access, indexID, fleet.AccessID); ok {
		return p
	}
	return fleet.DefaultAccess()
}

// Approval returns an approval.
func (v *View) Approval(id fleet.ApprovalID) (fleet.Approval, bool) {
	return get[fleet.Approval](v, Approvals, indexID, string(id))
}

// Approvals lists all approvals.
func (v *View) Approvals() []fleet.Approval { return list[fleet.Approval](v, Approvals, indexID) }

// TokenPermissions is what a token may do now, in its scope: what its owner's roles give, or everything for a service
// token, narrowed by its own permissions. A token of a user who is disabled or gone may do nothing.
func (v *View) TokenPermissions(t fleet.Token) fleet.PermissionSet {
	var may fleet.PermissionSet
	if t.Owner == "" {
		may, _ = fleet.BuiltinPermissions(fleet.RoleAdministrator)
	} else if u, ok := v.User(t.Owner); ok && !u.Spec.Disabled && u.Tenant == t.Tenant {
		may = v.UserPermissions(u)
	}
	if len(t.Permissions) > 0 {
		may = may.Intersect(fleet.NewPermissionSet(t.Permissions...))
	}
	return may.InScope(t.Tenant)
}

// UserPermissions is what a user's roles give, in the user's scope.
func (v *View) UserPermissions(u fleet.User) fleet.PermissionSet {
	return v.RolePermissions(u.Tenant, u.Spec.Roles...)
}

// RolePermissions is what roles give in a scope. A role that does not exist gives nothing.
func (v *View) RolePermissions(tenant fleet.TenantID, roles ...fleet.RoleName) fleet.PermissionSet {
	may := fleet.PermissionSet{}
	for _, name := range roles {
		if p, ok := fleet.BuiltinPermissions(name); ok {
			may.Add(p.List()...)
		} else if r, ok := v.Role(name, tenant); ok {
			may.Add(r.Permissions...)
		}
	}
	return may.InScope(tenant)
}
