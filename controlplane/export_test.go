package controlplane

import (
	"context"
	"io"
	"time"

	"github.com/edgefleet/edgefleet/controlplane/client"
	"github.com/edgefleet/edgefleet/controlplane/dns"
	"github.com/edgefleet/edgefleet/controlplane/keys"
	"github.com/edgefleet/edgefleet/controlplane/state"
	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/tls/keyring"
	"github.com/edgefleet/edgefleet/tls/mtls"
)

// IssueOwn signs the certificates of the member that c configures.
func IssueOwn(c Config, rec fleet.ClusterRecord, kek *keyring.KEK, now time.Time) error {
	return c.issueOwn(rec, kek, now)
}

// RenewOwn is what a running member does with its certificates, member and API, now and then.
func RenewOwn(c Config, cluster fleet.ClusterID, member, api *mtls.Source, k *keys.Keys, now time.Time) error {
	return c.renewOwn(trust{membership: membership{Cluster: cluster}, source: member, apiSource: api}, k, now)
}

// ZoneOf is the edge zone as a member with that state answers it.
func ZoneOf(s *state.Store, c DNS, heard func() time.Duration) dns.PushSource {
	return newZone(s, c, heard)
}

// ValidateDNS holds a configuration against its limits.
func ValidateDNS(d DNS) error { return d.validate() }

// BudgetOf is what cert budget shows.
func BudgetOf(s *state.Store, a ACME) client.CertBudget { return budgetOf(s.Read(), utcNow(), a) }

// RunLooking is RunWith with a provider that is asked so often.
func RunLooking(ctx context.Context, c Config, p KEKProvider, every time.Duration, log io.Writer) error {
	return runWith(ctx, c, p, every, log)
}
