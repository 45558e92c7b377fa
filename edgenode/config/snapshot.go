package config

import (
	"net/netip"

	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/fleet/rules"
)

// Host is one protected host as the proxy uses it. It is immutable once published.
type Host struct {
	Name   fleet.HostName
	Tenant fleet.TenantID
	Mode   fleet.Mode
	// Origins has at least one entry.
	Origins []fleet.Endpoint
	// AllowedOrigins are the tenant's private address ranges that an operator opened; they are checked again when dialling.
	AllowedOrigins []netip.Prefix
	// Rules are the tenant's compiled rules; nil when the tenant has none.
	Rules *rules.Set
}

// ChallengeKey names an HTTP-01 challenge: only tokens in the table are answered by the edge.
type ChallengeKey struct {
	Host  fleet.HostName
	Token string
}

// Snapshot is everything that a request needs to know. It is immutable and replaced as a whole.
type Snapshot struct {
	Hosts map[fleet.HostName]*Host
	// Challenges holds the body of each HTTP-01 answer.
	Challenges map[ChallengeKey]string
	// Versions are the heads that the snapshot was made of; a kind that was never applied is absent.
	Versions map[fleet.HeadKind]fleet.Version
}
