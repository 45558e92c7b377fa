package fleet_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/edgefleet/edgefleet/fleet"
)

// What each built-in role may do, written by hand: a change of a role is a change of this table.
var roleTable = map[fleet.Permission]string{ // administrator, analyst, read_only, api_developer, deploy; small where not within a tenant
	fleet.PermApprovalsDecide: "A",
	fleet.PermAuditRead:       "A N R",
	fleet.PermClusterOperate:  "a",
	fleet.PermClusterRead:     "a n r d",
	fleet.PermEventsRead:      "A N R",
	fleet.PermHostsRead:       "A N R P D",
	fleet.PermHostsWrite:      "A N",
	fleet.PermNodesEnrol:      "a d",
	fleet.PermNodesRead:       "a n r d",
	fleet.PermNodesWrite:      "a d",
	fleet.PermRulesRead:       "A N R P D",
	fleet.PermRulesWrite:      "A N",
	fleet.PermTenantsRead:     "A N R P D",
	fleet.PermTenantsWrite:    "a",
	fleet.PermTokensRead:      "A N R",
	fleet.PermTokensWrite:     "A",
	fleet.PermUsersRead:       "A N R",
	fleet.PermUsersWrite:      "A",
}

func TestEachRoleGivesExactlyThesePermissions(t *testing.T) {
	letter := map[fleet.RoleName]string{
		fleet.RoleAdministrator: "A", fleet.RoleAnalyst: "N", fleet.RoleReadOnly: "R", fleet.RoleAPIDeveloper: "P", fleet.RoleDeploy: "D",
	}
	if len(letter) != len(fleet.BuiltinRoles()) || len(roleTable) != len(fleet.Permissions()) {
		t.Error("a role or a permission is not in the table")
	}
	for _, role := range fleet.BuiltinRoles() {
		got, ok := fleet.BuiltinPermissions(role)
		if !ok {
			t.Errorf("%s gives nothing", role)
		}
		vendor, tenant := fleet.PermissionSet{}, fleet.PermissionSet{}
		for p, who := range roleTable {
			if strings.Contains(strings.ToUpper(who), letter[role]) {
				vendor[p] = true
			}
			if strings.Contains(who, letter[role]) {
				tenant[p] = true
			}
		}
		if diff := cmp.Diff(vendor.List(), got.InScope("").List()); diff != "" {
			t.Errorf("%s of the vendor: %s", role, diff)
		}
		if diff := cmp.Diff(tenant.List(), got.InScope("acme").List()); diff != "" {
			t.Errorf("%s of a tenant: %s", role, diff)
		}
		got[fleet.PermTenantsWrite] = true
		if again, _ := fleet.BuiltinPermissions(role); len(again) != len(vendor) {
			t.Errorf("%s can be changed by who reads it", role)
		}
	}
	if got, ok := fleet.BuiltinPermissions("root"); ok || len(got) > 0 {
		t.Errorf("an unknown role gives %v", got)
	}
}

func TestPermissionsAreListedByName(t *testing.T) {
	if ps := fleet.Permissions(); !slices.IsSorted(ps) || len(slices.Compact(ps)) != len(roleTable) {
		t.Errorf("got %v", ps)
	}
	for _, p := range fleet.Permissions() {
		if err := p.Validate(); err != nil {
			t.Error(err)
		}
	}
	for _, p := range []fleet.Permission{"", "*", "hosts:*", "Hosts:read", fleet.PermSelf, fleet.PermNode, fleet.PermMember, fleet.PermPublic} {
		if err := p.Validate(); !errors.Is(err, fleet.ErrInvalid) {
			t.Errorf("%q can be given: %v", p, err)
		}
	}
}

func TestSetsOfPermissions(t *testing.T) {
	var none fleet.PermissionSet
	if none.Has(fleet.PermHostsRead) || !none.Has(fleet.PermSelf) || none.Has("") {
		t.Error("the empty set allows more than oneself")
	}
	a := fleet.NewPermissionSet(fleet.PermHostsRead, fleet.PermRulesRead)
	b := fleet.NewPermissionSet(fleet.PermRulesRead, fleet.PermAuditRead)
	if diff := cmp.Diff([]fleet.Permission{fleet.PermRulesRead}, a.Intersect(b).List()); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]fleet.Permission{fleet.PermAuditRead}, a.Missing(b)); diff != "" {
		t.Error(diff)
	}
}
