package edgenode

import (
	"net"

	"github.com/edgefleet/edgefleet/edgenode/identity"
	"github.com/edgefleet/edgefleet/edgenode/settings"
	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/observability"
)

// Options are what a worker needs. All fields are required but Admin, Ready and Stop.
type Options struct {
	Settings settings.Settings
	Identity *identity.Identity
	// HTTPS and HTTP are the listeners that clients reach; Run closes them.
	HTTPS, HTTP net.Listener
	// Admin serves metrics and health; nil for none.
	Admin net.Listener
	// Boot names this worker's life: its events are numbered within it.
	Boot string
	// Instance names the supervisor's life; empty if it did not say.
	Instance string
	// Stop closes when the node is asked to stop: Run then goes on serving for Settings.LeaveDNS, so that DNS and resolvers
	// forget the node, before it drains. Optional; the end of its context drains at once.
	Stop <-chan struct{}
	// Ready is called once, when requests are served.
	Ready     func() error
	Telemetry *observability.Telemetry
}

func (o Options) validate() error {
	switch {
	case o.Identity == nil || o.Telemetry == nil:
		return fleet.Invalid("options", "a worker needs its identity and telemetry")
	case o.HTTPS == nil || o.HTTP == nil:
		return fleet.Invalid("options", "a worker needs its listeners for https and http")
	}
	return fleet.ValidateID("boot", o.Boot)
}
