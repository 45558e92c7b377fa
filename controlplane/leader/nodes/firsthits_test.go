package nodes_test

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/edgefleet/edgefleet/controlplane/leader/nodes"
	"github.com/edgefleet/edgefleet/fleet"
)

// looks are the hosts that were looked at.
type looks struct {
	mu    sync.Mutex
	hosts []fleet.HostName
}

func (k *looks) look(h fleet.HostName) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.hosts = append(k.hosts, h)
}

func (k *looks) take() []fleet.HostName {
	k.mu.Lock()
	defer k.mu.Unlock()
	out := k.hosts
	k.hosts = nil
	return out
}

// withHosts has a host that waits for its certificate, one that has one, one that is being deleted, and one of another group.
func withHosts(t *testing.T) *cluster {
	t.Helper()
	c := newCluster(t, 2)
	tx := c.state.Write()
	tx.PutTenant(fleet.Tenant{ID: "acme", Spec: fleet.TenantSpec{Group: fleet.DefaultGroup}})
	tx.PutTenant(fleet.Tenant{ID: "far", Spec: fleet.TenantSpec{Group: "other"}})
	for _, h := range []fleet.Host{
		{Name: "new.example.com", Tenant: "acme"},
		{Name: "*.new.example.com", Tenant: "acme"},
		{Name: "certified.example.com", Tenant: "acme"},
		{Name: "deleting.example.com", Tenant: "acme", Desired: fleet.HostDesired{DeletingSince: time.Now()}},
		{Name: "far.example.com", Tenant: "far"},
	} {
		tx.PutHost(h)
	}
	tx.PutCertificate(fleet.CertificateRecord{Certificate: fleet.Certificate{Host: "certified.example.com", Tenant: "acme", Generation: 1}})
	tx.Commit()
	return c
}

func TestTheFirstClientOfAHostHasItsDNSLookedAt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, k := withHosts(t), &looks{}
		l := nodes.New(nodes.Options{State: c.state, Proposer: c, Now: time.Now, Recheck: k.look})
		stop := c.run(l)
		tell := func(n fleet.NodeID, hosts ...fleet.HostName) []fleet.HostName {
			r := report(n)
			r.Uncertified = hosts
			l.Report(r)
			synctest.Wait()
			return k.take()
		}
		if got := tell("n0"); got != nil {
			t.Errorf("without a client: %q", got)
		}
		all := []fleet.HostName{"new.example.com", "*.new.example.com", "certified.example.com", "deleting.example.com", "far.example.com", "nobody.example.com"}
		if got, want := tell("n0", all...), all[:2]; !slices.Equal(got, want) {
			t.Errorf("looked at %q, want %q", got, want)
		}
		for i := range 20 {
			if got := tell(fleet.NodeID(fmt.Sprint("n", i%2)), all...); got != nil {
				t.Fatalf("looked again at %q", got)
			}
			time.Sleep(time.Second)
		}
		if got := tell("unknown", "new.example.com"); got != nil {
			t.Errorf("for a node that does not exist: %q", got)
		}
		time.Sleep(time.Minute)
		if got := tell("n1", "new.example.com"); !slices.Equal(got, all[:1]) {
			t.Errorf("a minute later: %q", got)
		}
		if got := tell("n1", make([]fleet.HostName, fleet.MaxUncertified+1)...); got != nil {
			t.Errorf("a report over the limit: %q", got)
		}
		for _, p := range c.proposed() {
			for _, r := range p.body.Reports {
				if r.Observed.State != fleet.NodeUp && r.Observed.State != fleet.NodeDown {
					t.Errorf("%+v", r)
				}
			}
		}
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
}
