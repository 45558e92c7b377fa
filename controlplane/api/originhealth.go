package api

import (
	"slices"

	"github.com/edgefleet/edgefleet/controlplane/client"
	"github.com/edgefleet/edgefleet/fleet"
)

// originHealth fills in which nodes were heard of that serve h, and returns what they say of an origin. It is as old as
// their last report, a few seconds, and this member's own: nothing of it is in the replicated state.
func (a *API) originHealth(h fleet.Host, views *client.OriginViews) func(fleet.Origin) []client.OriginOutage {
	if a.o.OriginsOut == nil {
		return func(fleet.Origin) []client.OriginOutage { return nil }
	}
	v := a.view()
	tenant, _ := v.Tenant(h.Tenant)
	said, heard := a.o.OriginsOut(h.Name)
	for _, n := range v.NodesIn(tenant.Spec.Group, h.Spec.Regions) {
		if slices.Contains(heard, n.ID) {
			views.Nodes = append(views.Nodes, n.ID)
		}
	}
	resolved, _ := v.HostOrigins(h.Name)
	return func(o fleet.Origin) (out []client.OriginOutage) {
		servers := map[string]bool{}
		for _, url := range o.ServersOf(resolved) {
			if e, err := (fleet.Origin{URL: url}).Parse(); err == nil {
				servers[e.Address()] = true
			}
		}
		for _, id := range views.Nodes {
			for _, s := range said[id] {
				if servers[s.Server] {
					out = append(out, client.OriginOutage{Node: id, Server: s.Server, Reason: s.Reason, Since: s.Since})
				}
			}
		}
		return out
	}
}
