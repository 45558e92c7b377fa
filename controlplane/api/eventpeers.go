package api

import (
	"context"
	"net/http"

	"github.com/edgefleet/edgefleet/controlplane/client"
	"github.com/edgefleet/edgefleet/controlplane/events"
	"github.com/edgefleet/edgefleet/fleet"
)

// registerEventPeers registers what members repair their event stores with.
func (a *API) registerEventPeers() {
	handle(a, op("events-held", http.MethodGet, "/v1/cluster/events/held", "How far this member's event store holds each boot of a node", membersOnly, fleet.PermMember, fleet.DutyCloud).locally(), a.eventsHeld)
	handle(a, op("events-part", http.MethodGet, "/v1/cluster/events/part", "A member fetches events that it missed, by node, boot and sequence numbers", membersOnly, fleet.PermMember, fleet.DutyCloud).locally(), a.eventsPart)
}

// HeldQuery is where a page of boots begins.
type HeldQuery struct {
	Node string `query:"node" maxLength:"63" doc:"after this boot: its node"`
	Boot string `query:"boot" maxLength:"63" doc:"after this boot"`
}

func (a *API) eventsHeld(ctx context.Context, in *HeldQuery) (*Body[client.Page[events.Held]], error) {
	page, err := a.o.Events.Held(ctx, events.Held{Node: fleet.NodeID(in.Node), Boot: in.Boot})
	return &Body[client.Page[events.Held]]{Body: client.Page[events.Held]{Items: page}}, err
}

// PartQuery names events.
type PartQuery struct {
	Node string `query:"node" required:"true" maxLength:"63" doc:"node id"`
	Boot string `query:"boot" required:"true" maxLength:"63" doc:"boot of the node"`
	From uint64 `query:"from" required:"true" minimum:"1" doc:"first sequence number"`
	To   uint64 `query:"to" required:"true" minimum:"1" doc:"last; the answer may end before it"`
}

func (a *API) eventsPart(ctx context.Context, in *PartQuery) (*Body[events.Part], error) {
	part, err := a.o.Events.Part(ctx, events.Span{Node: fleet.NodeID(in.Node), Boot: in.Boot, From: in.From, To: in.To})
	return &Body[events.Part]{Body: part}, err
}
