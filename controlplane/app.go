// Package controlplane is one member of the control plane: it puts consensus, state, bus, API, DNS, certificates and
// event store together.
//
// It owns configuration, the member's identity, and the order of start and stop. A member without quorum goes on
// answering DNS, nodes' polls, event queries and reads that ask for stale data.
package controlplane

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/edgefleet/edgefleet/controlplane/api"
	"github.com/edgefleet/edgefleet/controlplane/audit"
	"github.com/edgefleet/edgefleet/controlplane/backup"
	"github.com/edgefleet/edgefleet/controlplane/blobs"
	"github.com/edgefleet/edgefleet/controlplane/bus"
	"github.com/edgefleet/edgefleet/controlplane/consensus"
	"github.com/edgefleet/edgefleet/controlplane/dns"
	"github.com/edgefleet/edgefleet/controlplane/dns/check"
	"github.com/edgefleet/edgefleet/controlplane/events"
	"github.com/edgefleet/edgefleet/controlplane/fsm"
	"github.com/edgefleet/edgefleet/controlplane/keys"
	"github.com/edgefleet/edgefleet/controlplane/leader/hosts"
	"github.com/edgefleet/edgefleet/controlplane/leader/nodes"
	"github.com/edgefleet/edgefleet/controlplane/leader/revocations"
	"github.com/edgefleet/edgefleet/controlplane/state"
	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/observability"
	"github.com/edgefleet/edgefleet/observability/lifecycle"
	"github.com/edgefleet/edgefleet/tls/keyring"
	"github.com/edgefleet/edgefleet/tls/mtls"
)

// stopTimeout bounds an orderly stop: handing over leadership, ending requests, closing stores.
const stopTimeout = 15 * time.Second

// member is a running member. Its parts are set in the order of start.
type member struct {
	c     Config
	tel   *observability.Telemetry
	trust trust
	parts *lifecycle.Group

	state *state.Store
	node  *consensus.Node
	raft  proposer
	keys  *keys.Keys
	kek   *keyring.KEK
	// found is the KEK if this run began because it was found; watch knows of its provider.
	found  *keyring.KEK
	watch  *kekWatch
	lib    *blobs.Library
	bus    *bus.Bus
	events *events.Store
	audit  *audit.Log
	dns    *dns.Server
	zone   *zone
	// push is nil where there is no outside primary.
	push   *dns.Push
	check  *check.Resolver
	nodes  *nodes.Loop
	consul *consulPart
	// hosts is nil on a member without the KEK.
	hosts *hosts.Loop
	// revocations is nil where no certificates are ordered.
	revocations *revocations.Loop
	forward     *http.Transport
	// waits is forward for reads that wait.
	waits *http.Transport
	// backups is nil on a member that makes none.
	backups *backup.Loop
}

// Run runs a member until ctx ends, then hands over what it leads and stops. Logs go to log.
func Run(ctx context.Context, c Config, log io.Writer) error {
	return RunWith(ctx, c, c.provider(), log)
}

// RunWith is Run with a key-encryption key from elsewhere than kek_file, such as a key management service; nil: there is none.
// A member that starts without the key, because its provider is away, stops and starts all its parts once more when it is there.
func RunWith(ctx context.Context, c Config, p KEKProvider, log io.Writer) error {
	return runWith(ctx, c, p, kekLook, log)
}

// runWith is RunWith with a provider that is asked as often as look says.
func runWith(ctx context.Context, c Config, p KEKProvider, look time.Duration, log io.Writer) error {
	w := &kekWatch{look: look}
	if p != nil {
		w.ask = newPatient(p, min(kekTimeout, look))
	}
	var kek *keyring.KEK
	for {
		err := runOnce(ctx, c, w, kek, log)
		var found kekFoundError
		if !errors.As(err, &found) || ctx.Err() != nil {
			return err
		}
		kek = found.kek
	}
}

