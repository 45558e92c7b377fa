package controlplane

import (
	"context"
	"net/url"
	"strconv"

	"github.com/edgefleet/edgefleet/controlplane/client"
	"github.com/edgefleet/edgefleet/controlplane/events"
	"github.com/edgefleet/edgefleet/fleet"
)

// eventPeers asks the other members for events, with this member's certificate.
type eventPeers struct{ m *member }

// Others lists the members but this one.
func (p eventPeers) Others() (ids []fleet.MemberID) {
	for _, other := range p.m.state.Read().Members() {
		if other.ID != p.m.c.Member {
			ids = append(ids, other.ID)
		}
	}
	return ids
}

// Held is a page of how far a member holds each boot.
func (p eventPeers) Held(ctx context.Context, id fleet.MemberID, after events.Held) ([]events.Held, error) {
	q := url.Values{}
	if after.Node != "" {
		q = url.Values{"node": {string(after.Node)}, "boot": {after.Boot}}
	}
	page, err := askPeer[client.Page[events.Held]](ctx, p.m, id, "/v1/cluster/events/held", q)
	return page.Items, err
}

// Part is what a member holds of a span.
func (p eventPeers) Part(ctx context.Context, id fleet.MemberID, s events.Span) (events.Part, error) {
	q := url.Values{"node": {string(s.Node)}, "boot": {s.Boot}, "from": {strconv.FormatUint(s.From, 10)}, "to": {strconv.FormatUint(s.To, 10)}}
	return askPeer[events.Part](ctx, p.m, id, "/v1/cluster/events/part", q)
}

func askPeer[T any](ctx context.Context, m *member, id fleet.MemberID, path string, q url.Values) (answer T, err error) {
	c, err := m.peer(id)
	if err != nil {
		return answer, err
	}
	defer c.Close()
	return client.Get[T](ctx, c, path, q)
}
