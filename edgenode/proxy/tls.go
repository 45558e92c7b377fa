package proxy

import (
	"context"
	"crypto/tls"
)

// tlsConfig is what the edge speaks with clients: TLS 1.2 with AEAD suites and forward secrecy, and TLS 1.3.
func (p *Proxy) tlsConfig() *tls.Config {
	c := &tls.Config{
		MinVersion: tls.VersionTLS12,
		// For TLS 1.2; the suites of TLS 1.3 are not configurable.
		CipherSuites: []uint16{
			tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
			tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
			tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
		},
		CurvePreferences: []tls.CurveID{tls.X25519MLKEM768, tls.X25519, tls.CurveP256, tls.CurveP384},
		NextProtos:       []string{"h2", "http/1.1"},
		GetCertificate:   p.certificate,
	}
	c.WrapSession, c.UnwrapSession = p.tickets.wrap, p.tickets.unwrap
	c.GetConfigForClient = p.configFor(c)
	return c
}

func (p *Proxy) certificate(h *tls.ClientHelloInfo) (*tls.Certificate, error) {
	c, err := p.options.Certificates.GetCertificate(h)
	if c == nil {
		reason := "unknown_name"
		if h.ServerName == "" {
			reason = "no_name"
		}
		p.metrics.handshakeFailed(context.WithoutCancel(h.Context()), reason)
		p.missed(h.ServerName)
	}
	return c, err
}
