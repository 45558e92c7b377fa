package issuance

import (
	"context"

	"github.com/edgefleet/edgefleet/fleet"
)

// Identity is whom CAA records have to allow, as the CA's directory says, else as configured, with the URI of our account
// (RFC 8657) once there is one; no domains if nobody says. Without the CA it is what was configured, if anything was.
func (i *Issuer) Identity(ctx context.Context) (fleet.CAIdentity, error) {
	id := fleet.CAIdentity{Domains: i.o.CAA}
	f := &flow{issuer: i}
	d, err := i.dir(ctx)
	switch {
	case err != nil && len(i.o.CAA) == 0:
		return id, f.explain(ctx, err)
	case err == nil && d.Meta != nil && len(d.Meta.CAAIdentities) > 0:
		id.Domains = d.Meta.CAAIdentities
	}
	i.mu.Lock()
	id.Account = i.location
	i.mu.Unlock()
	if id.Account == "" {
		a, _, err := f.loadAccount(ctx)
		if err != nil {
			return id, err
		}
		id.Account = a.Location
		i.at(a.Location)
	}
	return id, nil
}

// at remembers the URI of the account.
func (i *Issuer) at(location string) {
	i.mu.Lock()
	i.location = location
	i.mu.Unlock()
}