// runOnce is a run of all parts.
func runOnce(ctx context.Context, c Config, w *kekWatch, found *keyring.KEK, log io.Writer) error {
	if err := c.checkOwner(); err != nil {
		return err
	}
	ms, err := c.membership()
	if err != nil {
		return err
	}
	t, err := c.trust(ms)
	if err != nil {
		return err
	}
	tel, err := observability.Setup(ctx, observability.Options{
		Service: "controlplane", Instance: string(c.Member), OTLPEndpoint: c.OTLPEndpoint, LogLevel: c.LogLevel, LogFormat: c.LogFormat, Output: log,
	})
	if err != nil {
		return err
	}
	m := &member{c: c, tel: tel, trust: t, state: state.New(), watch: w, found: found}
	asked := ctx
	m.parts, ctx = lifecycle.New(ctx, tel.Logger)
	m.parts.OnStop("telemetry", tel.Shutdown)
	if err = m.start(ctx); err == nil {
		tel.Logger.InfoContext(ctx, "member is ready", "member", c.Member, "cluster", t.Cluster, "api", c.APIListen)
		<-ctx.Done()
		err = context.Cause(ctx)
	}
	if errors.Is(err, context.Canceled) && asked.Err() != nil {
		err = nil // it was asked to stop, maybe while it waited for the cluster's state
	}
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
	defer cancel()
	m.parts.Stop(end)
	return err
}

func (m *member) start(ctx context.Context) error {
	m.tel.Health.Set("state", errors.New("waiting for the cluster's state"))
	apiLn, err := listen("api_listen", m.c.APIListen)
	if err != nil {
		return err
	}
	m.parts.OnStop("api listener", func(context.Context) error { return ignoreClosed(apiLn.Close()) })
	if err := m.c.tidy(); err != nil { // before the log is opened, which may need the room
		return err
	}
	if err := m.startAdmin(ctx); err != nil {
		return err
	}
	if err := m.listenDNS(); err != nil {
		return err
	}
	if err := m.openConsul(ctx); err != nil {
		return err
	}
	if err := m.startConsensus(ctx); err != nil {
		return err
	}
	if err := m.awaitState(ctx); err != nil {
		return err
	}
	for _, part := range []func(context.Context) error{m.openKeys, m.startAudit, m.startBus, m.startEvents, m.startResolver, m.openHosts, m.openBackups} {
		if err := part(ctx); err != nil {
			return err
		}
	}
	m.parts.Start(ctx, "dns", m.dns.Run)
	m.startAPI(ctx, apiLn)
	m.startRegistration(ctx)
	m.parts.Start(ctx, "leader", m.lead)
	m.parts.Start(ctx, "leader check", m.watchLeader)
	m.parts.Start(ctx, "certificates", m.renew)
	m.parts.Start(ctx, "key-encryption key", m.watchKEK)
	m.parts.OnStop("leadership", m.handOver)
	m.tel.Health.Set("state", nil)
	return nil
}

// listen turns a bind error into what to do about it.
func listen(field, addr string) (net.Listener, error) {
	ln, err := net.Listen("tcp", addr)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fleet.NewError(fleet.ErrConflict, field, "%s: address %s is in use by another process: stop it, or change %s", field, addr, field)
	case errors.Is(err, syscall.EACCES):
		return nil, fleet.NewError(fleet.ErrDenied, field, "%s: no permission to listen at %s: use a port from 1024, or grant CAP_NET_BIND_SERVICE", field, addr)
	case err != nil:
		return nil, fmt.Errorf("%s: listen: %w", field, err)
	}
	return ln, nil
}

func ignoreClosed(err error) error {
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

func (m *member) startAdmin(ctx context.Context) error {
	ln, err := listen("admin_listen", m.c.AdminListen)
	if err != nil {
		return err
	}
	m.serve(ctx, "admin", ln, &http.Server{Handler: m.tel.Handler(), ReadHeaderTimeout: 5 * time.Second})
	return nil
}

// serve runs an HTTP server as a part.
func (m *member) serve(ctx context.Context, name string, ln net.Listener, srv *http.Server) {
	srv.ErrorLog = slog.NewLogLogger(m.tel.Logger.Handler(), slog.LevelDebug) // failed handshakes of strangers, mostly
	m.parts.Start(ctx, name, func(ctx context.Context) error {
		drained := make(chan struct{})
		stop := context.AfterFunc(ctx, func() {
			defer close(drained)
			end, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout/3)
			defer cancel()
			if srv.Shutdown(end) != nil {
				_ = srv.Close() // streams that do not end by themselves
			}
		})
		defer stop()
		var err error
		if srv.TLSConfig != nil {
			err = srv.ServeTLS(ln, "", "")
		} else {
			err = srv.Serve(ln)
		}
		if errors.Is(err, http.ErrServerClosed) {
			<-drained // requests that are under way need the parts that stop next
			return nil
		}
		return err
	})
}

