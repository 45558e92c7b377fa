package api

import (
	"context"
	"strings"
	"time"

	"github.com/edgefleet/edgefleet/controlplane/state"
	"github.com/edgefleet/edgefleet/fleet"
)

// permissions is what a token may do now, in its scope.
func (a *API) permissions(t fleet.Token) fleet.PermissionSet { return a.view().TokenPermissions(t) }

// require refuses a token that lacks a permission. No operation is allowed to everyone by saying nothing.
func (a *API) require(t fleet.Token, p fleet.Permission) error {
	if p == "" || !a.permissions(t).Has(p) {
		return fleet.NewError(fleet.ErrDenied, "permission", "this needs the permission %q, which the token does not have: ask an administrator for a role that gives it", string(p))
	}
	return nil
}

// requireAll refuses a caller who gives, or decides about, more than they have themselves.
func (a *API) requireAll(ctx context.Context, what string, needed fleet.PermissionSet) error {
	missing := a.permissions(callerOf(ctx).token).Missing(needed)
	if len(missing) == 0 {
		return nil
	}
	names := make([]string, len(missing))
	for i, p := range missing {
		names[i] = string(p)
	}
	return fleet.NewError(fleet.ErrDenied, "permission", "%s takes permissions that this token does not have itself: %s", what, strings.Join(names, ", "))
}

// usable reports whether a token that was proven is good for anything: it has not ended, nor has its owner.
func usable(v *state.View, t fleet.Token, now time.Time) bool {
	if t.Ended(now) {
		return false
	}
	if t.Owner == "" {
		return true
	}
	u, ok := v.User(t.Owner)
	return ok && !u.Spec.Disabled
}

// still refuses what a token asks for that ended since.
func (a *API) still(ctx context.Context) error {
	if id := callerOf(ctx).token.ID; id != "" {
		if _, ok := a.current(id); !ok {
			return errEnded
		}
	}
	return nil
}

// current is a token as it is now; false if it is good for nothing any more.
func (a *API) current(id fleet.TokenID) (fleet.Token, bool) {
	v := a.view()
	rec, ok := v.Token(id)
	return rec.Token, ok && usable(v, rec.Token, a.o.Now())
}
