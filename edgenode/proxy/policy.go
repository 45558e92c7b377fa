package proxy

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"net"
	"net/http"
	"slices"

	"github.com/edgefleet/edgefleet/edgenode/config"
	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/tls/alpn"
)

// connection is what is known of a client's connection since its handshake. It is written by the handshake and read by
// requests, which come after it.
type connection struct {
	// policy is the config.Host.ClientPolicy that the client's certificate was verified by.
	policy string
}

type connectionKey struct{}

// withConnection is for http.Server.ConnContext.
func withConnection(ctx context.Context, _ net.Conn) context.Context {
	return context.WithValue(ctx, connectionKey{}, &connection{})
}

// connectionOf is never nil.
func connectionOf(ctx context.Context) *connection {
	if c, ok := ctx.Value(connectionKey{}).(*connection); ok {
		return c
	}
	return &connection{}
}

// configFor gives hosts that ask more of a handshake than base does a configuration of their own. It is for
// tls.Config.GetConfigForClient. What a host asks is looked up once for each handshake; names that are not served get
// base, which refuses them.
func (p *Proxy) configFor(base *tls.Config) func(*tls.ClientHelloInfo) (*tls.Config, error) {
	return func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		name, ok := canonicalHost(hello.ServerName)
		if !ok {
			return nil, nil //nolint:nilnil // crypto/tls goes on with base
		}
		if alpn.Asked(hello) {
			return p.validation(hello, name)
		}
		host := p.snapshot().Host(name)
		if host == nil || host.ClientPolicy == "" && host.MinVersion <= base.MinVersion {
			return nil, nil //nolint:nilnil // as above
		}
		c := base.Clone()
		c.GetConfigForClient = nil
		c.MinVersion = max(c.MinVersion, host.MinVersion)
		if host.ClientPolicy != "" {
			connectionOf(hello.Context()).policy = host.ClientPolicy
			demandCertificate(c, host)
		}
		return c, nil
	}
}

// validation shows a CA the answer to its TLS-ALPN-01 challenge. For names of which the edge has none the handshake ends: it
// offers a protocol that is spoken with nobody else.
func (p *Proxy) validation(hello *tls.ClientHelloInfo, name fleet.HostName) (*tls.Config, error) {
	c := p.snapshot().Validations[name]
	if c == nil {
		p.metrics.handshakeFailed(context.WithoutCancel(hello.Context()), "no_challenge")
		return &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: []string{alpn.Protocol}}, nil
	}
	return alpn.Config(c), nil
}

// demandCertificate makes c ask for client certificates. A session resumes only where the same is asked as when it began:
// the certificate that it carries was verified by that.
func demandCertificate(c *tls.Config, host *config.Host) {
	c.ClientCAs, c.ClientAuth = host.ClientCAs, tls.VerifyClientCertIfGiven
	if host.ClientAuth == fleet.ClientAuthRequired {
		c.ClientAuth = tls.RequireAndVerifyClientCert
	}
	mark := []byte("edgefleet-policy:" + host.ClientPolicy)
	wrap, unwrap := c.WrapSession, c.UnwrapSession
	c.WrapSession = func(cs tls.ConnectionState, s *tls.SessionState) ([]byte, error) {
		s.Extra = append(s.Extra, mark)
		return wrap(cs, s)
	}
	c.UnwrapSession = func(ticket []byte, cs tls.ConnectionState) (*tls.SessionState, error) {
		s, err := unwrap(ticket, cs)
		if err != nil || s == nil || !slices.ContainsFunc(s.Extra, func(e []byte) bool { return string(e) == string(mark) }) {
			return nil, err
		}
		return s, nil
	}
}

// mayServe reports whether a request for x.host may come on its connection, which was made for the name sni. Clients reuse
// a connection for every name of its certificate (RFC 9113 section 9.1.1); one that may not is told by 421 to make
// another. The certificate that a client showed counts for the hosts of the same tenant that ask for the same one, and
// only as they ask now: a policy that was made stricter holds for open connections too.
func (x *exchange) mayServe(name, sni fleet.HostName) bool {
	h, state := x.host, x.r.TLS
	if state.Version < h.MinVersion {
		return false
	}
	policy := connectionOf(x.r.Context()).policy
	if name == sni {
		return h.ClientPolicy == "" || h.ClientPolicy == policy
	}
	other := x.snapshot.Host(sni)
	return other != nil && other.Tenant == h.Tenant && h.ClientPolicy == policy
}

// tellOrigin adds what a client's certificate was verified to be (RFC 9440). rewrite has removed what the client wrote.
func (x *exchange) tellOrigin(h http.Header) {
	state := x.r.TLS
	if x.host.ClientPolicy == "" || state == nil || len(state.VerifiedChains) == 0 {
		return
	}
	h.Set("Client-Cert", ":"+base64.StdEncoding.EncodeToString(state.PeerCertificates[0].Raw)+":")
}
