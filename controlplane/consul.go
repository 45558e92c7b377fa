package controlplane

import (
	"context"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"

	"github.com/edgefleet/edgefleet/controlplane/discovery"
	"github.com/edgefleet/edgefleet/controlplane/leader/origins"
	"github.com/edgefleet/edgefleet/controlplane/state"
	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/observability"
)

// joinByConsul is the entry of retry_join that stands for the members registered in Consul.
const joinByConsul = "consul"

func (c Consul) withDefaults() Consul {
	setDefault(&c.MemberService, "edgefleet-controlplane")
	setDefault(&c.NodeService, "edgefleet-edge")
	setDefault(&c.TTL, 30*time.Second)
	setDefault(&c.DeregisterAfter, time.Hour)
	return c
}

func (c Config) validateConsul() error {
	for _, entry := range c.RetryJoin {
		if entry == joinByConsul && c.Consul.Address == "" {
			return fleet.Invalid("retry_join", "%q needs consul.address", entry)
		}
		if host, port, err := net.SplitHostPort(entry); entry != joinByConsul && (err != nil || host == "" || port == "" || port == "0") {
			return fleet.Invalid("retry_join", "%q is not the API address of a member: give host:port, such as 203.0.113.1:8440, or the word %s", entry, joinByConsul)
		}
	}
	if c.Consul.Address == "" {
		given := c.Consul
		given.Tags = nil
		if want := (Consul{}).withDefaults(); fmt.Sprint(given) != fmt.Sprint(want) || len(c.Consul.Tags) > 0 {
			return fleet.Invalid("consul.address", "the other settings of consul need it: give the agent's address, such as 127.0.0.1:8500")
		}
		return nil
	}
	return c.Consul.validate()
}

func (c Consul) validate() error {
	u, err := c.url()
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Port() == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" || u.Path != "" && u.Path != "/" {
		return fleet.Invalid("consul.address", "%q is not the address of a Consul agent: give host:port, or https://host:port", c.Address)
	}
	a, err := netip.ParseAddr(u.Hostname())
	local := u.Hostname() == "localhost" || err == nil && a.IsLoopback()
	if c.TokenFile != "" && u.Scheme == "http" && !local {
		return fleet.Invalid("consul.address", "%s would show the token to the network: use https, or the agent on this host", c.Address)
	}
	if (c.CertFile == "") != (c.KeyFile == "") {
		return fleet.Invalid("consul.cert_file", "cert_file and key_file belong together: give both or none")
	}
	if c.MemberService == c.NodeService {
		return fleet.Invalid("consul.node_service", "members and nodes cannot be one service: choose another name than %q", c.MemberService)
	}
	for field, name := range map[string]string{"member_service": c.MemberService, "node_service": c.NodeService} {
		if fleet.ValidateID("service", fleet.NodeID(name)) != nil {
			return fleet.Invalid("consul."+field, "%q cannot be a name in DNS: use 1 to 63 of a-z, 0-9 and '-'", name)
		}
	}
	if len(c.Tags) > 16 || slices.ContainsFunc(c.Tags, func(t string) bool { return t == "" || len(t) > 128 }) {
		return fleet.Invalid("consul.tags", "give at most 16 tags of 1 to 128 bytes")
	}
	if c.TTL < 5*time.Second || c.TTL > 10*time.Minute {
		return fleet.Invalid("consul.ttl", "%s is not between 5s and 10m", c.TTL)
	}
	if c.DeregisterAfter < time.Minute {
		return fleet.Invalid("consul.deregister_after", "%s is less than a minute, which is the least that Consul takes", c.DeregisterAfter)
	}
	return nil
}

func (c Consul) url() (*url.URL, error) {
	if !strings.Contains(c.Address, "://") {
		return url.Parse("http://" + c.Address)
	}
	return url.Parse(c.Address)
}

func (c Consul) open(tel *observability.Telemetry) (*discovery.Consul, error) {
	return discovery.Open(discovery.Options{
		Address: c.Address, TokenFile: c.TokenFile, CAFile: c.CAFile, CertFile: c.CertFile, KeyFile: c.KeyFile, Datacenter: c.Datacenter, Telemetry: tel,
	})
}

