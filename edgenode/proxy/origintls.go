package proxy

import (
	"crypto/tls"
	"crypto/x509"
	"net/netip"
	"strings"

	"github.com/edgefleet/edgefleet/edgenode/config"
	"github.com/edgefleet/edgefleet/fleet"
)

// tlsConfig verifies an origin's certificate for the name that it was configured with, else for the origin's own name,
// or for the protected name if the origin is an address.
func (o *origins) tlsConfig(h *config.Host, e fleet.Endpoint) *tls.Config {
	c := &tls.Config{ServerName: e.Host, RootCAs: o.roots, MinVersion: tls.VersionTLS12}
	if e.CA != "" {
		pool, err := fleet.ParseCAs("origin", e.CA)
		if err != nil {
			pool = x509.NewCertPool() // it was checked when the host was loaded: nothing is trusted
		}
		c.RootCAs = pool
	}
	_, err := netip.ParseAddr(e.Host)
	switch {
	case e.ServerName != "":
		c.ServerName = e.ServerName
	case err != nil:
	case strings.HasPrefix(string(h.Name), "*."):
		// A wildcard is no name to ask for, so none is sent; it must be in the certificate as it stands.
		verifyWildcard(c, string(h.Name))
	default:
		c.ServerName = string(h.Name)
	}
	return c
}

// verifyWildcard makes c verify the peer's certificate for a wildcard instead of c.ServerName, an address.
func verifyWildcard(c *tls.Config, name string) {
	roots := c.RootCAs
	c.InsecureSkipVerify = true //nolint:gosec // VerifyConnection does it, on resumption too
	c.VerifyConnection = func(cs tls.ConnectionState) error {
		chain := x509.NewCertPool()
		for _, cert := range cs.PeerCertificates[1:] {
			chain.AddCert(cert)
		}
		if _, err := cs.PeerCertificates[0].Verify(x509.VerifyOptions{Roots: roots, Intermediates: chain, DNSName: name}); err != nil {
			return &tls.CertificateVerificationError{UnverifiedCertificates: cs.PeerCertificates, Err: err}
		}
		return nil
	}
}
