// Package dns is the authoritative name server of the edge zone: it answers for the labels of hosts with the addresses
// of healthy edges, and for their DCV names (domain control validation) with the answers to ACME DNS-01 challenges.
//
// It owns the wire protocol, its limits, which nodes are in DNS (Advance, Serving), transfers to secondaries and pushes to
// an outside primary. It does not own what it answers: that comes from a Source over the member's local state, so that
// names resolve without a Raft leader or quorum and never wait for one. Every member serves the same zone. Dynamic updates
// and recursion are refused, and transfers to whom is not listed.
package dns

import (
	"iter"
	"net/netip"

	"github.com/edgefleet/edgefleet/fleet"
)

// NameServer is one address of one of the zone's name servers.
type NameServer struct {
	// Name is below the zone for a member, such as m1.ns.edge.example, and anywhere for a secondary.
	Name fleet.HostName
	// Addr is the zero address for one whose addresses are not in the zone.
	Addr netip.Addr
}

// Edge is one node's part in an answer.
type Edge struct {
	Addrs []netip.Addr
	// Weight is at least 1.
	Weight int
}

// Apex is what is true of the whole zone.
type Apex struct {
	// Zone is empty while there is none, because the cluster was not initialised.
	Zone fleet.HostName
	// Servers are the zone's name servers; one with several addresses appears several times.
	Servers []NameServer
	// Serial grows when the zone may have changed, and never goes back.
	Serial uint32
	// CAA are the values of issue properties (RFC 8659), such as "ca.example; accounturi=https://ca.example/acct/1".
	CAA []string
}

// Source is what the zone contains now. Its methods are called concurrently, answer from local memory, and never block.
// What they return is shared and must not be changed.
type Source interface {
	Apex() Apex
	// Zone is the zone of Apex.
	Zone() fleet.HostName
	// Label returns the edges that serve the host that a label was issued to: Serving of its set. ok means that the label
	// exists, also without edges.
	Label(label string) (edges []Edge, ok bool)
	// DCV returns the TXT values of the pending DNS-01 challenges of the label's host; ok means that the label exists. current
	// is false when this member may not know the newest: another one has to be asked.
	DCV(label string) (values []string, ok, current bool)
	// Labels yields every label that exists.
	Labels() iter.Seq[string]
}
