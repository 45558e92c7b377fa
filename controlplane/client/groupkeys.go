package client

import (
	"time"

	"github.com/edgefleet/edgefleet/fleet"
)

type (
	// GroupKeys says where the keys of a node group stand. It holds no key.
	GroupKeys struct {
		fleet.GroupEpoch
		Next    time.Time `json:"next" doc:"when the next epoch begins, unless a node is revoked before"`
		Waiting int       `json:"waiting" doc:"certificates that are still to be renewed with a new private key, since somebody asked for that"`
	}
	// GroupRekey begins a new epoch of a group's keys.
	GroupRekey struct {
		EpochOnly bool `json:"epoch_only,omitempty" doc:"begin a new epoch and leave the private keys of certificates as they are"`
	}
)
