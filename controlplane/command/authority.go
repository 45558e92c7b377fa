package command

import "github.com/edgefleet/edgefleet/fleet"

// AuthorityObserve stores whether a certificate authority may be asked; what was ordered of it is counted by
// OrderProgress and stays. Answers fleet.Authority.
type AuthorityObserve struct {
	Authority fleet.Authority `json:"authority"`
}

// Type implements Body.
func (AuthorityObserve) Type() Type { return TypeAuthorityObserve }
