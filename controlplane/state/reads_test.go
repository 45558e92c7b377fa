package state_test

import (
	"bytes"
	"testing"

	"github.com/edgefleet/edgefleet/controlplane/state"
	"github.com/edgefleet/edgefleet/fleet"
)

func TestATrackedViewNotesWhatIsReadThroughIt(t *testing.T) {
	read := func(v *state.View) {
		v.Tenant("acme")
		v.Host("none.example.com")
		v.RulesOf("acme")
	}
	for name, tc := range map[string]struct {
		change  func(*state.Tx)
		changed bool
	}{
		"an object that was read changes":         {func(tx *state.Tx) { tx.PutTenant(fleet.Tenant{ID: "acme"}) }, true},
		"an object that was missed appears":       {func(tx *state.Tx) { tx.PutHost(fleet.Host{Name: "none.example.com"}) }, true},
		"a list that was read grows":              {func(tx *state.Tx) { tx.PutRule(fleet.Rule{ID: "r99", Tenant: "acme"}) }, true},
		"a list that was read shrinks":            {func(tx *state.Tx) { tx.DeleteRule(tx.RulesOf("acme")[0].ID) }, true},
		"something changes that nobody looked at": {func(tx *state.Tx) { tx.PutNode(fleet.Node{ID: "n99"}) }, false},
		"nothing changes":                         {func(*state.Tx) {}, false},
	} {
		t.Run(name, func(t *testing.T) {
			s := full(t)
			v, reads := s.Read().Tracked()
			read(v)
			if reads.Changed() {
				t.Fatal("changed before anything did")
			}
			tx := s.Write()
			tc.change(tx)
			tx.Abort()
			if reads.Changed() {
				t.Error("changed by what was dropped")
			}
			tx = s.Write()
			tc.change(tx)
			tx.Commit()
			if reads.Changed() != tc.changed {
				t.Errorf("changed: %v", reads.Changed())
			}
		})
	}
}

func TestARestoreIsSeenByWatchersAndByWhatWasRead(t *testing.T) {
	s := full(t)
	var snapshot bytes.Buffer
	if _, err := s.Read().WriteTo(&snapshot); err != nil {
		t.Fatal(err)
	}
	v, reads := s.Read().Tracked()
	watch := s.Watch(state.Nodes)
	before := v.Tenants()
	if err := s.Restore(&snapshot); err != nil {
		t.Fatal(err)
	}
	if err := watch.WatchCtx(t.Context()); err != nil {
		t.Error(err)
	}
	if !reads.Changed() {
		t.Error("what was read before the restore counts as current")
	}
	if len(before) == 0 || len(v.Tenants()) != len(before) {
		t.Error("the view from before the restore changed")
	}
}
