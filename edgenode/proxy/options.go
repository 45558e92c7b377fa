package proxy

import (
	"cmp"
	"context"
	"crypto/x509"
	"errors"
	"net"
	"net/netip"
	"time"

	"github.com/edgefleet/edgefleet/edgenode/config"
	"github.com/edgefleet/edgefleet/edgenode/waf"
	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/observability"
	"github.com/edgefleet/edgefleet/tls/sni"
)

// Judge decides about one request. It is called for hosts whose mode analyses, concurrently, and does no I/O. It counts
// what it could not judge; the request passes unless the Decision says Block.
type Judge interface {
	Judge(ctx context.Context, in waf.Input) waf.Decision
}

// Sink takes events that are masked already. Append never blocks: what it cannot keep it drops and counts.
type Sink interface {
	Append(ev fleet.Event)
}

// Options configures a Proxy. Snapshot, Certificates, Judge and Events are needed; the rest has defaults.
type Options struct {
	// Snapshot returns what is served now; it is called once for each request. Nil means that nothing is served yet.
	Snapshot func() *config.Snapshot
	// Certificates are looked up by SNI; a name that is not in the table is refused in the handshake.
	Certificates *sni.Table
	Judge        Judge
	Events       Sink

	// Cluster makes the name in CDN-Loop by which the nodes of a fleet know what one of them forwarded.
	Cluster fleet.ClusterID
	// Node and Region are written into events; Node also makes the Via pseudonym by which loops are found.
	Node   fleet.NodeID
	Region fleet.RegionName
	// OwnAddresses are never dialled as an origin.
	OwnAddresses []netip.Addr
	// HTTPSPort is the port that clients reach the TLS listener at, for redirects; default 443.
	HTTPSPort uint16

	// OnUncertified is called, seldom, when Uncertified has something new to tell; it must not block. Nil: nobody is called.
	OnUncertified func()

	Telemetry *observability.Telemetry
	Limits    Limits
	// OriginRoots verify the certificates of origins; nil means the roots of the system.
	OriginRoots *x509.CertPool
	// Resolver finds the addresses of origins; nil means that of the system.
	Resolver *net.Resolver
	// Now is the clock by which session-ticket keys rotate; nil means that of the system.
	Now func() time.Time
}

// Limits bounds what one client, one request and the node as a whole may use. Zero fields take the default.
type Limits struct {
	// HeaderBytes bounds the request line and headers; default 64 KiB. Over it: 431.
	HeaderBytes int
	// HeaderTimeout bounds a TLS handshake and the reading of one request's headers; default 10 s.
	HeaderTimeout time.Duration
	// IdleTimeout closes connections without a request; default 120 s.
	IdleTimeout time.Duration
	// ProgressTimeout bounds one read from or write to a client during a body, not the whole of it; default 60 s.
	ProgressTimeout time.Duration
	// BodyBytes bounds a request body; default 1 GiB. Over it: 413.
	BodyBytes int64
	// InspectBytes is the length of the body's prefix that is judged; default 128 KiB.
	InspectBytes int
	// InspectTimeout bounds the time to receive that prefix; default 30 s. Over it: 408.
	InspectTimeout time.Duration
	// JudgeTimeout bounds the wait for a Judge that is busy; default 5 s. What the Judge then decides counts.
	JudgeTimeout time.Duration
	// DialTimeout bounds one connection attempt to an origin, and its TLS handshake; default 5 s.
	DialTimeout time.Duration
	// ResponseTimeout bounds the wait for an origin's response headers after the request was sent; default 60 s.
	ResponseTimeout time.Duration
	// Concurrent bounds the requests in progress on this node; default 10000. Over it: 503.
	Concurrent int
	// Linger is how long a draining proxy answers on open connections before it closes idle ones; default 600 ms.
	Linger time.Duration
	// Drain bounds the whole of draining; default 10 s. What is not done then is cut.
	Drain time.Duration
}

func (l Limits) withDefaults() Limits {
	l.HeaderBytes = cmp.Or(l.HeaderBytes, 64<<10)
	l.HeaderTimeout = cmp.Or(l.HeaderTimeout, 10*time.Second)
	l.IdleTimeout = cmp.Or(l.IdleTimeout, 120*time.Second)
	l.ProgressTimeout = cmp.Or(l.ProgressTimeout, 60*time.Second)
	l.BodyBytes = cmp.Or(l.BodyBytes, 1<<30)
	l.InspectBytes = cmp.Or(l.InspectBytes, 128<<10)
	l.InspectTimeout = cmp.Or(l.InspectTimeout, 30*time.Second)
	l.JudgeTimeout = cmp.Or(l.JudgeTimeout, 5*time.Second)
	l.DialTimeout = cmp.Or(l.DialTimeout, 5*time.Second)
	l.ResponseTimeout = cmp.Or(l.ResponseTimeout, 60*time.Second)
	l.Concurrent = cmp.Or(l.Concurrent, 10_000)
	l.Linger = cmp.Or(l.Linger, 600*time.Millisecond)
	l.Drain = cmp.Or(l.Drain, 10*time.Second)
	return l
}

func (l Limits) validate() error {
	durations := []time.Duration{
		l.HeaderTimeout, l.IdleTimeout, l.ProgressTimeout, l.InspectTimeout, l.JudgeTimeout,
		l.DialTimeout, l.ResponseTimeout, l.Linger, l.Drain,
	}
	for _, d := range durations {
		if d < 0 {
			return fleet.Invalid("limits", "%s is negative: give a positive duration, or none for the default", d)
		}
	}
	for _, n := range []int64{int64(l.HeaderBytes), l.BodyBytes, int64(l.InspectBytes), int64(l.Concurrent)} {
		if n < 0 {
			return fleet.Invalid("limits", "%d is negative: give a positive number, or none for the default", n)
		}
	}
	return nil
}

func (o *Options) validate() error {
	switch {
	case o.Snapshot == nil:
		return errors.New("proxy: Options.Snapshot is nil")
	case o.Certificates == nil:
		return errors.New("proxy: Options.Certificates is nil")
	case o.Judge == nil:
		return errors.New("proxy: Options.Judge is nil")
	case o.Events == nil:
		return errors.New("proxy: Options.Events is nil")
	}
	if err := fleet.ValidateID("node", o.Node); err != nil {
		return err
	}
	return o.Limits.validate()
}
