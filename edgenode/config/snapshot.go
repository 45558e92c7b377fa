package config

import (
	"crypto/tls"
	"crypto/x509"
	"net/netip"
	"strings"

	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/fleet/rules"
	"github.com/edgefleet/edgefleet/tls/keyring"
)

// Host is one protected host as the proxy uses it. It is immutable once published.
type Host struct {
	Name   fleet.HostName
	Tenant fleet.TenantID
	// Mode is what is set for the host; the tenant's rules may set another for a request.
	Mode fleet.Mode
	// Origins has at least one entry.
	Origins []fleet.Endpoint
	// AllowedOrigins are the tenant's private address ranges that an operator opened; they are checked again when dialling.
	AllowedOrigins []netip.Prefix
	// MinVersion is the oldest version of TLS; 0 is the edge's own.
	MinVersion uint16
	// HSTS is the value of Strict-Transport-Security; empty for none of the edge's.
	HSTS string
	// ClientPolicy names what clients have to show: hosts of a tenant with the same one ask for the same. It is empty where
	// clients show nothing; else ClientAuth says whether they must, and ClientCAs verify it.
	ClientPolicy string
	ClientAuth   fleet.ClientAuth
	ClientCAs    *x509.CertPool
	// Plain: plain HTTP is served, and not redirected.
	Plain bool
	// Forwarding is how requests reach the origins.
	Forwarding fleet.Forwarding
	// OriginCerts are shown to origins that ask for a certificate.
	OriginCerts *OriginCerts
	// Rules are the tenant's compiled rules; nil when the tenant has none.
	Rules *rules.Set
	// RulesMissing: the tenant's bundle of rules could not be loaded, so that nothing is known of them.
	RulesMissing bool
	// FailPolicy is what becomes of requests that could not be judged.
	FailPolicy fleet.FailPolicy
}

// ChallengeKey names an HTTP-01 challenge: only tokens in the table are answered by the edge.
type ChallengeKey struct {
	Host  fleet.HostName
	Token string
}

// Snapshot is everything that a request needs to know. It is immutable and replaced as a whole.
type Snapshot struct {
	// Hosts are by their names, exact or wildcards such as *.example.com; Host finds one by the name that a client wrote.
	Hosts map[fleet.HostName]*Host
	// Challenges holds the body of each HTTP-01 answer.
	Challenges map[ChallengeKey]string
	// Validations are the certificates of TLS-ALPN-01 answers, which only the handshake of a CA gets to see.
	Validations map[fleet.HostName]*tls.Certificate
	// Versions are the heads that the snapshot was made of; a kind that was never applied is absent.
	Versions map[fleet.HeadKind]fleet.Version
	// GroupKey is that of the newest epoch that the node was given; its Epoch is 0 before the first. Session-ticket keys
	// are derived from it.
	GroupKey keyring.GroupKey
}

// Host finds the host that serves a canonical name: the one with that name, else the wildcard above it, which stands for
// one label. Nil if there is none.
func (s *Snapshot) Host(name fleet.HostName) *Host {
	if h := s.Hosts[name]; h != nil {
		return h
	}
	label, parent, found := strings.Cut(string(name), ".")
	if !found || label == "" || label == "*" {
		return nil
	}
	return s.Hosts[fleet.HostName("*."+parent)]
}
