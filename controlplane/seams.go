package controlplane

import (
	"crypto/tls"

	"github.com/edgefleet/edgefleet/controlplane/api"
	"github.com/edgefleet/edgefleet/controlplane/consensus"
	"github.com/edgefleet/edgefleet/fleet"
)

// Consensus is Raft as a member's API and loops see it. Run makes its own; fault tests put members together themselves.
func Consensus(node *consensus.Node, member fleet.MemberID, raftTLS *tls.Config) api.Consensus {
	return proposer{node: node, member: member, raftTLS: raftTLS}
}