func (m *member) startConsensus(ctx context.Context) error {
	node, err := m.c.openConsensus(m.trust, m.allowMember, fsm.New(m.state), m.tel)
	if err != nil {
		return err
	}
	m.node, m.raft = node, proposer{node: node, member: m.c.Member, state: m.state, raftTLS: m.trust.raftTLS(m.allowMember), membership: &sync.Mutex{}}
	m.parts.OnStop("consensus", node.Close)
	m.forward = &http.Transport{
		TLSClientConfig: mtls.ClientTLS(m.trust.source, m.trust.apiCA, "", nil), ForceAttemptHTTP2: true,
		TLSHandshakeTimeout: 3 * time.Second, ResponseHeaderTimeout: 15 * time.Second, MaxIdleConnsPerHost: 16,
		DialContext: (&net.Dialer{Timeout: 2 * time.Second}).DialContext,
	}
	m.waits = m.forward.Clone()
	m.waits.ResponseHeaderTimeout = 0
	m.waits.DisableKeepAlives = true                                                                  // a connection that always has a read waiting would outlive its certificate
	m.waits.HTTP2 = &http.HTTP2Config{SendPingTimeout: 5 * time.Second, PingTimeout: 5 * time.Second} // a member that is gone is noticed
	m.parts.Start(ctx, "announce", m.announce)
	m.parts.Start(ctx, "expulsion", m.expulsion)
	return nil
}

// awaitState blocks until this member's state has the cluster: at once after a restart, when the leader has sent it
// after a join.
func (m *member) awaitState(ctx context.Context) error {
	for {
		ws := m.state.Watch(state.Clusters)
		if c, ok := m.state.Read().Cluster(); ok {
			if c.ID != m.trust.Cluster {
				return fleet.NewError(fleet.ErrConflict, "data_dir", "the log in %s is of cluster %s, the identity of cluster %s: the directories of two clusters were mixed", m.c.DataDir, c.ID, m.trust.Cluster)
			}
			return nil
		}
		if err := ws.WatchCtx(ctx); err != nil {
			return context.Cause(ctx)
		}
	}
}

func (m *member) openKeys(ctx context.Context) error {
	kek, err := m.loadKEK(ctx)
	if err != nil || kek == nil {
		return err
	}
	kek.Use(func() string {
		c, _ := m.state.Read().Cluster()
		return c.KEK()
	})
	if m.keys, err = m.openSecrets(ctx, kek); err != nil {
		return err
	}
	m.kek = kek
	m.watch.set(nil, true)
	m.lib = blobs.New(m.state, m.keys)
	return nil
}

func (m *member) startAPI(ctx context.Context, ln net.Listener) {
	a := api.New(api.Options{
		Member: m.c.Member, State: m.state, Consensus: m.raft, Keys: m.keys, Library: m.lib, Events: m.events, Audit: m.audit,
		Report: m.nodes.Report, OriginsOut: m.nodes.OriginsOut, Checks: m.checks, PointsHere: m.pointsHere,
		Callers: m.c.callerLimits(), Scratch: m.c.DataDir, Forward: m.forward, ForwardWaiting: m.waits, ClientCAs: m.trust.clientCAs, Telemetry: m.tel, Now: time.Now,
		Recheck: m.recheck, Zone: m.showZone, CheckZone: m.checkZone, CertBudget: m.certBudget, Consul: m.consul.Consul != nil, Backups: m.backupStatus, Crash: m.crasher(), OwnStats: m.ownStats, Stats: m.stats,
		Healthy: api.Healthy{LastContact: m.c.Autopilot.LastContact, MaxTrailing: uint64(m.c.Autopilot.MaxTrailing)}, //nolint:gosec // validated
	})
	m.serve(ctx, "api", ln, a.Server(m.trust.apiSource))
	m.parts.Start(ctx, "api access", a.Run)
}

// runAll runs fs until all return; the first error ends the others.
func runAll(ctx context.Context, fs ...func(context.Context) error) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, f := range fs {
		g.Go(func() error { return f(ctx) })
	}
	return g.Wait()
}
