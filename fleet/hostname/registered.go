package hostname

import (
	"strings"

	"golang.org/x/net/publicsuffix"

	"github.com/edgefleet/edgefleet/fleet"
)

// Registered is the domain that a party registered to have the name h, as example.co.uk is of *.api.example.co.uk. It is
// what certificate authorities count by. A name that is itself a public suffix is its own.
func Registered(h fleet.HostName) string {
	name := strings.TrimPrefix(string(h), "*.")
	if domain, err := publicsuffix.EffectiveTLDPlusOne(name); err == nil {
		return domain
	}
	return name
}
