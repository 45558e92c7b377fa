package client

import (
	"time"

	"github.com/edgefleet/edgefleet/fleet"
)

type (
	// RegionStatus is a region and its nodes; a region is there while a node is in it, or something was decided about it.
	RegionStatus struct {
		fleet.Region
		// Nodes are in the region, not revoked; Healthy of them answer requests, and DNS answers with InDNS of them.
		Nodes   int `json:"nodes"`
		Healthy int `json:"healthy"`
		InDNS   int `json:"in_dns"`
	}

	// RegionWithdraw takes a region out of DNS.
	RegionWithdraw struct {
		// Force withdraws also where nothing else is left.
		Force bool `json:"force,omitempty" doc:"also where nothing else is left: such hosts have no address meanwhile"`
	}

	// Zone is the edge zone as the member that answers serves it.
	Zone struct {
		Member fleet.MemberID `json:"member"`
		Zone   fleet.HostName `json:"zone"`
		Serial uint32         `json:"serial"`
		// NameServers are published; CAA are the values of the zone's CAA records.
		NameServers []ZoneNameServer `json:"name_servers"`
		CAA         []string         `json:"caa,omitempty"`
		// Labels counts the names of hosts in it.
		Labels int `json:"labels"`
		// Sets are the nodes that DNS answers with, for each group and combination of regions.
		Sets []fleet.DNSSet `json:"sets"`
		// Secondaries may transfer the zone from this member.
		Secondaries []ZonePeer `json:"secondaries,omitempty"`
		// Push is the outside primary that the leader writes to.
		Push *ZonePeer `json:"push,omitempty"`
	}

	// ZoneNameServer is one address of a name server of the zone; none for one that is outside it.
	ZoneNameServer struct {
		Name    fleet.HostName `json:"name"`
		Address string         `json:"address,omitempty"`
	}

	// ZonePeer is how this member stands with another name server.
	ZonePeer struct {
		Address string `json:"address"`
		// Serial is what it was told or given last, at At.
		Serial uint32    `json:"serial,omitempty"`
		At     time.Time `json:"at,omitzero"`
		// Error is why the last attempt did not succeed.
		Error string `json:"error,omitempty"`
	}
)
