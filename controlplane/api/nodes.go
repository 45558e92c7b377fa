package api

import (
	"context"
	"net/http"

	"github.com/edgefleet/edgefleet/controlplane/client"
	"github.com/edgefleet/edgefleet/controlplane/command"
	"github.com/edgefleet/edgefleet/fleet"
)

func (a *API) registerNodes() {
	handle(a, op("node-list", http.MethodGet, "/v1/nodes", "Edge nodes", operators, fleet.PermNodesRead, fleet.DutyOperating), a.nodeList)
	handle(a, op("node-show", http.MethodGet, "/v1/nodes/{id}", "An edge node", operators, fleet.PermNodesRead, fleet.DutyOperating), a.nodeShow)
	handle(a, op("node-update", http.MethodPatch, "/v1/nodes/{id}", "Cordon or uncordon a node, or change its region", operators, fleet.PermNodesWrite, fleet.DutyOperating).changes(command.TypeNodePut).withRevision(), a.nodeUpdate)
	handle(a, op("node-revoke", http.MethodDelete, "/v1/nodes/{id}", "End a node's identity for ever", operators, fleet.PermNodesWrite, fleet.DutyOperating).changes(command.TypeNodeRevoke), a.nodeRevoke)
	handle(a, op("group-put", http.MethodPut, "/v1/groups/{name}", "Make a node group, or change one", operators, fleet.PermNodesWrite, fleet.DutyOperating).changes(command.TypeGroupPut).withRevision(), a.groupPut)
	handle(a, op("group-show", http.MethodGet, "/v1/groups/{name}", "A node group", operators, fleet.PermNodesRead, fleet.DutyOperating), a.groupShow)
	handle(a, op("group-list", http.MethodGet, "/v1/groups", "Node groups", operators, fleet.PermNodesRead, fleet.DutyOperating), a.groupList)
	a.registerGroupKeys()
}

func (a *API) nodeList(_ context.Context, in *ListQuery) (*Body[client.Page[fleet.Node]], error) {
	return page(a.view().NodesAfter(in.Cursor, in.Limit+1), in.Limit, func(n fleet.Node) string { return string(n.ID) }), nil
}

// IDRead names an object to read.
type IDRead struct {
	IDPath
	ReadQuery
}

func (a *API) node(id string) (fleet.Node, error) {
	n, ok := a.view().Node(fleet.NodeID(id))
	if !ok {
		return n, fleet.NewError(fleet.ErrNotFound, "node", "node %s does not exist", id)
	}
	return n, nil
}

func (a *API) nodeShow(_ context.Context, in *IDRead) (*Body[fleet.Node], error) {
	n, err := a.node(in.ID)
	return &Body[fleet.Node]{Body: n}, err
}

// NodeUpdateInput changes a node.
type NodeUpdateInput struct {
	IDPath
	Body client.NodeUpdate
}

func (a *API) nodeUpdate(ctx context.Context, in *NodeUpdateInput) (*Body[fleet.Node], error) {
	n, err := amend(ctx, func() (fleet.Node, error) {
		n, err := a.node(in.ID)
		if err != nil {
			return n, err
		}
		if err := a.authorizeGroup(ctx, fleet.DutyOperating, n.Spec.Group); err != nil {
			return n, err
		}
		set(&n.Spec.Cordoned, in.Body.Cordoned)
		set(&n.Spec.Region, in.Body.Region)
		set(&n.Spec.Weight, in.Body.Weight)
		return propose[fleet.Node](ctx, a, command.NodePut{Put: conditionOn(ctx, n.Meta), ID: n.ID, Spec: n.Spec})
	})
	return &Body[fleet.Node]{Body: n}, err
}

func (a *API) nodeRevoke(ctx context.Context, in *IDPath) (*Body[Empty], error) {
	n, err := a.node(in.ID)
	if err != nil {
		return nil, err
	}
	if err := a.authorizeGroup(ctx, fleet.DutyOperating, n.Spec.Group); err != nil {
		return nil, err
	}
	_, err = propose[any](ctx, a, command.NodeRevoke{ID: n.ID})
	return &Body[Empty]{}, err
}

func (a *API) groupList(_ context.Context, _ *ReadQuery) (*Body[client.Page[fleet.Group]], error) {
	return &Body[client.Page[fleet.Group]]{Body: client.Page[fleet.Group]{Items: a.view().Groups()}}, nil
}

// GroupPath names a node group.
type GroupPath struct {
	Name string `path:"name" maxLength:"63" doc:"node group"`
}

// GroupPutInput makes or changes a node group.
type GroupPutInput struct {
	GroupPath
	Body fleet.GroupSpec
}

func (a *API) groupPut(ctx context.Context, in *GroupPutInput) (*Body[fleet.Group], error) {
	name := fleet.GroupName(in.Name)
	if _, there := a.view().Group(name); there {
		if err := a.authorizeGroup(ctx, fleet.DutyOperating, name); err != nil {
			return nil, err
		}
	}
	g, err := propose[fleet.Group](ctx, a, command.GroupPut{Put: condition(ctx), Name: name, Spec: in.Body})
	return &Body[fleet.Group]{Body: g}, err
}

// GroupRead names a node group to read.
type GroupRead struct {
	GroupPath
	ReadQuery
}

func (a *API) groupShow(_ context.Context, in *GroupRead) (*Body[fleet.Group], error) {
	g, ok := a.view().Group(fleet.GroupName(in.Name))
	if !ok {
		return nil, fleet.NewError(fleet.ErrNotFound, "group", "node group %s does not exist", in.Name)
	}
	return &Body[fleet.Group]{Body: g}, nil
}
