// Package edgenode is the worker of an edge host: it wires the stored state, the WAF engine, the proxy, the event spool and
// the session with the control plane, in the order in which each may fail.
//
// It serves from last-known-good state before it tries the network, and goes on serving with the control plane, the event
// spool's disk or the collector away. Sockets come from package supervise through package handoff. When it is asked to stop
// it leaves DNS first, and serves until resolvers have forgotten it. When it ends it drains: the proxy first, then what delivers events, then the rest.
package edgenode

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"sync/atomic"
	"time"

	"github.com/edgefleet/edgefleet/edgenode/config"
	"github.com/edgefleet/edgefleet/edgenode/proxy"
	"github.com/edgefleet/edgefleet/edgenode/session"
	"github.com/edgefleet/edgefleet/edgenode/spool"
	"github.com/edgefleet/edgefleet/edgenode/waf"
	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/observability"
	"github.com/edgefleet/edgefleet/observability/lifecycle"
	"github.com/edgefleet/edgefleet/tls/mtls"
	"github.com/edgefleet/edgefleet/tls/sni"
)

// worker holds the parts while Run puts them together.
type worker struct {
	options Options
	life    *lifecycle.Group
	table   *sni.Table
	store   *config.Store
	spool   *spool.Spool
	proxy   *proxy.Proxy
	session *session.Session
	serving atomic.Bool
}

// Run serves until it is asked to stop or ctx ends, drains, and returns nil; or it returns why a part failed.
func Run(ctx context.Context, o Options) error {
	if err := o.validate(); err != nil {
		return err
	}
	asked := ctx
	life, ctx := lifecycle.New(ctx, o.Telemetry.Logger)
	w := &worker{options: o, table: &sni.Table{}, life: life}
	err := w.start(ctx)
	if err == nil {
		select {
		case <-o.Stop:
			w.leave(ctx)
		case <-ctx.Done():
		}
		if asked.Err() == nil && ctx.Err() != nil {
			err = context.Cause(ctx)
		}
	}
	stopCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), o.Settings.DrainTimeout)
	defer cancel()
	o.Telemetry.Logger.InfoContext(stopCtx, "worker drains")
	w.unserve()
	w.life.Stop(stopCtx)
	return err
}

// leave serves on until DNS and resolvers had the time to forget the node, or ctx ends.
func (w *worker) leave(ctx context.Context) {
	rest := w.options.Settings.LeaveDNS
	w.options.Telemetry.Logger.InfoContext(ctx, "worker leaves dns", "serves_for", rest)
	w.unserve()
	select {
	case <-time.After(rest):
	case <-ctx.Done():
	}
}

// unserve reports that nobody should be sent here any more.
func (w *worker) unserve() {
	w.serving.Store(false)
	w.beat()
}

// beat has the session report at once.
func (w *worker) beat() {
	if w.session != nil {
		w.session.Beat()
	}
}

// start puts the parts together and starts them; what it started before an error is stopped by the caller. Parts stop in
// the reverse order: the proxy, which still produces events, before the spool and the session, which deliver them.
func (w *worker) start(ctx context.Context) error {
	w.startAdmin(ctx)
	if err := w.openState(ctx); err != nil {
		return err
	}
	if err := w.openProxy(); err != nil {
		return err
	}
	if err := w.openSession(); err != nil {
		return err
	}
	// The delivering parts are registered first, to be stopped last; the session waits until requests are served.
	served := make(chan struct{})
	w.life.Start(ctx, "session", func(ctx context.Context) error {
		select {
		case <-served:
			return w.session.Run(ctx)
		case <-ctx.Done():
			return nil
		}
	})
	if w.spool != nil {
		w.life.Start(ctx, "spool", func(ctx context.Context) error { return w.spool.Run(ctx, w.session) })
	}
	w.life.Start(ctx, "proxy", func(ctx context.Context) error { return w.proxy.Run(ctx, w.options.HTTPS, w.options.HTTP) })
	w.serving.Store(true)
	close(served)
	if w.options.Ready != nil {
		if err := w.options.Ready(); err != nil {
			return err
		}
	}
	snap := w.store.Snapshot()
	w.options.Telemetry.Logger.InfoContext(ctx, "worker serves", "boot", w.options.Boot, "hosts", len(snap.Hosts), "certificates", w.table.Len())
	return nil
}

// openState loads the last-known-good state and opens the spool. A spool that cannot be opened costs events, not traffic.
func (w *worker) openState(ctx context.Context) error {
	o := w.options
	trust := o.Identity.Trust
	var err error
	w.store, err = config.Open(config.Options{
		Dir: o.Settings.StateDir(), Node: trust.Node, Group: trust.Group, Cluster: trust.Cluster, Incarnation: trust.Incarnation, HeadKeys: o.Identity.HeadKeys, RecoveryKey: trust.RecoveryKey, HPKEPrivate: o.Identity.HPKE,
		Certificates: w.table, OwnAddresses: o.Settings.Addresses, Telemetry: o.Telemetry,
	})
	if err != nil {
		return fmt.Errorf("open state: %w", err)
	}
	w.spool, err = spool.Open(spool.Options{Dir: o.Settings.SpoolDir(), Node: trust.Node, Boot: o.Boot, Telemetry: o.Telemetry})
	if err != nil {
		o.Telemetry.Health.Set("spool", err)
		o.Telemetry.Logger.ErrorContext(ctx, "event spool not opened: events are lost until the worker is started again", "err", err)
		w.spool = nil
		return nil
	}
	w.life.OnStop("spool files", func(context.Context) error { return w.spool.Close() })
	return nil
}

