package blobs

import (
	"fmt"

	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/tls/keyring"
)

// originCerts reseals the keys of the certificates that nodes show to a tenant's origins. They are in the tree of the
// certificates and name their origins by URL, so that a rotation moves nothing of the configuration. An instance of a
// Consul service that is new may be known to a node a moment before its certificate is; it is tried again.
func (d *deriver) originCerts(t fleet.TenantID) ([]fleet.BundleOriginCert, error) {
	var out []fleet.BundleOriginCert
	for _, c := range d.view.OriginCertsOfTenant(t) {
		var servers []string
		if o := (fleet.Origin{URL: c.Origin}); o.IsConsul() {
			resolved, _ := d.view.HostOrigins(c.Host)
			if servers = o.ServersOf(resolved); len(servers) == 0 {
				continue
			}
		}
		aad := keyring.OriginKeyAAD(c.OriginCert)
		plain, err := d.keys.Sealer.Open(c.Key, aad)
		if err != nil {
			return nil, fmt.Errorf("open key of %s for %s: %w", c.Host, c.Origin, err)
		}
		sealed, err := d.group.Seal(plain, aad)
		clear(plain)
		if err != nil {
			return nil, fmt.Errorf("seal key of %s for %s: %w", c.Host, c.Origin, err)
		}
		out = append(out, fleet.BundleOriginCert{Host: c.Host, Origin: c.Origin, Servers: servers, Generation: c.Generation, SPKI: c.SPKI, Chain: c.Chain, Key: sealed})
	}
	return out, nil
}
