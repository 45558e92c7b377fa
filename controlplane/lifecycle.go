package controlplane

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"time"

	"github.com/edgefleet/edgefleet/controlplane/bus"
	"github.com/edgefleet/edgefleet/controlplane/client"
	"github.com/edgefleet/edgefleet/controlplane/dns/check"
	"github.com/edgefleet/edgefleet/controlplane/events"
	"github.com/edgefleet/edgefleet/controlplane/leader/nodes"
	"github.com/edgefleet/edgefleet/controlplane/state"
	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/observability"
	"github.com/edgefleet/edgefleet/tls/mtls"
)

// exiled is how long there is no leader before a member asks whether it still belongs to the cluster.
const exiled = 5 * time.Second

// announce tells the cluster this member's addresses until it belongs to it with these. It goes on whenever no leader is
// heard of for long: a member that was removed hears nothing more, and stops when it is told so.
func (m *member) announce(ctx context.Context) error {
	self := m.c.advertised(observability.Version)
	said := ""
	for pause := 100 * time.Millisecond; ; pause = min(2*pause, 5*time.Second) {
		if m.announced(self) {
			if err := m.awaitExile(ctx); err != nil {
				return nil
			}
		}
		err := m.announceOnce(ctx, self)
		if errors.Is(err, fleet.ErrDenied) {
			return err
		}
		if errors.Is(err, fleet.ErrConflict) && err.Error() != said { // which waiting does not cure
			said = err.Error()
			m.tel.Logger.WarnContext(ctx, "the leader does not take this member in yet", "member", self.ID, "err", err)
		} else if err != nil && ctx.Err() == nil {
			m.tel.Logger.DebugContext(ctx, "announcement not heard yet", "member", self.ID, "err", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
		}
	}
}

func (m *member) announced(self fleet.Member) bool {
	known, ok := m.state.Read().Member(self.ID)
	suffrage, err := m.raft.Suffrage()
	self.Meta, self.Join = known.Meta, known.Join
	return ok && err == nil && known == self && suffrage[self.ID] != ""
}

// awaitExile returns nil when no leader was heard of for long.
func (m *member) awaitExile(ctx context.Context) error {
	tick := time.NewTicker(exiled / 5)
	defer tick.Stop()
	for last := time.Now(); time.Since(last) < exiled; {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
		if id, _ := m.raft.Leader(); id != "" {
			last = time.Now()
		}
	}
	return nil
}

func (m *member) announceOnce(ctx context.Context, self fleet.Member) error {
	addrs := slices.Concat(m.joinAddresses(), m.trust.Peers)
	for _, other := range m.state.Read().Members() {
		if other.ID != self.ID {
			addrs = append(addrs, other.API)
		}
	}
	if leader, _ := m.raft.Leader(); leader == self.ID {
		addrs = []string{self.API}
	}
	if len(addrs) == 0 {
		return nil
	}
	// The one that is asked may itself be without a leader.
	rand.Shuffle(len(addrs), func(i, j int) { addrs[i], addrs[j] = addrs[j], addrs[i] })
	cl, err := client.New(client.Options{Addrs: addrs, TLS: mtls.ClientTLS(m.trust.source, m.trust.apiCA, "", nil), Timeout: 10 * time.Second})
	if err != nil {
		return err
	}
	return cl.Do(ctx, http.MethodPost, "/v1/cluster/announce", nil, self, nil)
}

func (m *member) startBus(ctx context.Context) error {
	var err error
	m.bus, err = bus.Open(bus.Options{
		Dir: m.c.path("nats"), Cluster: m.trust.Cluster, Member: m.c.Member, Listen: m.c.NATSListen, RouteListen: m.c.NATSRouteListen,
		Source: m.trust.source, MemberCA: m.trust.memberCA, ClientCAs: m.trust.clientCAs, Routes: m.otherRoutes(), Telemetry: m.tel, Admit: m.admit, AdmitMember: m.allowMember,
	})
	if err != nil {
		return err
	}
	m.parts.OnStop("bus", func(context.Context) error { m.bus.Close(); return nil })
	m.nodes = nodes.New(nodes.Options{State: m.state, Proposer: m.raft, ReapAfter: m.c.ReapAfter, Recheck: m.recheck, Logger: m.tel.Logger, Now: func() time.Time { return time.Now().UTC() }})
	m.parts.Start(ctx, "bus routes", m.routes)
	m.parts.Start(ctx, "bus admission", m.admission)
	if m.lib == nil {
		return nil // without the KEK there is nothing to answer nodes with; they ask another member
	}
	m.parts.Start(ctx, "library", func(ctx context.Context) error { return m.lib.Run(ctx, m.derived) })
	m.parts.Start(ctx, "bus answers", func(ctx context.Context) error { return m.bus.Serve(ctx, m.lib, m.nodes.Report) })
	return nil
}

// derived tells of trees that could not be derived: nodes keep what they have.
func (m *member) derived(ctx context.Context) error {
	if err := m.lib.Err(); err != nil {
		m.tel.Logger.ErrorContext(ctx, "bundles not derived, nodes keep what they have", "err", err)
	}
	return nil
}

// admit says which group a node belongs to, from local state: nodes reconnect without quorum.
func (m *member) admit(id fleet.NodeID) (fleet.GroupName, error) {
	n, ok := m.state.Read().Node(id)
	if !ok {
		return "", fleet.NewError(fleet.ErrDenied, "node", "node %s is not part of this fleet", id)
	}
	return n.Spec.Group, n.Refusal()
}

// admissionPause bounds how often connections are looked at: nodes change with every report that says something new.
const admissionPause = time.Second

// admission ends the connections of nodes that were revoked, locked, or moved to another group, since they connected.
func (m *member) admission(ctx context.Context) error {
	for {
		ws := m.state.Watch(state.Nodes)
		if err := m.bus.Recheck(); err != nil {
			m.tel.Logger.WarnContext(ctx, "connections of nodes not checked", "err", err)
		}
		if ws.WatchCtx(ctx) != nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(admissionPause):
		}
	}
}

