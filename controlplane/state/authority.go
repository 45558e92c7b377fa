package state

import "github.com/edgefleet/edgefleet/fleet"

// Authorities has the certificate authorities that were asked for anything.
const Authorities Table = "authorities"

// Authority returns what is known of the authority with a directory.
func (v *View) Authority(directory string) fleet.Authority {
	a, _ := get[fleet.Authority](v, Authorities, indexID, directory)
	a.Directory = directory
	return a
}

// Authorities lists the authorities that were asked for anything.
func (v *View) Authorities() []fleet.Authority { return list[fleet.Authority](v, Authorities, indexID) }

// PutAuthority stores what is known of an authority.
func (t *Tx) PutAuthority(a fleet.Authority) { put(t, Authorities, a) }
