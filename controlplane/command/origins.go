package command

import "github.com/edgefleet/edgefleet/fleet"

type (
	// HostPutConsul writes a host's spec as HostPut does. Its origins may be Consul services, which HostPut refuses.
	HostPutConsul struct {
		HostPut
	}
	// OriginsResolve stores what Consul services stand for, host by host. A host that has changed since is passed over.
	OriginsResolve struct {
		Hosts []fleet.HostOrigins `json:"hosts"`
	}
)

// Type implements Body.
func (HostPutConsul) Type() Type { return TypeHostPutConsul }

// Type implements Body.
func (OriginsResolve) Type() Type { return TypeOriginsResolve }
