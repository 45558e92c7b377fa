package command

import "github.com/edgefleet/edgefleet/fleet"

type (
	// RegionPut takes a region's nodes out of DNS, or lets them back. Answers fleet.Region.
	RegionPut struct {
		Name     fleet.RegionName `json:"name"`
		Withdraw bool             `json:"withdraw,omitempty"`
		// Force withdraws also where nothing else is left.
		Force bool `json:"force,omitempty"`
		// IfRevision refuses a region whose revision differs; 0 does not look.
		IfRevision uint64 `json:"if_revision,omitempty"`
	}
	// DNSSetsPut stores which nodes are in DNS, and forgets the sets of Gone. A set that changed since Revision was read is
	// passed over: the leader looks again.
	DNSSetsPut struct {
		Sets []fleet.DNSSet `json:"sets,omitempty"`
		Gone []string       `json:"gone,omitempty"`
	}
)

// Type implements Body.
func (RegionPut) Type() Type { return TypeRegionPut }

// Type implements Body.
func (DNSSetsPut) Type() Type { return TypeDNSSetsPut }
