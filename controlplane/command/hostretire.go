package command

import "github.com/edgefleet/edgefleet/fleet"

// HostRetire begins the end of a host: its certificate, keys, orders and challenges are gone at once, its label is never
// issued again, and its name stays the tenant's until HostDelete, when no edge has it any more. Answers fleet.Host.
type HostRetire struct {
	Name       fleet.HostName `json:"name"`
	Tenant     fleet.TenantID `json:"tenant"`
	IfRevision uint64         `json:"if_revision,omitempty"`
}

// Type implements Body.
func (HostRetire) Type() Type { return TypeHostRetire }
