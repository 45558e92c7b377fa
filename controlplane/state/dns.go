package state

import (
	"slices"

	"github.com/edgefleet/edgefleet/fleet"
)

// Region returns what was decided about a region.
func (v *View) Region(n fleet.RegionName) (fleet.Region, bool) {
	return get[fleet.Region](v, Regions, indexID, string(n))
}

// Regions lists the regions of which something was decided.
func (v *View) Regions() []fleet.Region { return list[fleet.Region](v, Regions, indexID) }

// Withdrawn are the regions that are out of DNS.
func (v *View) Withdrawn() map[fleet.RegionName]*fleet.RegionWithdrawal {
	out := map[fleet.RegionName]*fleet.RegionWithdrawal{}
	for _, r := range v.Regions() {
		if r.Withdrawn != nil {
			out[r.Name] = r.Withdrawn
		}
	}
	return out
}

// DNSSet returns a set of nodes in DNS by its key.
func (v *View) DNSSet(key string) (fleet.DNSSet, bool) {
	return get[fleet.DNSSet](v, DNSSets, indexID, key)
}

// DNSSets lists the sets of nodes in DNS.
func (v *View) DNSSets() []fleet.DNSSet { return list[fleet.DNSSet](v, DNSSets, indexID) }

// NodesIn lists the nodes of a group in some regions; no regions means all.
func (v *View) NodesIn(g fleet.GroupName, regions []fleet.RegionName) []fleet.Node {
	return slices.DeleteFunc(v.NodesOf(g), func(n fleet.Node) bool {
		return len(regions) > 0 && !slices.Contains(regions, n.Spec.Region)
	})
}

// ChallengesOfHost lists the pending challenges of a host.
func (v *View) ChallengesOfHost(h fleet.HostName) []fleet.Challenge {
	return list[fleet.Challenge](v, Challenges, indexID+"_prefix", string(h), "")
}

// ChallengesOf lists the pending challenges of a host of one type.
func (v *View) ChallengesOf(h fleet.HostName, ty fleet.ChallengeType) []fleet.Challenge {
	return list[fleet.Challenge](v, Challenges, indexID+"_prefix", string(h), string(ty))
}

// PutRegion stores what was decided about a region.
func (t *Tx) PutRegion(r fleet.Region) { put(t, Regions, r) }

// PutDNSSet stores a set of nodes in DNS.
func (t *Tx) PutDNSSet(s fleet.DNSSet) { put(t, DNSSets, s) }

// DeleteDNSSet forgets a set of nodes in DNS.
func (t *Tx) DeleteDNSSet(key string) { del(t, DNSSets, indexID, key) }
