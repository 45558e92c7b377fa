package state_test

import (
	"bytes"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/edgefleet/edgefleet/controlplane/state"
	"github.com/edgefleet/edgefleet/fleet"
)

func TestAFeedNamesTheHostsThatChanged(t *testing.T) {
	s := state.New()
	f := s.FollowHosts()
	if names, all := f.Take(); !all || len(names) != 0 {
		t.Fatalf("at first: %v, %t", names, all)
	}
	for _, step := range []struct {
		name  string
		write func(*state.Tx)
		want  []fleet.HostName
	}{
		{"hosts are stored", func(tx *state.Tx) {
			tx.PutHost(fleet.Host{Name: "b.example"})
			tx.PutHost(fleet.Host{Name: "a.example"})
		}, []fleet.HostName{"a.example", "b.example"}},
		{"an order of one", func(tx *state.Tx) { tx.PutOrder(fleet.OrderRecord{Order: fleet.Order{ID: "o1", Host: "a.example"}}) }, []fleet.HostName{"a.example"}},
		{"a challenge of one", func(tx *state.Tx) { tx.PutChallenge(fleet.Challenge{Host: "b.example", Type: "dns-01", Token: "t"}) }, []fleet.HostName{"b.example"}},
		{"it is answered", func(tx *state.Tx) { tx.DeleteChallenge("b.example", "dns-01", "t") }, []fleet.HostName{"b.example"}},
		{"a certificate of one", func(tx *state.Tx) {
			tx.PutCertificate(fleet.CertificateRecord{Certificate: fleet.Certificate{Host: "a.example"}})
		}, []fleet.HostName{"a.example"}},
		{"an order ends", func(tx *state.Tx) { tx.DeleteOrder("o1") }, []fleet.HostName{"a.example"}},
		{"something else changes", func(tx *state.Tx) { tx.PutTenant(fleet.Tenant{ID: "t"}) }, nil},
		{"a host is deleted", func(tx *state.Tx) { tx.DeleteHost("b.example") }, []fleet.HostName{"b.example"}},
	} {
		tx := s.Write()
		step.write(tx)
		tx.Commit()
		select {
		case <-f.Changed():
			if step.want == nil {
				t.Errorf("%s: it wakes", step.name)
			}
		default:
			if step.want != nil {
				t.Errorf("%s: it does not wake", step.name)
			}
		}
		if names, all := f.Take(); all || !cmp.Equal(step.want, names) {
			t.Errorf("%s: %v, %t", step.name, names, all)
		}
	}
	tx := s.Write()
	tx.PutHost(fleet.Host{Name: "c.example"})
	tx.Abort()
	if names, all := f.Take(); all || len(names) > 0 {
		t.Errorf("aborted: %v, %t", names, all)
	}
	var snapshot bytes.Buffer
	if _, err := s.Read().WriteTo(&snapshot); err != nil {
		t.Fatal(err)
	}
	if err := s.Restore(&snapshot); err != nil {
		t.Fatal(err)
	}
	if _, all := f.Take(); !all {
		t.Error("after a restore everything may be different")
	}
	f.Close()
	tx = s.Write()
	tx.PutHost(fleet.Host{Name: "d.example"})
	tx.Commit()
	if names, _ := f.Take(); len(names) > 0 {
		t.Errorf("closed: %v", names)
	}
}
