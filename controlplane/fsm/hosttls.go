package fsm

import "github.com/edgefleet/edgefleet/fleet"

// checkCABytes bounds the CA certificates of all hosts of a tenant: one that went over what a bundle may hold would keep
// its whole group from new configuration.
func (p *processor) checkCABytes(h fleet.Host) error {
	n := h.Spec.CABytes()
	if n == 0 {
		return nil
	}
	for _, other := range p.tx.HostsOf(h.Tenant) {
		if other.Name != h.Name {
			n += other.Spec.CABytes()
		}
	}
	if n > fleet.MaxTenantCABytes {
		return fleet.NewError(fleet.ErrTooLarge, "tls", "the hosts of tenant %s would have %d bytes of CA certificates; the limit is %d: use fewer or shorter ones", h.Tenant, n, fleet.MaxTenantCABytes)
	}
	return nil
}
