package api

import (
	"context"
	"slices"

	"github.com/edgefleet/edgefleet/controlplane/command"
	"github.com/edgefleet/edgefleet/fleet"
)

// putHost commits a host's spec. before are the origins that it has now: services among them may stay, also where they are
// not followed any more.
func (a *API) putHost(ctx context.Context, before []fleet.Origin, put command.HostPut) (fleet.Host, error) {
	if err := put.Spec.CheckCAs(); err != nil {
		return fleet.Host{}, err
	}
	if !slices.ContainsFunc(put.Spec.Origins, fleet.Origin.IsConsul) {
		return propose[fleet.Host](ctx, a, put)
	}
	for _, o := range put.Spec.Origins {
		if !o.IsConsul() {
			continue
		}
		if err := o.Validate(); err != nil {
			return fleet.Host{}, err
		}
		if !a.o.Consul && !slices.ContainsFunc(before, func(b fleet.Origin) bool { return b.URL == o.URL }) {
			return fleet.Host{}, fleet.Invalid("origin", "%s: this cluster has no Consul, so that nobody knows where that is: an operator can set consul.address in the configuration of every member and restart them; or give the address of the server", o.URL)
		}
	}
	return propose[fleet.Host](ctx, a, command.HostPutConsul{HostPut: put})
}
