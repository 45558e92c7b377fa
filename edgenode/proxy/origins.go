package proxy

import (
	"cmp"
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
	// downFor is how long an origin that refused a connection is tried last.
	downFor = 10 * time.Second
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

// pool is the origins of one host. It is immutable but for next and the health of its members.
type pool struct {
	host    config.Host
	log     *slog.Logger
	members []*origin
	next    atomic.Uint64
}

// origin is one server of a pool.
type origin struct {
	endpoint  fleet.Endpoint
	transport *http.Transport
	// downUntil is the Unix time in nanoseconds before which it is tried last.
	downUntil atomic.Int64
}

func (o *origins) newPool(h *config.Host) *pool {
	p := &pool{host: *h, log: o.log}
	for _, e := range h.Origins {
		p.members = append(p.members, &origin{endpoint: e, transport: o.transport(h, e)})
	}
	return p
}

// serves reports whether p is what h would get: snapshots are replaced often, connections should survive that.
func (p *pool) serves(h *config.Host) bool {
	return p.host.Tenant == h.Tenant && slices.Equal(p.host.Origins, h.Origins) && slices.Equal(p.host.AllowedOrigins, h.AllowedOrigins)
}

func (p *pool) close() {
	for _, m := range p.members {
		m.transport.CloseIdleConnections()
	}
}

// transport is for one origin. There is no proxy and no compression of our own: bytes pass as they are.
func (o *origins) transport(h *config.Host, e fleet.Endpoint) *http.Transport {
	dialer := o.dialer(slices.Clone(h.AllowedOrigins))
	address := e.Address()
	return &http.Transport{
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			conn, err := dialer.DialContext(ctx, network, address)
			if err != nil {
				return nil, &dialError{err}
			}
			return conn, nil
		},
		TLSClientConfig:        o.tlsConfig(h, e),
		TLSHandshakeTimeout:    o.limits.DialTimeout,
		ForceAttemptHTTP2:      true,
		DisableCompression:     true,
		MaxIdleConnsPerHost:    64,
		IdleConnTimeout:        90 * time.Second,
		ResponseHeaderTimeout:  o.limits.ResponseTimeout,
		ExpectContinueTimeout:  time.Second,
		MaxResponseHeaderBytes: maxResponseHeaderBytes,
		WriteBufferSize:        32 << 10,
		ReadBufferSize:         32 << 10,
	}
}

// dialer checks the very address of each connection attempt, after the name was resolved, so that a name that resolves
// to something else than when it was configured cannot lead into our network.
func (o *origins) dialer(allowed []netip.Prefix) *net.Dialer {
	return &net.Dialer{
		Timeout:  o.limits.DialTimeout,
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

// order is the members in the order in which the next request tries them: round robin, those that were down lately last.
func (p *pool) order(now time.Time) []*origin {
	if len(p.members) == 1 {
		return p.members
	}
	first := int((p.next.Add(1) - 1) % uint64(len(p.members)))
	out := slices.Concat(p.members[first:], p.members[:first])
	down := func(m *origin) int64 {
		if until := m.downUntil.Load(); until > now.UnixNano() {
			return until
		}
		return 0
	}
	slices.SortStableFunc(out, func(a, b *origin) int { return cmp.Compare(down(a), down(b)) })
	return out[:min(len(out), maxAttempts)]
}

// roundTrip sends r to the first origin that accepts a connection. failed is told of each attempt that failed.
func (p *pool) roundTrip(r *http.Request, failed func(reason string)) (*http.Response, error) {
	var err error
	for _, m := range p.order(time.Now()) {
		var sent *attemptBody
		attempt := r.WithContext(r.Context())
		target := *r.URL
		target.Scheme, target.Host = m.endpoint.Scheme, m.endpoint.Address()
		attempt.URL = &target
		if r.Body != nil && r.Body != http.NoBody {
			sent = &attemptBody{body: r.Body}
			attempt.Body = sent
		}
		var res *http.Response
		if res, err = m.transport.RoundTrip(attempt); err == nil {
			return res, nil
		}
		if r.Context().Err() != nil {
			return nil, err // the client went away
		}
		reason, _ := originError(err)
		failed(reason)
		if !unreached(err) || (sent != nil && sent.started.Load()) {
			return nil, err
		}
		p.down(r.Context(), m, reason)
	}
	return nil, err
}

// down logs once for each time that an origin goes down, not once for each request.
func (p *pool) down(ctx context.Context, m *origin, reason string) {
	now := time.Now()
	if until := m.downUntil.Swap(now.Add(downFor).UnixNano()); until < now.UnixNano() {
		p.log.WarnContext(ctx, "origin cannot be reached", "tenant", p.host.Tenant, "host", p.host.Name, "origin", m.endpoint.Address(), "reason", reason)
	}
}

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
