package fleet

import (
	"slices"
	"strings"
	"time"
)

// Region is what was decided about one region; regions of which nothing was decided have none.
type Region struct {
	Name RegionName `json:"name"`
	// Withdrawn is set while the region's nodes are out of DNS.
	Withdrawn *RegionWithdrawal `json:"withdrawn,omitempty"`
	Meta
}

// RegionWithdrawal says since when and why a region is out of DNS.
type RegionWithdrawal struct {
	At     time.Time `json:"at"`
	Reason string    `json:"reason,omitempty"`
	// Forced: also where nothing else is left; such hosts have no address meanwhile.
	Forced bool `json:"forced,omitempty"`
}

// DNSSet is the nodes that DNS answers with for the hosts of one group, or of some regions of it: the last good set.
type DNSSet struct {
	// Key is DNSSetKey of the two that follow.
	Key     string       `json:"key"`
	Group   GroupName    `json:"group"`
	Regions []RegionName `json:"regions,omitempty"`
	// Nodes are in the set, sorted.
	Nodes []NodeID `json:"nodes,omitempty"`
	// Out are nodes that were in the set and left it, sorted; others join it as soon as they are healthy.
	Out []DNSOut `json:"out,omitempty"`
	// Held is set while more than half of the nodes that should serve are not healthy: nobody leaves the set then.
	Held *DNSHold `json:"held,omitempty"`
	Meta
}

// DNSOut is a node that left a set.
type DNSOut struct {
	Node NodeID    `json:"node"`
	At   time.Time `json:"at"`
	// Why is one of the DNSOut codes.
	Why string `json:"why"`
	// Returns is when it is back, if it stays healthy until then: it bakes.
	Returns time.Time `json:"returns,omitzero"`
}

// Why a node left DNS.
const (
	DNSOutDown       = "down"
	DNSOutNotServing = "not_serving"
	DNSOutCordoned   = "cordoned"
	DNSOutLocked     = "locked"
	DNSOutRegion     = "region_withdrawn"
)

// DNSHold is a panic threshold that was reached.
type DNSHold struct {
	Since time.Time `json:"since"`
	// Healthy of Should nodes that should serve were healthy when it was looked at last.
	Healthy int `json:"healthy"`
	Should  int `json:"should"`
}

// DNSSetKey names a set: the group, and its regions if they are not all.
func DNSSetKey(g GroupName, regions []RegionName) string {
	names := slices.Compact(slices.Sorted(slices.Values(regions)))
	return strings.Join(append([]string{string(g)}, asStrings(names)...), "/")
}

// Limits of sets.
const (
	// MaxDNSSets bounds the sets that are kept; hosts of further combinations of regions are answered without memory.
	MaxDNSSets = 1024
	// MaxNodeWeight bounds a node's weight, DefaultNodeWeight is that of a node that has none.
	MaxNodeWeight     = 100
	DefaultNodeWeight = 10
)

// Share is the node's weight in answers.
func (s NodeSpec) Share() int {
	if s.Weight == 0 {
		return DefaultNodeWeight
	}
	return s.Weight
}

// Validate checks the invariants of s.
func (s DNSSet) Validate() error {
	if s.Key != DNSSetKey(s.Group, s.Regions) || len(s.Regions) > MaxRegionsPerHost {
		return Invalid("dns_set", "%.80q is not the set of group %s and regions %s", s.Key, s.Group, strings.Join(asStrings(s.Regions), ", "))
	}
	return ValidateID("group", s.Group)
}

func asStrings[T ~string](in []T) []string {
	out := make([]string, len(in))
	for i, v := range in {
		out[i] = string(v)
	}
	return out
}

// Healthy reports whether a node is heard from and answers requests.
func (n Node) Healthy() bool { return n.Observed.State == NodeUp && n.Observed.Serving }

// WantedInDNS is whether a node should be in DNS, apart from its health and its region: why it should not, if not. known
// is false for a node that was revoked or was never heard from.
func (n Node) WantedInDNS(withdrawn map[RegionName]*RegionWithdrawal) (why string, known bool) {
	switch {
	case !n.Identity.RevokedAt.IsZero(), n.Observed.State == NodeEnrolled, n.Observed.State == "":
		return "", false
	case n.Lock != nil:
		return DNSOutLocked, true
	case n.Spec.Cordoned:
		return DNSOutCordoned, true
	case withdrawn[n.Spec.Region] != nil:
		return DNSOutRegion, true
	}
	return "", true
}
