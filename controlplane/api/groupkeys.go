package api

import (
	"context"
	"net/http"

	"github.com/edgefleet/edgefleet/controlplane/client"
	"github.com/edgefleet/edgefleet/controlplane/command"
	"github.com/edgefleet/edgefleet/fleet"
)

func (a *API) registerGroupKeys() {
	handle(a, op("group-keys", http.MethodGet, "/v1/groups/{name}/keys", "Which epoch the keys of a node group are in, why it began, and how many certificates wait for a new private key", operators, fleet.PermNodesRead, fleet.DutyOperating), a.groupKeys)
	handle(a, op("group-rekey", http.MethodPost, "/v1/groups/{name}/rekey", "Begin a new epoch of a node group's keys, and renew the certificates of its tenants with new private keys: after a node was stolen", operators, fleet.PermNodesWrite, fleet.DutyOperating).changes(command.TypeGroupRekey).answering(http.StatusOK), a.groupRekey)
}

func (a *API) keysOf(name fleet.GroupName) (*Body[client.GroupKeys], error) {
	v := a.view()
	if _, ok := v.Group(name); !ok {
		return nil, fleet.NewError(fleet.ErrNotFound, "group", "node group %s does not exist", name)
	}
	k := client.GroupKeys{GroupEpoch: v.Epoch(name)}
	k.Next = k.Since.Add(fleet.EpochLife)
	for tenant := range v.TenantsOf(name) {
		for _, h := range v.HostsOf(tenant.ID) {
			if c, ok := v.Certificate(h.Name); ok && k.Rekeys(c.Certificate) {
				k.Waiting++
			}
		}
	}
	return &Body[client.GroupKeys]{Body: k}, nil
}

func (a *API) groupKeys(_ context.Context, in *GroupRead) (*Body[client.GroupKeys], error) {
	return a.keysOf(fleet.GroupName(in.Name))
}

// GroupRekeyInput begins a new epoch.
type GroupRekeyInput struct {
	GroupPath
	Body client.GroupRekey
}

func (a *API) groupRekey(ctx context.Context, in *GroupRekeyInput) (*Body[fleet.GroupEpoch], error) {
	name := fleet.GroupName(in.Name)
	if _, ok := a.view().Group(name); !ok {
		return nil, fleet.NewError(fleet.ErrNotFound, "group", "node group %s does not exist", name)
	}
	if err := a.authorizeGroup(ctx, fleet.DutyOperating, name); err != nil {
		return nil, err
	}
	b := command.GroupRekey{Group: name, From: a.view().Epoch(name).Number, Cause: fleet.EpochRekey, Certificates: !in.Body.EpochOnly}
	e, err := propose[fleet.GroupEpoch](ctx, a, b)
	return &Body[fleet.GroupEpoch]{Body: e}, err
}
