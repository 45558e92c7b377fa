package controlplane

import (
	"context"
	"crypto/tls"
	"fmt"
	"path/filepath"
	"time"

	"github.com/edgefleet/edgefleet/controlplane/consensus"
	"github.com/edgefleet/edgefleet/controlplane/fsm"
	"github.com/edgefleet/edgefleet/controlplane/state"
	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/loadtest/harness"
	"github.com/edgefleet/edgefleet/observability"
)

// seedLimit bounds the making of a large state.
const seedLimit = 3 * time.Minute

// seed gives a member that was initialised and does not run a state of n objects more: it opens the member's log as the
// member would, fills the state behind the log's back, and takes a snapshot, which the member then starts from. Through
// the API it would take an hour.
func (r *run) seed(ctx context.Context, m *harness.Member, n int) error {
	ctx, cancel := context.WithTimeout(ctx, seedLimit)
	defer cancel()
	certs, err := r.env.Certificates("seed", m.Host)
	if err != nil {
		return err
	}
	pair, err := tls.LoadX509KeyPair(certs.Cert, certs.Key)
	if err != nil {
		return fmt.Errorf("read certificate: %w", err)
	}
	store := state.New()
	node, err := consensus.Open(consensus.Options{ //nolint:contextcheck // a member lives longer than its start
		Dir: filepath.Join(m.Data(), "raft"), Member: m.ID, Bind: m.Raft(), FSM: fsm.New(store), Telemetry: observability.Discard(),
		TrailingLogs: 1, // what the log says must not be all that others get
		ServerTLS:    &tls.Config{Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequireAnyClientCert, MinVersion: tls.VersionTLS13},
		ClientTLS:    &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS13},
	})
	if err != nil {
		return fmt.Errorf("open the log of %s: %w", m.ID, err)
	}
	err = harness.Until(ctx, seedLimit, 20*time.Millisecond, node.Barrier)
	if err == nil {
		fill(store, n)
		err = node.Snapshot()
	}
	if closeErr := node.Close(context.WithoutCancel(ctx)); err == nil && closeErr != nil {
		err = fmt.Errorf("close the log of %s: %w", m.ID, closeErr)
	}
	return err
}

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
