package fleet

import (
	"maps"
	"slices"
)

// Permission is one thing that a person or program may do. Every operation of the API names the one that it needs;
// what no role gives is denied.
type Permission string

// The permissions that roles give. Which objects they reach is the scope's business: everything for the vendor's
// people, one tenant for a client's.
const (
	// PermClusterRead: the members, their health and readiness.
	PermClusterRead Permission = "cluster:read"
	// PermClusterOperate: members join, leave and are restored.
	PermClusterOperate Permission = "cluster:operate"
	// PermNodesRead and PermNodesWrite: edge nodes and their groups.
	PermNodesRead  Permission = "nodes:read"
	PermNodesWrite Permission = "nodes:write"
	// PermNodesEnrol: admit new nodes.
	PermNodesEnrol Permission = "nodes:enrol"
	// PermTenantsRead and PermTenantsWrite: customers.
	PermTenantsRead  Permission = "tenants:read"
	PermTenantsWrite Permission = "tenants:write"
	// PermHostsRead and PermHostsWrite: protected hosts and their certificates.
	PermHostsRead  Permission = "hosts:read"
	PermHostsWrite Permission = "hosts:write"
	// PermRulesRead and PermRulesWrite: rules and their convergence.
	PermRulesRead  Permission = "rules:read"
	PermRulesWrite Permission = "rules:write"
	// PermEventsRead: attack events.
	PermEventsRead Permission = "events:read"
	// PermAuditRead: the audit log.
	PermAuditRead Permission = "audit:read"
	// PermTokensRead and PermTokensWrite: API tokens.
	PermTokensRead  Permission = "tokens:read"
	PermTokensWrite Permission = "tokens:write"
	// PermUsersRead and PermUsersWrite: users, roles and the access policy.
	PermUsersRead  Permission = "users:read"
	PermUsersWrite Permission = "users:write"
	// PermApprovalsDecide: approve or deny what another person asked for.
	PermApprovalsDecide Permission = "approvals:decide"
)

// What an operation names that no role gives, because every valid token, every node's or member's certificate, or
// nobody at all is asked for.
const (
	// PermSelf: every valid token, about itself.
	PermSelf Permission = "self"
	// PermNode: a node's certificate, about that node.
	PermNode Permission = "node"
	// PermMember: a member's certificate.
	PermMember Permission = "member"
	// PermPublic: nobody is asked who they are; the body proves what is needed.
	PermPublic Permission = "public"
)

// Permissions lists what roles can give, in the order of their names.
func Permissions() []Permission {
	return []Permission{
		PermApprovalsDecide, PermAuditRead, PermClusterOperate, PermClusterRead, PermEventsRead, PermHostsRead, PermHostsWrite,
		PermNodesEnrol, PermNodesRead, PermNodesWrite, PermRulesRead, PermRulesWrite, PermTenantsRead, PermTenantsWrite,
		PermTokensRead, PermTokensWrite, PermUsersRead, PermUsersWrite,
	}
}

// vendorOnly are the permissions that mean nothing within one tenant.
var vendorOnly = []Permission{PermClusterOperate, PermClusterRead, PermNodesEnrol, PermNodesRead, PermNodesWrite, PermTenantsWrite}

// Validate reports whether p is one that roles can give.
func (p Permission) Validate() error {
	if !slices.Contains(Permissions(), p) {
		return Invalid("permissions", "%q is not a permission: use those that 'fleetctl role list' shows, such as hosts:write", string(p))
	}
	return nil
}

// PermissionSet is a set of permissions. The empty set allows nothing.
type PermissionSet map[Permission]bool

// NewPermissionSet makes the set of ps.
func NewPermissionSet(ps ...Permission) PermissionSet {
	s := PermissionSet{}
	s.Add(ps...)
	return s
}

// Add puts ps into s.
func (s PermissionSet) Add(ps ...Permission) {
	for _, p := range ps {
		s[p] = true
	}
}

// Has reports whether p is in s; PermSelf always is.
func (s PermissionSet) Has(p Permission) bool { return p == PermSelf || s[p] }

// List is s in the order of the names.
func (s PermissionSet) List() []Permission { return slices.Sorted(maps.Keys(s)) }

// Missing lists what of o is not in s.
func (s PermissionSet) Missing(o PermissionSet) []Permission {
	var out []Permission
	for _, p := range o.List() {
		if !s[p] {
			out = append(out, p)
		}
	}
	return out
}

// Intersect is what both sets have.
func (s PermissionSet) Intersect(o PermissionSet) PermissionSet {
	out := PermissionSet{}
	for p := range s {
		if o[p] {
			out[p] = true
		}
	}
	return out
}

// RoleName names a role: one of the built-in ones, or a custom one of its scope.
type RoleName string

// The built-in roles. Each is given in the vendor's scope or in one tenant's.
const (
	// RoleAdministrator may do everything in its scope.
	RoleAdministrator RoleName = "administrator"
	// RoleAnalyst works on hosts and rules and sees events and the audit log.
	RoleAnalyst RoleName = "analyst"
	// RoleReadOnly sees what the analyst sees.
	RoleReadOnly RoleName = "read_only"
	// RoleAPIDeveloper sees hosts and rules, and tests requests against rules.
	RoleAPIDeveloper RoleName = "api_developer"
	// RoleDeploy brings nodes into service and sees how rules converge.
	RoleDeploy RoleName = "deploy"
)

// BuiltinRoles lists the built-in roles, the strongest first.
func BuiltinRoles() []RoleName {
	return []RoleName{RoleAdministrator, RoleAnalyst, RoleReadOnly, RoleAPIDeveloper, RoleDeploy}
}

// BuiltinPermissions is what a built-in role gives in the vendor's scope; false for the names of others.
func BuiltinPermissions(r RoleName) (PermissionSet, bool) {
	reads := []Permission{
		PermClusterRead, PermNodesRead, PermTenantsRead, PermHostsRead, PermRulesRead, PermEventsRead, PermAuditRead, PermUsersRead, PermTokensRead,
	}
	switch r {
	case RoleAdministrator:
		return NewPermissionSet(Permissions()...), true
	case RoleAnalyst:
		return NewPermissionSet(append(reads, PermHostsWrite, PermRulesWrite)...), true
	case RoleReadOnly:
		return NewPermissionSet(reads...), true
	case RoleAPIDeveloper:
		return NewPermissionSet(PermTenantsRead, PermHostsRead, PermRulesRead), true
	case RoleDeploy:
		return NewPermissionSet(PermClusterRead, PermNodesRead, PermNodesWrite, PermNodesEnrol, PermTenantsRead, PermHostsRead, PermRulesRead), true
	}
	return nil, false
}

// InScope is what s means in a scope: in one tenant's, nothing of the vendor's own.
func (s PermissionSet) InScope(tenant TenantID) PermissionSet {
	out := PermissionSet{}
	for p := range s {
		if tenant == "" || !slices.Contains(vendorOnly, p) {
			out[p] = true
		}
	}
	return out
}