// consulPart is Consul as a member uses it. Its zero value is a member without Consul.
type consulPart struct {
	*discovery.Consul
	registrar *discovery.Registrar

	mu sync.Mutex
	// members are the API addresses that Consul knows.
	members []string
}

// openConsul prepares what needs Consul. It does not wait for it. What it registers at stop runs after consensus was
// closed, when another member leads.
func (m *member) openConsul(ctx context.Context) (err error) {
	m.consul = &consulPart{}
	if m.c.Consul.Address != "" {
		if m.consul.Consul, err = m.c.Consul.open(m.tel); err != nil {
			return err
		}
		m.consul.registrar = discovery.NewRegistrar(m.consul.Consul, discovery.RegistrarOptions{
			Cluster: m.trust.Cluster, Member: m.c.Member, TTL: m.c.Consul.TTL, DeregisterAfter: m.c.Consul.DeregisterAfter,
			Inventory: m.inventory, Now: time.Now,
			Changed: func(ctx context.Context) {
				ws := m.state.Watch(state.Nodes, state.Members)
				_ = ws.WatchCtx(ctx)
			},
		})
		m.parts.OnStop("registrations", func(ctx context.Context) error {
			ctx, cancel := context.WithTimeout(ctx, stopTimeout/3)
			defer cancel()
			return m.consul.registrar.Stop(ctx, len(m.state.Read().Members()) > 1)
		})
	}
	if slices.Contains(m.c.RetryJoin, joinByConsul) {
		m.parts.Start(ctx, "consul members", m.followMembers)
	}
	discovery.Instruments(m.tel, m.consul.Consul, m.consul.registrar)
	m.tel.Gauge("edgefleet_origin_services", m.originStates)
	return nil
}

// startRegistration keeps this member registered, and the nodes while it leads.
func (m *member) startRegistration(ctx context.Context) {
	if m.consul.registrar != nil {
		m.parts.Start(ctx, "registration", m.consul.registrar.Run)
	}
}

// followMembers keeps the addresses of the members that are registered.
func (m *member) followMembers(ctx context.Context) error {
	m.consul.WatchMembers(ctx, m.c.Consul.MemberService, func(addrs []string) {
		m.consul.mu.Lock()
		defer m.consul.mu.Unlock()
		m.consul.members = addrs
	})
	return nil
}

// joinAddresses are the API addresses that retry_join stands for now.
func (m *member) joinAddresses() []string {
	var out []string
	for _, entry := range m.c.RetryJoin {
		if entry != joinByConsul {
			out = append(out, entry)
			continue
		}
		m.consul.mu.Lock()
		out = append(out, m.consul.members...)
		m.consul.mu.Unlock()
	}
	return out
}

// inventory is what is to be registered, from this member's state.
func (m *member) inventory() discovery.Inventory {
	v := m.state.Read()
	leader, leads := m.raft.Leader()
	in := discovery.Inventory{Leads: leads, Led: leader != "" && !leads, Objects: map[string][]string{m.c.Consul.MemberService: {}, m.c.Consul.NodeService: {}}}
	for _, other := range v.Members() {
		in.Objects[m.c.Consul.MemberService] = append(in.Objects[m.c.Consul.MemberService], string(other.ID))
		if other.ID == m.c.Member {
			in.Services = append(in.Services, m.memberService(other, leads))
		}
	}
	for _, n := range v.Nodes() {
		if !n.Identity.RevokedAt.IsZero() {
			continue
		}
		in.Objects[m.c.Consul.NodeService] = append(in.Objects[m.c.Consul.NodeService], string(n.ID))
		in.Services = append(in.Services, m.nodeService(n))
	}
	return in
}

