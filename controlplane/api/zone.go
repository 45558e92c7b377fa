package api

import (
	"context"
	"maps"
	"net/http"
	"slices"

	"github.com/edgefleet/edgefleet/controlplane/client"
	"github.com/edgefleet/edgefleet/controlplane/command"
	"github.com/edgefleet/edgefleet/controlplane/dns"
	"github.com/edgefleet/edgefleet/controlplane/state"
	"github.com/edgefleet/edgefleet/fleet"
)

func (a *API) registerZone() {
	handle(a, op("region-list", http.MethodGet, "/v1/regions", "Regions and how many of their nodes are in DNS", operators, fleet.PermNodesRead, fleet.DutyOperating), a.regionList)
	handle(a, op("region-show", http.MethodGet, "/v1/regions/{name}", "A region", operators, fleet.PermNodesRead, fleet.DutyOperating), a.regionShow)
	handle(a, op("region-withdraw", http.MethodPost, "/v1/regions/{name}/withdraw", "Take a region's nodes out of DNS", operators, fleet.PermNodesWrite, fleet.DutyOperating).changes(command.TypeRegionPut).answering(http.StatusOK), a.regionWithdraw)
	handle(a, op("region-restore", http.MethodPost, "/v1/regions/{name}/restore", "Let a region's nodes back into DNS", operators, fleet.PermNodesWrite, fleet.DutyOperating).changes(command.TypeRegionPut).answering(http.StatusOK), a.regionRestore)
	handle(a, op("dns-zone", http.MethodGet, "/v1/dns/zone", "The edge zone as the leader answers it, else the member that is asked", operators, fleet.PermNodesRead, fleet.DutyOperating).leaderFirst(), a.zoneShow)
	handle(a, op("dns-checks", http.MethodGet, "/v1/dns/checks", "Ask every name server of the zone for it, by UDP and TCP", operators, fleet.PermNodesRead, fleet.DutyOperating).locally(), a.zoneChecks)
}

// RegionPath names a region.
type RegionPath struct {
	Name string `path:"name" maxLength:"63" doc:"region"`
}

// RegionRead names a region to read.
type RegionRead struct {
	RegionPath
	ReadQuery
}

// regions are what nodes are in, and what something was decided about, by name.
func regions(v *state.View) []client.RegionStatus {
	out := v.Withdrawn()
	found := map[fleet.RegionName]*client.RegionStatus{}
	at := func(name fleet.RegionName) *client.RegionStatus {
		if found[name] == nil {
			found[name] = &client.RegionStatus{Region: fleet.Region{Name: name}}
		}
		return found[name]
	}
	for _, r := range v.Regions() {
		at(r.Name).Region = r
	}
	inDNS := map[fleet.NodeID]bool{}
	for _, g := range v.Groups() {
		set, known := v.DNSSet(fleet.DNSSetKey(g.Name, nil))
		for _, n := range dns.Serving(set, known, v.NodesOf(g.Name), out) {
			inDNS[n.ID] = true
		}
	}
	for _, n := range v.Nodes() {
		if !n.Identity.RevokedAt.IsZero() {
			continue
		}
		r := at(n.Spec.Region)
		r.Nodes++
		if n.Healthy() {
			r.Healthy++
		}
		if inDNS[n.ID] {
			r.InDNS++
		}
	}
	list := make([]client.RegionStatus, 0, len(found))
	for _, name := range slices.Sorted(maps.Keys(found)) {
		if r := found[name]; r.Nodes > 0 || r.Withdrawn != nil {
			list = append(list, *r)
		}
	}
	return list
}

func (a *API) regionList(_ context.Context, _ *ReadQuery) (*Body[client.Page[client.RegionStatus]], error) {
	return &Body[client.Page[client.RegionStatus]]{Body: client.Page[client.RegionStatus]{Items: regions(a.view())}}, nil
}

func (a *API) regionShow(_ context.Context, in *RegionRead) (*Body[client.RegionStatus], error) {
	for _, r := range regions(a.view()) {
		if string(r.Name) == in.Name {
			return &Body[client.RegionStatus]{Body: r}, nil
		}
	}
	return nil, fleet.NewError(fleet.ErrNotFound, "region", "no node is in region %s, and it is not withdrawn", in.Name)
}

// RegionWithdrawInput takes a region out of DNS.
type RegionWithdrawInput struct {
	RegionPath
	Body client.RegionWithdraw
}

func (a *API) regionWithdraw(ctx context.Context, in *RegionWithdrawInput) (*Body[fleet.Region], error) {
	return a.putRegion(ctx, command.RegionPut{Name: fleet.RegionName(in.Name), Withdraw: true, Force: in.Body.Force})
}

func (a *API) regionRestore(ctx context.Context, in *RegionPath) (*Body[fleet.Region], error) {
	return a.putRegion(ctx, command.RegionPut{Name: fleet.RegionName(in.Name)})
}

// putRegion asks for the right to operate every group that has nodes in the region.
func (a *API) putRegion(ctx context.Context, b command.RegionPut) (*Body[fleet.Region], error) {
	groups := map[fleet.GroupName]bool{}
	for _, n := range a.view().Nodes() {
		if n.Spec.Region == b.Name {
			groups[n.Spec.Group] = true
		}
	}
	for _, g := range slices.Sorted(maps.Keys(groups)) {
		if err := a.authorizeGroup(ctx, fleet.DutyOperating, g); err != nil {
			return nil, err
		}
	}
	r, err := propose[fleet.Region](ctx, a, b)
	return &Body[fleet.Region]{Body: r}, err
}

func (a *API) zoneShow(context.Context, *ReadQuery) (*Body[client.Zone], error) {
	return &Body[client.Zone]{Body: a.o.Zone()}, nil
}

func (a *API) zoneChecks(ctx context.Context, _ *ReadQuery) (*Body[client.Page[fleet.Check]], error) {
	return &Body[client.Page[fleet.Check]]{Body: client.Page[fleet.Check]{Items: a.o.CheckZone(ctx)}}, nil
}
