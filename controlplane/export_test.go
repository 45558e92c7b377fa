package controlplane

import (
	"time"

	"github.com/edgefleet/edgefleet/controlplane/keys"
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
