package fleet

import (
	"strings"
	"time"
)

const (
	// MaxOriginChainBytes bounds the chain of a certificate that is shown to an origin, in PEM.
	MaxOriginChainBytes = 16 << 10
	// MaxOriginKeyBytes bounds its key.
	MaxOriginKeyBytes = 8 << 10
	// MaxTenantOriginCertBytes bounds those chains of all of a tenant's hosts: they travel in one bundle (MaxBundleBytes).
	MaxTenantOriginCertBytes = 2 << 20
)

// OriginCert is the certificate that nodes show to one of a host's origins.
type OriginCert struct {
	Host   HostName `json:"host"`
	Tenant TenantID `json:"tenant"`
	// Origin is the URL of the origin, as it stands in the host's spec.
	Origin string `json:"origin"`
	// Generation counts the certificates that the origin had, from 1.
	Generation uint64 `json:"generation"`
	// Chain is PEM, leaf first.
	Chain string `json:"chain"`
	// SPKI is the SHA-256 of the subject public key info, hex.
	SPKI      string    `json:"spki"`
	Serial    string    `json:"serial"`
	Subject   string    `json:"subject"`
	Issuer    string    `json:"issuer"`
	NotBefore time.Time `json:"not_before"`
	NotAfter  time.Time `json:"not_after"`
	Meta
}

// OriginCertRecord is that certificate with its key (PKCS #8 DER, sealed by the KEK).
type OriginCertRecord struct {
	OriginCert
	Key Sealed `json:"key"`
}

// BundleOriginCert is what nodes get of it; the key is sealed by the group key.
type BundleOriginCert struct {
	Host HostName `json:"host"`
	// Origin is as in OriginCert; Servers are the URLs that it stands for where it is a Consul service.
	Origin     string   `json:"origin"`
	Servers    []string `json:"servers,omitempty"`
	Generation uint64   `json:"generation"`
	SPKI       string   `json:"spki"`
	Chain      string   `json:"chain"`
	Key        Sealed   `json:"key"`
}

// HasTLS reports whether o may be reached by TLS: Consul says so of its services with each instance.
func (o Origin) HasTLS() bool {
	return o.IsConsul() || strings.HasPrefix(strings.ToLower(o.URL), "https://")
}

// Validate checks the limits of c, and that h has an origin that it can be shown to.
func (c OriginCert) Validate(h Host) error {
	if len(c.Chain) > MaxOriginChainBytes {
		return NewError(ErrTooLarge, "certificate", "a chain of %d bytes; the limit is %d", len(c.Chain), MaxOriginChainBytes)
	}
	for _, text := range []string{c.SPKI, c.Serial, c.Subject, c.Issuer} {
		if len(text) > maxReason {
			return NewError(ErrTooLarge, "certificate", "a name of %d bytes; the limit is %d", len(text), maxReason)
		}
	}
	for _, o := range h.Spec.Origins {
		if o.URL != c.Origin {
			continue
		}
		if !o.HasTLS() {
			return Invalid("origin", "%s is not reached by TLS, so that no certificate can be shown to it: use https", o.URL)
		}
		return nil
	}
	return NewError(ErrNotFound, "origin", "host %s has no origin %.200s: see 'fleetctl origin list %s'", h.Name, c.Origin, h.Name)
}

// ServersOf are the URLs of the servers that o stands for: its own, or those of the instances of its Consul service that
// are reached by TLS.
func (o Origin) ServersOf(resolved HostOrigins) []string {
	if !o.IsConsul() {
		return []string{o.URL}
	}
	var urls []string
	for _, r := range resolved.Services {
		for _, i := range r.Instances {
			if r.URL == o.URL && i.HasTLS() {
				urls = append(urls, i.URL)
			}
		}
	}
	return urls
}
