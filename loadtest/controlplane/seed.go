package controlplane

import (
	"fmt"
	"time"

	"github.com/edgefleet/edgefleet/controlplane/state"
	"github.com/edgefleet/edgefleet/fleet"
)

// seedTenants own what fill makes; the API's load changes the first of them.
const seedTenants = objects

func seedHost(i int) fleet.HostName {
	return fleet.HostName(fmt.Sprintf("h%d.customer-%d.example", i, i%seedTenants))
}

// fill adds n objects: tenants, and hosts, their labels and rules in equal parts. (The audit log is no part of them: its
// old entries leave the state.)
func fill(store *state.Store, n int) {
	tx := store.Write()
	defer tx.Abort()
	now := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	meta := fleet.Meta{Revision: 1, CreatedAt: now, UpdatedAt: now}
	for i := range seedTenants {
		tx.PutTenant(fleet.Tenant{ID: fleet.TenantID(tenant(i)), Spec: fleet.TenantSpec{Name: "load", Form: fleet.SecurityEdge, Group: fleet.DefaultGroup}, Meta: meta})
	}
	for i := range (n - seedTenants) / 3 {
		of, name := fleet.TenantID(tenant(i)), seedHost(i)
		label := fmt.Sprintf("l%011d", i)
		spec := fleet.HostSpec{Mode: fleet.ModeBlock, Origins: []fleet.Origin{{URL: "https://203.0.113.10"}}}
		tx.PutHost(fleet.Host{Name: name, Tenant: of, Spec: spec, Desired: fleet.HostDesired{Label: label}, Meta: meta})
		tx.PutLabel(fleet.Label{Label: label, Host: name})
		tx.PutRule(fleet.Rule{ID: fleet.RuleID(fmt.Sprintf("r-%011d", i)), Tenant: of, Meta: meta, Spec: fleet.RuleSpec{Kind: fleet.RuleRegex, Pattern: "union.+select", AttackType: fleet.AttackCustom}})
	}
	tx.Commit()
}
