package state_test

import (
	"bytes"
	"testing"

	"github.com/edgefleet/edgefleet/controlplane/state"
	"github.com/edgefleet/edgefleet/fleet"
)

func TestTheStateKnowsWhenATableChangedLast(t *testing.T) {
	s := state.New()
	at := func(index uint64, change func(*state.Tx)) {
		tx := s.Write()
		tx.SetIndex(index)
		change(tx)
		tx.Commit()
	}
	at(10, func(tx *state.Tx) { tx.PutTenant(fleet.Tenant{ID: "a"}) })
	at(11, func(tx *state.Tx) { tx.PutGroup(fleet.Group{Name: "g"}) })
	at(12, func(tx *state.Tx) { tx.DeleteTenant("a") })
	dropped := s.Write()
	dropped.SetIndex(13)
	dropped.PutGroup(fleet.Group{Name: "h"})
	dropped.Abort()
	check := func(what string, s *state.Store, want map[state.Table]uint64) {
		t.Helper()
		for table, index := range want {
			if got := s.ChangedAt(table); got != index {
				t.Errorf("%s: %s changed at %d, want %d", what, table, got, index)
			}
		}
	}
	check("after changes", s, map[state.Table]uint64{state.Tenants: 12, state.Groups: 11, state.Rules: 12, state.Nodes: 0, state.Applied: 12})
	if got := s.ChangedAt(state.Groups, state.Nodes, state.Tenants); got != 12 {
		t.Errorf("the last of three changed at %d, want 12", got)
	}
	at(14, func(tx *state.Tx) { tx.DeleteHeads() })
	var b bytes.Buffer
	if _, err := s.Read().WriteTo(&b); err != nil {
		t.Fatal(err)
	}
	restored, err := state.Load(&b)
	if err != nil {
		t.Fatal(err)
	}
	check("after a restore nobody knows better than the snapshot's index", restored, map[state.Table]uint64{state.Tenants: 14, state.Nodes: 14})
}
