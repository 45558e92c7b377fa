package controlplane_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/edgefleet/edgefleet/controlplane"
	"github.com/edgefleet/edgefleet/controlplane/client"
	"github.com/edgefleet/edgefleet/controlplane/state"
	"github.com/edgefleet/edgefleet/fleet"
)

func TestTheBudgetShowsWhatWasCounted(t *testing.T) {
	const dir = "https://ca.example/dir"
	now := time.Now().UTC()
	s := state.New()
	tx := s.Write()
	a := fleet.Authority{Directory: dir, Failures: fleet.AuthorityAway, Since: now, Rest: now.Add(time.Minute), Problem: "no service"}
	for range 3 {
		a = a.Count(now)
	}
	tx.PutAuthority(a)
	for _, h := range []fleet.HostName{"a.example.co.uk", "b.shop.example.co.uk", "c.example.com"} {
		c := fleet.Certificate{Host: h, Authority: dir, NotBefore: now.Add(-time.Hour)}
		tx.PutHost(fleet.Host{Name: h})
		tx.PutCertificate(fleet.CertificateRecord{Certificate: c})
	}
	tx.PutOrder(fleet.OrderRecord{Order: fleet.Order{ID: "o1", Host: "d.example.com", Failed: []time.Time{now, now}, Problem: fleet.ReasonCARateLimited + ": wait"}})
	tx.Commit()
	got := controlplane.BudgetOf(s, controlplane.ACME{Directory: dir, Limits: controlplane.ACMELimits{Orders: 3, Failures: 2, Certificates: 2}})
	want := client.AuthorityBudget{
		Directory: dir, State: "away", Since: now, Until: now.Add(time.Minute), Problem: "no service",
		Orders:  client.Budget{Used: 3, Limit: 3, Free: now.Truncate(fleet.AuthorityStep).Add(fleet.AuthorityStep + fleet.AuthorityWindow)},
		Domains: []client.NamedBudget{{Name: "example.co.uk", Budget: client.Budget{Used: 2, Limit: 2, Free: now.Add(fleet.CertificateWindow - time.Hour)}}, {Name: "example.com", Budget: client.Budget{Used: 1, Limit: 2}}},
		Names:   []client.NamedBudget{{Name: "d.example.com", Budget: client.Budget{Used: 2, Limit: 2, Free: now.Add(fleet.FailureWindow)}}},
	}
	if d := cmp.Diff(client.CertBudget{Authorities: []client.AuthorityBudget{want}, Waiting: 1}, got); d != "" {
		t.Error(d)
	}
}
