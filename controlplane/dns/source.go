// Package dns is the authoritative name server of the edge zone: it answers for the labels of hosts with the addresses
// of healthy edges, and for their DCV names (domain control validation) with the answers to ACME DNS-01 challenges.
//
// It owns the wire protocol, its limits and the panic threshold of withdrawals. It does not own what it answers: that
// comes from a Source over the member's local state, so that names resolve without a Raft leader or quorum and never
// wait for one. Every member serves the same zone. Zone transfers, dynamic updates and recursion are refused.
package dns

import (
	"net/netip"

	"github.com/edgefleet/edgefleet/fleet"
)

// NameServer is one of the zone's name servers.
type NameServer struct {
	// Name is below the zone, such as ns1.edge.example.
	Name fleet.HostName
	Addr netip.Addr
}

// Source is what the zone contains now. Its methods are called concurrently, answer from local memory, and never block.
type Source interface {
	// Zone is the edge zone.
	Zone() fleet.HostName
	// Label returns the host that a label was issued to and the addresses of the edges that serve it: healthy and not
	// cordoned, in the host's group and regions, with the panic threshold (see Healthy) already applied. ok means that
	// the label exists, also without addresses.
	Label(label string) (host fleet.HostName, addrs []netip.Addr, ok bool)
	// DCV returns the TXT values of the pending DNS-01 challenges of the label's host; ok means that the label exists.
	DCV(label string) (values []string, ok bool)
	// Servers are the zone's name servers; one with several addresses appears several times.
	Servers() []NameServer
	// Serial grows when the zone may have changed: the index of the state.
	Serial() uint32
}

// Healthy returns the nodes whose addresses DNS may answer with: heard from, serving, neither cordoned, locked nor revoked.
//
// Two rules keep the zone from going dark by mistake. When more than half of the nodes that should serve would be
// withdrawn at once, nobody is: that many failures are more likely ours (a cut between control plane and edge) than
// theirs, and edges serve without us. And a cordon that would leave nobody at all is not honoured.
func Healthy(nodes []fleet.Node) []fleet.Node {
	var cordoned, should, up []fleet.Node
	for _, n := range nodes {
		if !n.Identity.RevokedAt.IsZero() || n.Observed.State == fleet.NodeEnrolled || n.Observed.State == "" {
			continue
		}
		if n.Spec.Cordoned || n.Lock != nil {
			cordoned = append(cordoned, n)
			continue
		}
		should = append(should, n)
		if n.Observed.State == fleet.NodeUp && n.Observed.Serving {
			up = append(up, n)
		}
	}
	switch {
	case len(should) == 0:
		return cordoned
	case 2*len(up) < len(should):
		return should
	}
	return up
}
