package api

import (
	"hash/maphash"
	"strings"
	"sync"

	"golang.org/x/net/publicsuffix"

	"github.com/edgefleet/edgefleet/fleet"
)

// claims lets one request at a time claim names of one registered domain: whether a name may be claimed depends on those
// above it, and on those below it, which the state machine looks at. Only the leader serves claims.
type claims struct {
	seed  maphash.Seed
	locks [64]sync.Mutex
}

func newClaims() *claims { return &claims{seed: maphash.MakeSeed()} }

func (c *claims) lock(n fleet.HostName) (unlock func()) {
	domain, err := publicsuffix.EffectiveTLDPlusOne(strings.TrimPrefix(string(n), "*."))
	if err != nil {
		domain = string(n) // a suffix itself, which is refused before
	}
	m := &c.locks[maphash.String(c.seed, domain)%uint64(len(c.locks))]
	m.Lock()
	return m.Unlock
}

// mayClaim refuses a name of which a parent, or a wildcard over it, belongs to another tenant, without saying to whom.
func (a *API) mayClaim(n fleet.HostName, tenant fleet.TenantID) error {
	v := a.view()
	for above := string(n); ; {
		_, rest, more := strings.Cut(above, ".")
		if !more {
			return nil
		}
		for _, name := range []fleet.HostName{fleet.HostName(rest), fleet.HostName("*." + rest)} {
			if h, ok := v.Host(name); ok && h.Tenant != tenant {
				return fleet.NewError(fleet.ErrConflict, "host", "%s: %s, or a name above it, is protected already by another account; if it is yours, contact support with proof of ownership", fleet.ReasonClaimedElsewhere, n)
			}
		}
		above = rest
	}
}
