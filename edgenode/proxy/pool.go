package proxy

import (
	"cmp"
	"context"
	"errors"
	"hash/fnv"
	"log/slog"
	"math"
	"net/http"
	"net/http/httptrace"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"github.com/edgefleet/edgefleet/edgenode/config"
	"github.com/edgefleet/edgefleet/fleet"
)

const (
	// firstDown is how long an origin is out that failed; it doubles each time that it fails again when it is back, up to
	// maxDown.
	firstDown = 10 * time.Second
	maxDown   = 5 * time.Minute
	// maxErrors is how many requests in a row an origin may fail that it accepted, before it is out. One that cannot be
	// reached is out at once.
	maxErrors = 3
)

// errBusy is the failure to get a connection in time because the host's limit on them is used up.
var errBusy = errors.New("all connections to the origin are in use")

// pool is the origins of one host. It is immutable but for next and the health of its members.
type pool struct {
	host    config.Host
	log     *slog.Logger
	connect time.Duration
	members []*origin
	next    atomic.Uint64
}

// origin is one server of a pool.
type origin struct {
	endpoint  fleet.Endpoint
	transport *http.Transport
	// downUntil is the Unix time in nanoseconds before which it is tried last, ejections how often in a row it came to
	// that, errors the requests in a row that it failed.
	downUntil         atomic.Int64
	ejections, errors atomic.Int64
	// sick is what health checks say.
	sick atomic.Bool
	// asked: it asked for a client certificate and has not answered since.
	asked atomic.Bool
	// outage is set while it is out, and until it answers.
	outage atomic.Pointer[outage]
	checks checks
}

// isOut reports whether o gets requests only where no other is left.
func (o *origin) isOut(now time.Time) bool {
	return o.sick.Load() || o.downUntil.Load() > now.UnixNano()
}

// order is the members in the order in which the next request tries them: those that are out last, and the one that is out
// for the shortest time before the others. All of them are there: with every origin out, requests find out who is back.
func (p *pool) order(now time.Time, client netip.Addr) []*origin {
	if len(p.members) == 1 {
		return p.members
	}
	var out []*origin
	if p.host.Forwarding.Affinity == fleet.AffinityClientIP {
		out = p.byClient(client)
	} else {
		first := int((p.next.Add(1) - 1) % uint64(len(p.members)))
		out = slices.Concat(p.members[first:], p.members[:first])
	}
	rank := func(m *origin) int64 {
		switch until := m.downUntil.Load(); {
		case m.sick.Load():
			return math.MaxInt64
		case until > now.UnixNano():
			return until
		}
		return 0
	}
	slices.SortStableFunc(out, func(a, b *origin) int { return cmp.Compare(rank(a), rank(b)) })
	return out[:min(len(out), maxAttempts)]
}

// byClient orders the members by a hash of the client and each of them (rendezvous hashing): when one goes or comes, only
// its own clients move, and every node sends a client to the same one. A client of IPv6 is its /64: the rest of its
// address changes by the hour.
func (p *pool) byClient(client netip.Addr) []*origin {
	bits := 32
	if client.Is6() {
		bits = 64
	}
	key := []byte(client.String()) // what is no address is one client
	if prefix, err := client.Prefix(bits); err == nil {
		key = prefix.Addr().AsSlice()
	}
	type weighed struct {
		origin *origin
		weight uint64
	}
	all := make([]weighed, len(p.members))
	for i, m := range p.members {
		h := fnv.New128a()
		_, _ = h.Write(key) // never fails (hash.Hash)
		_, _ = h.Write([]byte(m.endpoint.Address()))
		sum := h.Sum(nil)
		w := uint64(0)
		for _, b := range sum {
			w = (w ^ uint64(b)) * 0x9e3779b97f4a7c15
			w ^= w >> 29
		}
		all[i] = weighed{m, w}
	}
	slices.SortStableFunc(all, func(a, b weighed) int { return cmp.Compare(b.weight, a.weight) })
	out := make([]*origin, len(all))
	for i, w := range all {
		out[i] = w.origin
	}
	return out
}

