package fleet

import (
	"fmt"
	"strings"
)

// Identifiers are distinct types so that a tenant cannot be passed where a node is meant. All but HostName have
// the shape checked by validID: 1 to 63 characters of a-z, 0-9 and '-', starting and ending with a letter or
// digit, so that each is also a valid DNS label, NATS token and file name.
type (
	// ClusterID names one control plane for ever; it is the trust domain of its SPIFFE IDs.
	ClusterID string
	// MemberID names one control-plane member.
	MemberID string
	// TenantID names a customer.
	TenantID string
	// NodeID names one edge node: an edge process and its host.
	NodeID string
	// GroupName names a node group: nodes that share desired state.
	GroupName string
	// RegionName names a locality of nodes.
	RegionName string
	// RuleID names a rule within the cluster.
	RuleID string
	// TokenID names an API or join token; it is not secret.
	TokenID string
	// OrderID names one certificate order.
	OrderID string
	// EventID names one attack event: node, boot and sequence number, so that a resend is recognised.
	EventID string
)

// DefaultGroup and DefaultRegion serve a fleet that never names its own.
const (
	DefaultGroup  GroupName  = "default"
	DefaultRegion RegionName = "default"
)

// ValidateID reports whether s has the shape of an identifier; what names the field in the error.
func ValidateID[T ~string](what string, s T) error {
	if !validID(string(s)) {
		return Invalid(what, "%q is not a valid %s: use 1 to 63 of a-z, 0-9 and '-', starting and ending with a letter or digit", string(s), what)
	}
	return nil
}

func validID(s string) bool {
	if len(s) == 0 || len(s) > 63 || s[0] == '-' || s[len(s)-1] == '-' {
		return false
	}
	for i := range len(s) {
		c := s[i]
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return false
		}
	}
	return true
}

// NewEventID builds the id of the event with sequence number seq of the given boot of a node.
func NewEventID(node NodeID, boot string, seq uint64) EventID {
	return EventID(fmt.Sprintf("%s:%s:%d", node, boot, seq))
}

// SPIFFE IDs (https://spiffe.io, X.509-SVID): spiffe://<cluster>/member/<id> and spiffe://<cluster>/node/<id>.
const (
	spiffeMember = "member"
	spiffeNode   = "node"
)

// MemberSPIFFE is the URI SAN of a member's certificate.
func MemberSPIFFE(c ClusterID, m MemberID) string {
	return "spiffe://" + string(c) + "/" + spiffeMember + "/" + string(m)
}

// NodeSPIFFE is the URI SAN of a node's certificate.
func NodeSPIFFE(c ClusterID, n NodeID) string {
	return "spiffe://" + string(c) + "/" + spiffeNode + "/" + string(n)
}

// Identity is what a certificate of this cluster says about its holder: exactly one of Member and Node is set.
type Identity struct {
	Cluster ClusterID
	Member  MemberID
	Node    NodeID
	// Join is the join token by which a member came, if its certificate says so; see Member.Join.
	Join TokenID
}

// ParseSPIFFE reads the identity from a URI SAN. Anything but the two shapes above is ErrDenied.
func ParseSPIFFE(uri string) (Identity, error) {
	rest, ok := strings.CutPrefix(uri, "spiffe://")
	parts := strings.Split(rest, "/")
	if !ok || len(parts) != 3 || !validID(parts[0]) || !validID(parts[2]) {
		return Identity{}, fmt.Errorf("%w: %q is not an identity of an Edgefleet cluster", ErrDenied, uri)
	}
	id := Identity{Cluster: ClusterID(parts[0])}
	switch parts[1] {
	case spiffeMember:
		id.Member = MemberID(parts[2])
	case spiffeNode:
		id.Node = NodeID(parts[2])
	default:
		return Identity{}, fmt.Errorf("%w: %q names neither a member nor a node", ErrDenied, uri)
	}
	return id, nil
}