// memberService is this member; its check says what /readyz does.
func (m *member) memberService(self fleet.Member, leads bool) discovery.Service {
	host, port := splitPort(self.API)
	s := discovery.Service{
		Name: m.c.Consul.MemberService, Object: string(self.ID), Address: host, Port: port, Tags: slices.Clone(m.c.Consul.Tags),
		Meta:   map[string]string{"version": observability.Version, "zone": string(m.trust.Zone), "dns": self.DNS},
		Status: discovery.Passing, Output: "ready for work",
	}
	if leads {
		s.Tags = append(s.Tags, "leader")
	}
	failing := m.tel.Health.Ready()
	var why []string
	for _, name := range slices.Sorted(maps.Keys(failing)) {
		why = append(why, name+": "+failing[name])
	}
	if len(why) > 0 {
		s.Status, s.Output = discovery.Critical, strings.Join(why, "; ")
	}
	return s
}

// nodeService is an edge node; its check says what its heartbeats do.
func (m *member) nodeService(n fleet.Node) discovery.Service {
	s := discovery.Service{
		Name: m.c.Consul.NodeService, Object: string(n.ID), Port: int(m.c.EdgeHTTPSPort), Shared: true, Tagged: map[string]string{},
		Tags: append(slices.Clone(m.c.Consul.Tags), "region-"+string(n.Spec.Region), "group-"+string(n.Spec.Group)),
		Meta: map[string]string{"region": string(n.Spec.Region), "group": string(n.Spec.Group), "version": n.Observed.Software},
	}
	for _, a := range n.Spec.Addresses {
		if s.Address == "" {
			s.Address = a.String()
		}
		tag := "lan_ipv6"
		if a.Is4() {
			tag = "lan_ipv4"
		}
		if s.Tagged[tag] == "" {
			s.Tagged[tag] = a.String()
		}
	}
	switch o := n.Observed; {
	case o.State != fleet.NodeUp:
		s.Status, s.Output = discovery.Critical, fmt.Sprintf("node is %s since %s", o.State, o.Since.UTC().Format(time.RFC3339))
	case !o.Serving:
		s.Status, s.Output = discovery.Critical, "heartbeats arrive, but the worker does not serve"
	case n.Spec.Cordoned:
		s.Status, s.Output, s.Maintenance = discovery.Warning, "cordoned", "cordoned: 'fleetctl node uncordon "+string(n.ID)+"' ends it"
	case o.ClockSkew != "":
		s.Status, s.Output = discovery.Warning, "the node's clock is off by "+o.ClockSkew
	default:
		s.Status, s.Output = discovery.Passing, "heartbeats arrive, and the worker serves"
	}
	return s
}

func splitPort(addr string) (host string, port int) {
	host, text, err := net.SplitHostPort(addr)
	if err != nil {
		return addr, 0
	}
	port, _ = strconv.Atoi(text) // checked when the member announced itself
	return host, port
}

// originLoop is the leader's loop that follows services.
func (m *member) originLoop() *origins.Loop {
	o := origins.Options{State: m.state, Proposer: m.raft, Now: utcNow, Degraded: func(err error) { m.tel.Health.Degrade("origins", err) }}
	if m.consul.Consul != nil {
		o.Watcher = m.consul.Consul
	}
	return origins.New(o)
}

// originStates counts origins that are services by the state of their condition.
func (m *member) originStates() []observability.Sample {
	counts := map[fleet.ConditionState]float64{fleet.ConditionTrue: 0, fleet.ConditionFalse: 0, fleet.ConditionWaiting: 0}
	for _, o := range m.state.Read().AllOrigins() {
		for _, s := range o.Services {
			counts[s.Condition.State]++
		}
	}
	var out []observability.Sample
	for _, st := range slices.Sorted(maps.Keys(counts)) {
		out = append(out, observability.Sample{Value: counts[st], Attrs: []attribute.KeyValue{attribute.String("state", string(st))}})
	}
	return out
}

// checkConsul is Consul's line of the cluster's checks; none without Consul.
func (m *member) checkConsul() []fleet.Check {
	degraded := m.tel.Health.Degraded()
	c := fleet.Check{Name: "consul", State: fleet.CheckOK, Detail: "answers at " + m.c.Consul.Address}
	switch {
	case degraded["consul"] != "":
		c.State, c.Detail = fleet.CheckWarn, degraded["consul"]
	case degraded["origins"] != "":
		c.State, c.Detail = fleet.CheckWarn, degraded["origins"]
	case m.consul.Consul == nil:
		return nil
	}
	return []fleet.Check{c}
}
