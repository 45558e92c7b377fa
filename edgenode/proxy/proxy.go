package proxy

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/edgefleet/edgefleet/edgenode/config"
	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/observability"
)

// sweepInterval is how often connections to origins that are no longer configured are given up.
const sweepInterval = time.Minute

// Proxy serves the protected hosts of a snapshot. It is safe for concurrent use.
type Proxy struct {
	options  Options
	limits   Limits
	log      *slog.Logger
	metrics  *metrics
	counters counters
	buffers  *bufferPool
	origins  *origins
	sockets  sockets
	tickets  *tickets
	// uncertified are hosts that the control plane should look at.
	uncertified uncertified
	// via is how this node names itself in Via.
	via string
	// loop is how its fleet names itself in CDN-Loop.
	loop string

	active   atomic.Int64
	draining atomic.Bool
}

// New checks o; nothing is opened before Run.
func New(o Options) (*Proxy, error) {
	if err := o.validate(); err != nil {
		return nil, err
	}
	if o.Telemetry == nil {
		o.Telemetry = observability.Discard()
	}
	if o.HTTPSPort == 0 {
		o.HTTPSPort = 443
	}
	p := &Proxy{
		options: o, limits: o.Limits.withDefaults(), log: o.Telemetry.Logger,
		buffers: newBufferPool(), via: "edgefleet-" + string(o.Node), loop: loopName(o.Cluster),
	}
	p.metrics = newMetrics(o.Telemetry, &p.active)
	p.origins = newOrigins(o, p.limits, p.log)
	o.Telemetry.Gauge("edgefleet_proxy_origins_out", func() []observability.Sample {
		return []observability.Sample{{Value: float64(p.origins.out(time.Now()))}}
	})
	p.tickets = newTickets(o)
	return p, nil
}

// loopName is what a fleet is called in CDN-Loop. It is no secret, and does not tell the cluster's id.
func loopName(c fleet.ClusterID) string {
	sum := sha256.Sum256([]byte("edgefleet loop " + c))
	return "edgefleet-" + hex.EncodeToString(sum[:8])
}

// Counters are the totals of each tenant since the process started, sorted by tenant.
func (p *Proxy) Counters() []fleet.TenantCounters { return p.counters.list() }

// Run serves https and http until ctx ends and then drains: it stops accepting, says Connection: close and GOAWAY on
// what is open, closes idle connections after Limits.Linger, and at Limits.Drain closes WebSockets with 1001 and cuts
// what is left. It closes both listeners, and returns nil unless one of them failed.
func (p *Proxy) Run(ctx context.Context, https, plain net.Listener) error {
	g, ctx := errgroup.WithContext(ctx)
	secure, open := p.server(ctx, p.handler(p.serveHTTPS)), p.server(ctx, p.handler(p.serveHTTP))
	secure.TLSConfig = p.tlsConfig() //nolint:contextcheck // a handshake has its own, in the ClientHello
	g.Go(func() error { return p.served(secure.ServeTLS(clients{https}, "", "")) })
	g.Go(func() error { return p.served(open.Serve(clients{plain})) })
	g.Go(func() error {
		p.sweep(ctx)
		return nil
	})
	g.Go(func() error {
		p.origins.probe(ctx, p.snapshot, http.Header{"Via": {"1.1 " + p.via}, loopHeader: {p.loop}, "User-Agent": {probeAgent}})
		return nil
	})
	g.Go(func() error {
		<-ctx.Done()
		p.drain(context.WithoutCancel(ctx), []net.Listener{https, plain}, []*http.Server{secure, open})
		return nil
	})
	return g.Wait()
}

// served drops the error with which a server reports that its listener was closed on purpose.
func (p *Proxy) served(err error) error {
	if p.draining.Load() && (errors.Is(err, net.ErrClosed) || errors.Is(err, http.ErrServerClosed)) {
		return nil
	}
	return fmt.Errorf("serve: %w", err)
}

func (p *Proxy) server(ctx context.Context, h http.Handler) *http.Server {
	base := context.WithoutCancel(ctx)
	return &http.Server{
		Handler:           h,
		MaxHeaderBytes:    p.limits.HeaderBytes,
		ReadHeaderTimeout: p.limits.HeaderTimeout,
		IdleTimeout:       p.limits.IdleTimeout,
		// Bodies have no total limit in time: each read and write is limited instead (see body and recorder). This one
		// only bounds what net/http writes by itself.
		WriteTimeout: p.limits.ProgressTimeout,
		// OPTIONS * is the origin's to answer, after the host checks.
		DisableGeneralOptionsHandler: true,
		ErrorLog:                     slog.NewLogLogger(serverLog{p.metrics}, slog.LevelInfo),
		BaseContext:                  func(net.Listener) context.Context { return base },
		ConnContext:                  withConnection,
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams: 128,
			SendPingTimeout:      p.limits.IdleTimeout,
			PingTimeout:          p.limits.HeaderTimeout,
			WriteByteTimeout:     p.limits.ProgressTimeout,
		},
	}
}

// drain ends what is open. The order keeps requests whole: while clients still hold connections that they believe to
// be usable, requests on them are answered with Connection: close; only then are idle ones closed.
func (p *Proxy) drain(ctx context.Context, listeners []net.Listener, servers []*http.Server) {
	ctx, cancel := context.WithTimeout(ctx, p.limits.Drain)
	defer cancel()
	p.draining.Store(true)
	for _, l := range listeners {
		_ = l.Close() // already closed if its server failed
	}
	wait(ctx, p.limits.Linger)
	var g errgroup.Group
	for _, s := range servers {
		g.Go(func() error { return s.Shutdown(ctx) })
	}
	err := g.Wait()
	p.idle(ctx) // hijacked connections are not the servers'
	if left := p.active.Load(); left > 0 {
		p.log.InfoContext(ctx, "drain deadline reached", "active_requests", left, "err", err)
	}
	p.sockets.goAway()
	for _, s := range servers {
		_ = s.Close() // what could not be drained is cut
	}
	cut, cancelCut := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancelCut()
	p.idle(cut)
	p.origins.close()
}

// idle waits until no request is in progress.
func (p *Proxy) idle(ctx context.Context) {
	for p.active.Load() > 0 && ctx.Err() == nil {
		wait(ctx, 5*time.Millisecond)
	}
}

func (p *Proxy) sweep(ctx context.Context) {
	for ctx.Err() == nil {
		wait(ctx, sweepInterval)
		p.origins.sweep(p.snapshot())
	}
}

// snapshot is never nil: before the first one is loaded, nothing is served.
func (p *Proxy) snapshot() *config.Snapshot {
	if s := p.options.Snapshot(); s != nil {
		return s
	}
	return &config.Snapshot{}
}

// wait returns after d or at the end of ctx.
func wait(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
