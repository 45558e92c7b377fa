package proxy

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/edgefleet/edgefleet/edgenode/config"
	"github.com/edgefleet/edgefleet/fleet"
)

// tlsConfig verifies an origin's certificate for the name that it was configured with, else for the origin's own name,
// or for the protected name if the origin is an address.
func (o *origins) tlsConfig(h *config.Host, e fleet.Endpoint, asked *atomic.Bool) *tls.Config {
	c := &tls.Config{ServerName: e.Host, RootCAs: o.roots, MinVersion: tls.VersionTLS12}
	if e.CA != "" {
		pool, err := fleet.ParseCAs("origin", e.CA)
		if err != nil {
			pool = x509.NewCertPool() // it was checked when the host was loaded: nothing is trusted
		}
		c.RootCAs = pool
	}
	cert := h.OriginCerts.Of(e)
	if cert == nil {
		cert = &tls.Certificate{} // none
	}
	// It is shown to whoever asks, whatever authorities are named: many origins name none, or the wrong ones.
	c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		asked.Store(true)
		return cert, nil
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

// certAlerts are the alerts (RFC 8446 section 6.2) by which an origin says that it wants another client certificate, or
// wants one at all. The standard library does not export their numbers.
var certAlerts = []string{
	"tls: certificate required", "tls: bad certificate", "tls: unsupported certificate", "tls: revoked certificate",
	"tls: expired certificate", "tls: unknown certificate", "tls: unknown certificate authority", "tls: access denied",
}

// reason is the label of a failed attempt. An origin that refuses a client certificate, or that there is none, says so by
// an alert or just breaks off: by TLS 1.3 the handshake is over for us then, and the alert may be lost.
func (o *origin) reason(err error) string {
	reason, _ := originError(err)
	alert := ""
	if opErr, ok := errors.AsType[*net.OpError](err); ok && opErr.Op == "remote error" {
		alert = opErr.Err.Error()
	}
	if slices.Contains(certAlerts, alert) || o.asked.Load() && (reason == "protocol" || alert == "tls: handshake failure") {
		return "client_cert"
	}
	return reason
}
