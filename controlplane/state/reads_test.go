package state_test

import (
	"bytes"
	"fmt"
	"runtime"
	"sync"
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

// A view may show a change before the channels of those who wait for it are closed; what was read must count as changed
// by then, or what was derived from it stays as it was until the next change.
func TestWhatAViewShowsCountsAsChanged(t *testing.T) {
	s := full(t)
	for i := range uint64(300) {
		v, reads := s.Read().Tracked()
		v.RulesOf("acme")
		var writer sync.WaitGroup
		writer.Go(func() {
			tx := s.Write()
			for n := range 500 { // so that telling takes a while
				tx.PutNode(fleet.Node{ID: fleet.NodeID(fmt.Sprintf("n%d", n))})
			}
			tx.PutRule(fleet.Rule{ID: "more", Tenant: "acme"})
			tx.SetIndex(1000 + i)
			tx.Commit()
		})
		for s.Read().Index() != 1000+i {
			runtime.Gosched()
		}
		changed := reads.Changed()
		writer.Wait()
		if !changed {
			t.Fatalf("change %d is shown, and what was read before counts as current", i)
		}
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

func TestWhatIsStillMissingHasNotChanged(t *testing.T) {
	s := state.New()
	put := func(name fleet.HostName) {
		tx := s.Write()
		tx.PutCertificate(fleet.CertificateRecord{Certificate: fleet.Certificate{Host: name, Tenant: "acme", Generation: 1}})
		tx.Commit()
	}
	put("www.a.example.com")
	v, reads := s.Read().Tracked()
	v.Certificate("www.a.example.com")
	v.Certificate("www.missing.example.com")
	for i := range 300 {
		put(fleet.HostName(fmt.Sprintf("www.b%d.example.com", i)))
		if reads.ChangedIn(s.Read()) {
			t.Fatalf("changed by the certificate of another host, number %d", i)
		}
	}
	if reads.Changed() {
		t.Error("looked at, it still counts as changed")
	}
	put("www.missing.example.com")
	if !reads.ChangedIn(s.Read()) || !reads.Changed() {
		t.Error("it is there now, and nothing changed")
	}
	v, reads = s.Read().Tracked()
	v.Certificate("www.missing.example.com")
	v.Certificate("www.none.example.com")
	put("www.missing.example.com")
	if !reads.ChangedIn(s.Read()) {
		t.Error("it was put again, and nothing changed")
	}
}
