package state

import "github.com/edgefleet/edgefleet/fleet"

// HostOrigins returns what a host's Consul services stand for.
func (v *View) HostOrigins(n fleet.HostName) (fleet.HostOrigins, bool) {
	return get[fleet.HostOrigins](v, Origins, indexID, string(n))
}

// AllOrigins lists what the Consul services of all hosts stand for.
func (v *View) AllOrigins() []fleet.HostOrigins {
	return list[fleet.HostOrigins](v, Origins, indexID)
}

// PutOrigins stores what a host's Consul services stand for.
func (t *Tx) PutOrigins(o fleet.HostOrigins) { put(t, Origins, o) }

// DeleteOrigins forgets it.
func (t *Tx) DeleteOrigins(n fleet.HostName) { del(t, Origins, indexID, string(n)) }
