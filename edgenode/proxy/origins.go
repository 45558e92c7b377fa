package proxy

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/edgefleet/edgefleet/edgenode/config"
	"github.com/edgefleet/edgefleet/fleet"
)

const (
	// maxAttempts bounds the origins that one request tries.
	maxAttempts = 3
	// maxResponseHeaderBytes bounds the headers of an origin's answer.
	maxResponseHeaderBytes = 256 << 10
)

// origins holds the connections to origins. Each protected host has its own, so none is ever shared between tenants,
// between names that a certificate was verified for, or between different sets of allowed addresses.
type origins struct {
	own      []netip.Addr
	roots    *x509.CertPool
	resolver *net.Resolver
	limits   Limits
	log      *slog.Logger

	mu    sync.RWMutex
	pools map[fleet.HostName]*pool
}

func newOrigins(o Options, l Limits, log *slog.Logger) *origins {
	return &origins{
		own: slices.Clone(o.OwnAddresses), roots: o.OriginRoots, resolver: o.Resolver,
		limits: l, log: log, pools: map[fleet.HostName]*pool{},
	}
}

// pool returns the connections for h as it is configured now.
func (o *origins) pool(h *config.Host) *pool {
	o.mu.RLock()
	p := o.pools[h.Name]
	o.mu.RUnlock()
	if p != nil && p.serves(h) {
		return p
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if p = o.pools[h.Name]; p != nil && p.serves(h) {
		return p
	}
	if p != nil {
		p.close()
	}
	p = o.newPool(h)
	o.pools[h.Name] = p
	return p
}

// sweep gives up the connections of hosts that s does not have any more, or has with other origins.
func (o *origins) sweep(s *config.Snapshot) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for name, p := range o.pools {
		if h := s.Hosts[name]; h == nil || !p.serves(h) {
			p.close()
			delete(o.pools, name)
		}
	}
}

func (o *origins) close() { o.sweep(&config.Snapshot{}) }

func (o *origins) newPool(h *config.Host) *pool {
	p := &pool{host: *h, log: o.log, connect: o.connectTimeout(h)}
	for _, e := range h.Origins {
		m := &origin{endpoint: e}
		m.transport = o.transport(h, e, &m.asked)
		p.members = append(p.members, m)
	}
	return p
}

// serves reports whether p is what h would get: snapshots are replaced often, connections should survive that.
func (p *pool) serves(h *config.Host) bool {
	return p.host.Tenant == h.Tenant && p.host.Forwarding == h.Forwarding && p.host.OriginCerts.Same(h.OriginCerts) &&
		slices.Equal(p.host.Origins, h.Origins) && slices.Equal(p.host.AllowedOrigins, h.AllowedOrigins)
}

func (p *pool) close() {
	for _, m := range p.members {
		m.transport.CloseIdleConnections()
	}
}

// transport is for one origin; asked is set when that asks for a certificate. There is no proxy and no compression of our own: bytes pass as they are.
func (o *origins) transport(h *config.Host, e fleet.Endpoint, asked *atomic.Bool) *http.Transport {
	dialer := o.dialer(slices.Clone(h.AllowedOrigins), o.connectTimeout(h))
	address := e.Address()
	protocols := &http.Protocols{}
	protocols.SetHTTP1(e.Scheme != "h2c")
	protocols.SetHTTP2(e.Scheme == "https")
	protocols.SetUnencryptedHTTP2(e.Scheme == "h2c")
	response := o.limits.ResponseTimeout
	if n := h.Forwarding.ResponseSeconds; n > 0 {
		response = time.Duration(n) * time.Second
	}
	return &http.Transport{
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			conn, err := dialer.DialContext(ctx, network, address)
			if err != nil {
				return nil, &dialError{err}
			}
			return conn, nil
		},
		TLSClientConfig:        o.tlsConfig(h, e, asked),
		TLSHandshakeTimeout:    o.connectTimeout(h),
		Protocols:              protocols,
		MaxConnsPerHost:        h.Forwarding.MaxConnections,
		DisableCompression:     true,
		MaxIdleConnsPerHost:    64,
		IdleConnTimeout:        90 * time.Second,
		ResponseHeaderTimeout:  response,
		ExpectContinueTimeout:  time.Second,
		MaxResponseHeaderBytes: maxResponseHeaderBytes,
		WriteBufferSize:        32 << 10,
		ReadBufferSize:         32 << 10,
	}
}

// connectTimeout bounds a connection attempt to an origin of h, and its handshake.
func (o *origins) connectTimeout(h *config.Host) time.Duration {
	if n := h.Forwarding.ConnectSeconds; n > 0 {
		return time.Duration(n) * time.Second
	}
	return o.limits.DialTimeout
}

// dialer checks the very address of each connection attempt, after the name was resolved, so that a name that resolves
// to something else than when it was configured cannot lead into our network.
func (o *origins) dialer(allowed []netip.Prefix, timeout time.Duration) *net.Dialer {
	return &net.Dialer{
		Timeout:  timeout,
		Resolver: o.resolver,
		ControlContext: func(_ context.Context, _, address string, _ syscall.RawConn) error {
			a, err := netip.ParseAddrPort(address)
			if err != nil {
				return fmt.Errorf("dial: %w", err)
			}
			return fleet.CheckOriginAddr(a.Addr(), allowed, o.own)
		},
	}
}

// dialError is a failure before a connection existed: nothing was sent, so another origin may be tried.
type dialError struct{ err error }

func (e *dialError) Error() string { return "dial origin: " + e.err.Error() }
func (e *dialError) Unwrap() error { return e.err }

// attemptBody survives that a transport closes it: it does so when it gets no connection.
type attemptBody struct {
	body interface {
		Read(p []byte) (int, error)
	}
	started atomic.Bool
}

// Read implements io.Reader.
func (b *attemptBody) Read(p []byte) (int, error) {
	b.started.Store(true)
	return b.body.Read(p)
}

// Close implements io.Closer.
func (b *attemptBody) Close() error { return nil }

// unreached reports whether err happened before the request could be sent.
func unreached(err error) bool {
	var dial *dialError
	return errors.As(err, &dial) || isTLS(err)
}

// originError gives the label and the status of a failed attempt.
func originError(err error) (reason string, status int) {
	var (
		dial    *dialError
		dns     *net.DNSError
		timeout interface{ Timeout() bool }
	)
	switch {
	case errors.Is(err, errBusy):
		return "busy", http.StatusServiceUnavailable
	case errors.Is(err, fleet.ErrInvalid):
		return "refused_address", http.StatusBadGateway
	case errors.As(err, &timeout) && timeout.Timeout():
		return "timeout", http.StatusGatewayTimeout
	case errors.As(err, &dns):
		return "dns", http.StatusBadGateway
	case errors.As(err, &dial):
		return "dial", http.StatusBadGateway
	case isTLS(err):
		return "tls", http.StatusBadGateway
	}
	return "protocol", http.StatusBadGateway
}

// isTLS reports whether the handshake with an origin failed.
func isTLS(err error) bool {
	var (
		verify *tls.CertificateVerificationError
		record tls.RecordHeaderError
		alert  tls.AlertError
		opErr  *net.OpError
	)
	// net/http does not export the type of its handshake timeout.
	return strings.HasSuffix(err.Error(), "TLS handshake timeout") || errors.As(err, &verify) || errors.As(err, &record) || errors.As(err, &alert) ||
		(errors.As(err, &opErr) && opErr.Op == "remote error")
}