// routesRetry is the pause before a bus that did not come back after a change of the membership is started again.
const routesRetry = time.Second

// routes keeps the bus clustered with the members that the state knows. Until it is, it tries again: without, a member
// of which the server did not come back would have no bus until the membership changes once more.
func (m *member) routes(ctx context.Context) error {
	for {
		ws := m.state.Watch(state.Members)
		err := m.bus.SetRoutes(m.otherRoutes())
		m.tel.Health.Set("bus", err)
		wait, cancel := ctx, context.CancelFunc(func() {})
		if err != nil {
			m.tel.Logger.ErrorContext(ctx, "bus cannot follow the membership, trying again", "err", err)
			wait, cancel = context.WithTimeout(ctx, routesRetry)
		}
		_ = ws.WatchCtx(wait)
		cancel()
		if ctx.Err() != nil {
			return nil
		}
	}
}

// otherRoutes are the route addresses of the other members that the state knows.
func (m *member) otherRoutes() []string {
	var routes []string
	for _, other := range m.state.Read().Members() {
		if other.ID != m.c.Member {
			routes = append(routes, other.NATSRoute)
		}
	}
	return routes
}

func (m *member) startEvents(ctx context.Context) error {
	shared, err := m.c.Events.Postgres.open()
	if err != nil {
		return err
	}
	m.events, err = events.Open(events.Options{Dir: m.c.path("events"), Postgres: shared, Telemetry: m.tel, Retention: m.c.EventRetention})
	if err != nil {
		return fmt.Errorf("open event store: %w", err)
	}
	m.parts.OnStop("event store", func(context.Context) error { return m.events.Close() })
	p, err := events.NewProjection(events.ProjectionOptions{
		Store: m.events, Member: m.c.Member, Voters: m.raft.voters, JetStream: m.bus.JetStream(), Publish: m.bus.Publish, Telemetry: m.tel,
	})
	if err != nil {
		return err
	}
	m.parts.Start(ctx, "event projection", p.Run)
	r, err := events.NewRepair(events.RepairOptions{Store: m.events, Peers: eventPeers{m}, Telemetry: m.tel})
	if err != nil {
		return err
	}
	m.parts.Start(ctx, "event repair", r.Run)
	return nil
}

func (m *member) startResolver(context.Context) (err error) {
	m.check = &check.Resolver{Servers: m.c.Resolvers}
	if len(m.c.Resolvers) == 0 {
		if m.check, err = check.System("/etc/resolv.conf"); err != nil {
			return err
		}
	}
	if m.c.EdgeHTTPSPort == 443 { // edges at another port are not where a public CA looks
		m.check.HTTPPort, m.check.HTTPSPort = 80, 443
	}
	return nil
}