// lost drops events of a node without a spool.
type lost struct{}

// Append implements proxy.Sink.
func (lost) Append(fleet.Event) {}

func (w *worker) openProxy() error {
	o := w.options
	engine, err := waf.NewEngine(waf.Options{ParanoiaLevel: o.Settings.WAF.Paranoia, BodyLimit: o.Settings.WAF.BodyLimit, Telemetry: o.Telemetry})
	if err != nil {
		return fmt.Errorf("load waf engine: %w", err)
	}
	roots, err := originRoots(o.Settings.OriginCAFile)
	if err != nil {
		return err
	}
	var sink proxy.Sink = lost{}
	if w.spool != nil {
		sink = w.spool
	}
	trust := o.Identity.Trust
	w.proxy, err = proxy.New(proxy.Options{
		Snapshot: w.store.Snapshot, Certificates: w.table, Judge: engine, Events: sink,
		Cluster: trust.Cluster, Node: trust.Node, Region: trust.Region, OwnAddresses: o.Settings.Addresses, HTTPSPort: portOf(o.HTTPS),
		OnUncertified: w.beat,
		Telemetry:     o.Telemetry, OriginRoots: roots, Resolver: resolver(o.Settings.Resolver),
		// A third of the time is left to hand over events and stop the rest.
		Limits: proxy.Limits{InspectBytes: o.Settings.WAF.BodyLimit, Drain: o.Settings.DrainTimeout * 2 / 3},
	})
	if err != nil {
		return fmt.Errorf("prepare proxy: %w", err)
	}
	return nil
}

func (w *worker) openSession() error {
	o := w.options
	trust := o.Identity.Trust
	boot, onAck := o.Boot, func(fleet.EventAck) {}
	if w.spool != nil {
		boot, onAck = w.spool.Boot(), w.spool.Ack
	}
	o.Telemetry.Gauge("edgefleet_node_identity_expiry_seconds", func() []observability.Sample {
		return []observability.Sample{{Value: time.Until(o.Identity.Source.Certificate().Leaf.NotAfter).Seconds()}}
	})
	var err error
	w.session, err = session.New(session.Options{
		Node: trust.Node, Group: trust.Group, Cluster: trust.Cluster, Boot: boot, Instance: o.Instance, Dir: o.Settings.SessionDir(),
		Members: trust.Members, ControlPlane: o.Settings.ControlPlane,
		Source: o.Identity.Source, MemberRoots: o.Identity.Members, APIRoots: o.Identity.API,
		Store: w.store, Counters: w.proxy.Counters, Uncertified: w.proxy.Uncertified, OriginsOut: w.proxy.OriginsOut, Serving: w.serving.Load, OnAck: onAck,
		PollInterval: o.Settings.PollInterval, HeartbeatInterval: o.Settings.HeartbeatInterval, Telemetry: o.Telemetry,
	})
	if err != nil {
		return fmt.Errorf("prepare session: %w", err)
	}
	return nil
}

// startAdmin serves metrics and health. It stops last, and its failure does not stop the worker.
func (w *worker) startAdmin(ctx context.Context) {
	if w.options.Admin == nil {
		return
	}
	server := &http.Server{Handler: w.options.Telemetry.Handler(), ReadHeaderTimeout: 5 * time.Second, WriteTimeout: time.Minute, MaxHeaderBytes: 16 << 10}
	w.life.Start(ctx, "admin", func(ctx context.Context) error {
		stopped := context.AfterFunc(ctx, func() { _ = server.Close() })
		defer stopped()
		if err := server.Serve(w.options.Admin); !errors.Is(err, http.ErrServerClosed) {
			w.options.Telemetry.Logger.ErrorContext(ctx, "admin listener failed", "err", err)
		}
		return nil
	})
}

func portOf(l net.Listener) uint16 {
	if a, ok := l.Addr().(*net.TCPAddr); ok {
		return uint16(a.Port)
	}
	return 0
}

// originRoots reads the certificates that verify origins; nil means the system's.
func originRoots(file string) (*x509.CertPool, error) {
	if file == "" {
		return nil, nil //nolint:nilnil // nil is the documented value of proxy.Options for the system's roots
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, fleet.Invalid("origin_ca_file", "cannot be read: %v", err)
	}
	pool, err := mtls.PoolFromPEM(b)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", file, err)
	}
	return pool, nil
}

// resolver asks the given DNS server; nil means the system's.
func resolver(address string) *net.Resolver {
	if address == "" {
		return nil
	}
	return &net.Resolver{
		PreferGo: true,
		Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return (&net.Dialer{Timeout: 5 * time.Second}).DialContext(ctx, network, address)
		},
	}
}
