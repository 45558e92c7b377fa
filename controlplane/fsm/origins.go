package fsm

import (
	"slices"

	"github.com/edgefleet/edgefleet/controlplane/command"
	"github.com/edgefleet/edgefleet/fleet"
)

// checkServices checks the origins of h that are Consul services, and returns h with the others.
func (p *processor) checkServices(h fleet.Host) (fleet.Host, error) {
	servers := h
	servers.Spec.Origins = nil
	queries := map[string]bool{}
	for _, o := range h.Spec.Origins {
		if !o.IsConsul() {
			servers.Spec.Origins = append(servers.Spec.Origins, o)
			continue
		}
		c, err := o.ParseConsul()
		if err != nil {
			return h, err
		}
		queries[c.Query()] = true
	}
	for _, other := range p.tx.HostsWithServices() {
		for _, o := range other.Spec.Origins {
			if c, err := o.ParseConsul(); err == nil && other.Name != h.Name {
				queries[c.Query()] = true
			}
		}
	}
	if n := len(queries); n > fleet.MaxConsulServices {
		return h, fleet.NewError(fleet.ErrTooLarge, "origin", "hosts would name %d different Consul services; the limit is %d: give the addresses of the servers, or use a service that others use", n, fleet.MaxConsulServices)
	}
	return servers, nil
}

// originsResolve stores what is still right of a batch: the host may have changed since the leader looked.
func (p *processor) originsResolve(b *command.OriginsResolve) error {
	cluster, _ := p.tx.Cluster()
	own := p.edgeAddresses()
	for _, next := range b.Hosts {
		h, ok := p.tx.Host(next.Host)
		tenant, known := p.tx.Tenant(h.Tenant)
		if !ok || !known || h.Deleting() || h.Tenant != next.Tenant || !resolves(h, next, func(o fleet.Origin) bool {
			return h.CheckInstance(o, cluster.Zone, tenant.Spec.AllowedOrigins, own) == nil
		}) {
			continue
		}
		before, had := p.tx.HostOrigins(next.Host)
		if len(next.Services) == 0 {
			p.tx.DeleteOrigins(next.Host)
			if had {
				if err := p.audit(b, "origins/"+string(next.Host), next.Tenant, before, nil); err != nil {
					return err
				}
			}
			continue
		}
		p.tx.PutOrigins(next)
		if err := p.audit(b, "origins/"+string(next.Host), next.Tenant, orNil(before, had), next); err != nil {
			return err
		}
	}
	return nil
}

// maxRefused bounds what is kept of instances that were refused.
const maxRefused = fleet.MaxInstances

// resolves reports whether next is about services that h names, with instances that h may have.
func resolves(h fleet.Host, next fleet.HostOrigins, allowed func(fleet.Origin) bool) bool {
	if len(next.Services) > len(h.Spec.Origins) {
		return false
	}
	for _, r := range next.Services {
		named := slices.ContainsFunc(h.Spec.Origins, func(o fleet.Origin) bool { return o.URL == r.URL }) && fleet.Origin{URL: r.URL}.IsConsul()
		if !named || len(r.Instances) > fleet.MaxInstances || len(r.Refused) > maxRefused {
			return false
		}
		for _, i := range r.Instances {
			if i.IsConsul() || !allowed(i) {
				return false
			}
		}
	}
	return true
}
