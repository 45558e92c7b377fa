package proxy

import (
	"context"
	"crypto/tls"
	"slices"
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
	// The hooks encrypt with the rotating keys of keys, never of the config they are called for: net/http clones it.
	keys := &tls.Config{}
	c.WrapSession = func(cs tls.ConnectionState, s *tls.SessionState) ([]byte, error) {
		s.Extra = append(s.Extra, sessionName(cs.ServerName))
		return keys.EncryptTicket(cs, s)
	}
	c.UnwrapSession = func(ticket []byte, cs tls.ConnectionState) (*tls.SessionState, error) {
		s, err := keys.DecryptTicket(ticket, cs)
		if err != nil || s == nil {
			return nil, err
		}
		// A session resumes only under the name that it was made for, so never across tenants, and only while that
		// name is served: no certificate is looked up when a session is resumed.
		if _, served := p.options.Certificates.Lookup(cs.ServerName); !served || !hasName(s, cs.ServerName) {
			return nil, nil
		}
		return s, nil
	}
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
	}
	return c, err
}

// sessionName is the entry of tls.SessionState.Extra that binds a session to a name.
func sessionName(name string) []byte { return []byte("edgefleet-name:" + name) }

func hasName(s *tls.SessionState, name string) bool {
	return slices.ContainsFunc(s.Extra, func(e []byte) bool { return string(e) == string(sessionName(name)) })
}
