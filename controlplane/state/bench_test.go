package state_test

import (
	"bytes"
	"fmt"
	"io"
	"testing"

	"github.com/edgefleet/edgefleet/controlplane/state"
	"github.com/edgefleet/edgefleet/fleet"
)

// BenchmarkSnapshot writes and restores a state of 100,000 objects: hosts, rules and audit entries.
func BenchmarkSnapshot(b *testing.B) {
	s := state.New()
	tx := s.Write()
	const objects = 100_000
	prev := fleet.AuditGenesis
	for i := range objects / 4 {
		tenant := fleet.TenantID(fmt.Sprintf("t%d", i%1000))
		name := fleet.HostName(fmt.Sprintf("h%d.example.com", i))
		tx.PutHost(fleet.Host{Name: name, Tenant: tenant, Spec: fleet.HostSpec{Mode: fleet.ModeBlock, Origins: []fleet.Origin{{URL: "https://203.0.113.1"}}}, Meta: fleet.Meta{Revision: 7, CreatedAt: noon, UpdatedAt: noon}})
		tx.PutLabel(fleet.Label{Label: fmt.Sprintf("l%d", i), Host: name})
		tx.PutRule(fleet.Rule{ID: fleet.RuleID(fmt.Sprintf("r%d", i)), Tenant: tenant, Spec: fleet.RuleSpec{Kind: fleet.RuleRegex, Pattern: "attack", AttackType: fleet.AttackCustom}, Meta: fleet.Meta{Revision: 7, CreatedAt: noon, UpdatedAt: noon}})
		e, err := fleet.AuditEntry{Seq: uint64(i) + 1, Time: noon, Operation: "host_put", Object: "host/" + string(name), Tenant: tenant, After: []byte(`{"name":"` + string(name) + `","spec":{"mode":"block","origins":[{"url":"https://203.0.113.1"}]}}`)}.Chain(prev)
		if err != nil {
			b.Fatal(err)
		}
		prev = e.Hash
		tx.PutAudit(e)
	}
	tx.Commit()
	var snapshot bytes.Buffer
	if _, err := s.Read().WriteTo(&snapshot); err != nil {
		b.Fatal(err)
	}
	b.Run("write", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := s.Read().WriteTo(io.Discard); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/objects, "ns/object")
	})
	b.Run("restore", func(b *testing.B) {
		b.ReportAllocs()
		into := state.New()
		for b.Loop() {
			if err := into.Restore(bytes.NewReader(snapshot.Bytes())); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/objects, "ns/object")
	})
}