// roundTrip sends r to the first origin that answers, of at most maxAttempts. Another is tried where the request cannot
// have arrived, or where the connection was lost and it may arrive twice: without a body, and a safe method (RFC 9110
// section 9.2.1). failed is told of each attempt that failed.
func (p *pool) roundTrip(r *http.Request, client netip.Addr, failed func(reason string)) (*http.Response, error) {
	var err error
	for _, m := range p.order(time.Now(), client) {
		attempt := r.WithContext(r.Context())
		target := *r.URL
		target.Scheme, target.Host = scheme(m.endpoint), m.endpoint.Address()
		attempt.URL = &target
		var sent *attemptBody
		if r.Body != nil && r.Body != http.NoBody {
			sent = &attemptBody{body: r.Body}
			attempt.Body = sent
		}
		var res *http.Response
		if res, err = p.attempt(m, attempt); err == nil {
			m.up()
			return res, nil
		}
		if r.Context().Err() != nil {
			return nil, err // the client went away
		}
		reason := m.reason(err)
		failed(reason)
		p.failed(r.Context(), m, reason, err)
		again := unreached(err) || sent == nil && safe(r) && (reason == "protocol" || reason == "busy" || reason == "client_cert")
		if !again || sent != nil && sent.started.Load() {
			return nil, err
		}
	}
	return nil, err
}

// scheme is how net/http calls that of e.
func scheme(e fleet.Endpoint) string {
	if e.Scheme == "h2c" {
		return "http"
	}
	return e.Scheme
}

func safe(r *http.Request) bool {
	return (r.Method == http.MethodGet || r.Method == http.MethodHead || r.Method == http.MethodOptions) && r.Header.Get("Upgrade") == ""
}

// attempt sends r to m. Where connections are limited, the wait for one is too: net/http waits for ever.
func (p *pool) attempt(m *origin, r *http.Request) (*http.Response, error) {
	if p.host.Forwarding.MaxConnections == 0 {
		return m.transport.RoundTrip(r)
	}
	const waiting, got, late = 0, 1, 2
	var state atomic.Int32
	ctx, cancel := context.WithCancelCause(r.Context()) // ends with the request: the answer's body is read under it
	timer := time.AfterFunc(p.connect, func() {
		if state.CompareAndSwap(waiting, late) {
			cancel(errBusy)
		}
	})
	defer timer.Stop()
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { state.CompareAndSwap(waiting, got) }})
	res, err := m.transport.RoundTrip(r.WithContext(ctx))
	if err != nil && state.Load() == late {
		return nil, errBusy
	}
	return res, err
}

// failed counts a failed attempt against m.
func (p *pool) failed(ctx context.Context, m *origin, reason string, err error) {
	switch {
	case reason == "busy": // our own limit
	case unreached(err), reason == "client_cert":
		p.down(ctx, m, reason)
	case m.errors.Add(1) >= maxErrors:
		p.down(ctx, m, reason)
	}
}

// down takes m out, for longer each time that it was no better when it came back. It logs once for each time, not once for
// each request, and what fails while it is out tells nothing new.
func (p *pool) down(ctx context.Context, m *origin, reason string) {
	now, until := time.Now(), m.downUntil.Load()
	if until > now.UnixNano() {
		return
	}
	out := min(firstDown<<min(m.ejections.Load(), 10), maxDown)
	if !m.downUntil.CompareAndSwap(until, now.Add(out).UnixNano()) {
		return
	}
	m.outOf(reason, now)
	m.ejections.Add(1)
	m.errors.Store(0)
	p.log.WarnContext(ctx, "origin cannot be reached", "tenant", p.host.Tenant, "host", p.host.Name, "origin", m.endpoint.Address(), "reason", reason, "out_for", out.String())
}

// up forgets what was held against o: it answered.
func (o *origin) up() {
	if o.asked.Load() {
		o.asked.Store(false)
	}
	if o.outage.Load() != nil && !o.sick.Load() {
		o.outage.Store(nil)
	}
	if o.errors.Load() != 0 {
		o.errors.Store(0)
	}
	if o.ejections.Load() != 0 {
		o.ejections.Store(0)
		o.downUntil.Store(0)
	}
}

// out counts the origins that are out.
func (o *origins) out(now time.Time) int {
	o.mu.RLock()
	defer o.mu.RUnlock()
	n := 0
	for _, p := range o.pools {
		for _, m := range p.members {
			if m.isOut(now) {
				n++
			}
		}
	}
	return n
}
