package discovery_test

import (
	"context"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/consul/api"

	"github.com/edgefleet/edgefleet/controlplane/discovery"
	"github.com/edgefleet/edgefleet/controlplane/discovery/consultest"
	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/observability"
)

// control is what the members of a cluster agree on: who leads, and how the nodes are.
type control struct {
	mu     sync.Mutex
	leader string
	alive  map[string]bool
	nodes  map[string]discovery.Service
}

func newControl() *control {
	c := &control{leader: "m1", alive: map[string]bool{"m1": true, "m2": true}, nodes: map[string]discovery.Service{}}
	for name, addr := range map[string]string{"n1": "198.51.100.1", "n2": "198.51.100.2"} {
		c.nodes[name] = discovery.Service{
			Name: "edgefleet-edge", Object: name, Address: addr, Tagged: map[string]string{"lan_ipv4": addr}, Port: 443, Tags: []string{"region-eu", "group-default"},
			Meta: map[string]string{"version": "1.0"}, Status: discovery.Passing, Output: "serves", Shared: true,
		}
	}
	return c
}

func (c *control) change(f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f()
}

func (c *control) node(name string, f func(*discovery.Service)) {
	c.change(func() {
		s := c.nodes[name]
		f(&s)
		c.nodes[name] = s
	})
}

func (c *control) inventory(member string) discovery.Inventory {
	c.mu.Lock()
	defer c.mu.Unlock()
	in := discovery.Inventory{
		Leads: c.leader == member, Led: c.leader != "" && c.leader != member,
		Objects: map[string][]string{"edgefleet-controlplane": slices.Sorted(maps.Keys(c.alive)), "edgefleet-edge": slices.Sorted(maps.Keys(c.nodes))},
	}
	if c.alive[member] {
		s := discovery.Service{Name: "edgefleet-controlplane", Object: member, Address: "192.0.2.1", Port: 8440, Status: discovery.Passing, Output: "ready"}
		if in.Leads {
			s.Tags = []string{"leader"}
		}
		in.Services = append(in.Services, s)
	}
	for _, name := range slices.Sorted(maps.Keys(c.nodes)) {
		in.Services = append(in.Services, c.nodes[name])
	}
	return in
}

// registrar is a running one.
type registrar struct {
	*discovery.Registrar
	end  context.CancelFunc
	done chan error
}

func (c *control) run(t *testing.T, member string, o discovery.Options) *registrar {
	t.Helper()
	r := &registrar{done: make(chan error, 1)}
	r.Registrar = discovery.NewRegistrar(open(t, o), discovery.RegistrarOptions{
		Cluster: "c-1", Member: fleet.MemberID(member), TTL: 5 * time.Second, DeregisterAfter: time.Minute, Step: 50 * time.Millisecond, Now: time.Now,
		Inventory: func() discovery.Inventory { return c.inventory(member) }, Changed: func(ctx context.Context) { <-ctx.Done() },
	})
	ctx, cancel := context.WithCancel(t.Context())
	r.end = sync.OnceFunc(func() {
		cancel()
		if err := <-r.done; err != nil {
			t.Error(err)
		}
	})
	go func() { r.done <- r.Run(ctx) }()
	t.Cleanup(r.end)
	return r
}

func healthOf(t *testing.T, s *consultest.Server, service string, want map[string]string) {
	t.Helper()
	var got map[string]string
	defer func() {
		if t.Failed() {
			t.Log(cmp.Diff(want, got))
		}
	}()
	await(t, service+" is as it should be", func() bool { got = s.Health(service); return maps.Equal(got, want) })
}

func TestRegistrationsFollowHealth(t *testing.T) {
	s := consultest.Start(t)
	c := newControl()
	tel := observability.Discard()
	r := c.run(t, "m1", discovery.Options{Address: s.Address, Telemetry: tel})
	const members, nodes = "edgefleet-controlplane", "edgefleet-edge"
	healthOf(t, s, members, map[string]string{"m1": "passing"})
	healthOf(t, s, nodes, map[string]string{"n1": "passing", "n2": "passing"})
	entries, _, err := s.API.Health().Service(nodes, "region-eu", true, nil)
	if err != nil || len(entries) != 2 {
		t.Fatal(len(entries), err)
	}
	if e := entries[0].Service; e.Address != "198.51.100.1" || e.Port != 443 || e.Meta["version"] != "1.0" || e.TaggedAddresses["lan_ipv4"].Address != "198.51.100.1" {
		t.Errorf("%+v", e)
	}

	c.node("n1", func(s *discovery.Service) { s.Status, s.Output = discovery.Critical, "node is down" })
	c.node("n2", func(s *discovery.Service) { s.Maintenance = "cordoned" })
	healthOf(t, s, nodes, map[string]string{"n1": "critical", "n2": "maintenance"})
	checks, _, err := s.API.Health().Checks(nodes, nil)
	if err != nil || !slices.ContainsFunc(checks, func(h *api.HealthCheck) bool { return h.Output == "node is down" }) {
		t.Errorf("no check says why: %v", err)
	}
	c.node("n1", func(s *discovery.Service) { s.Status, s.Output = discovery.Passing, "serves" })
	c.node("n2", func(s *discovery.Service) { s.Maintenance = "" })
	healthOf(t, s, nodes, map[string]string{"n1": "passing", "n2": "passing"})

	// What a restarted agent forgot, and what somebody removed, is registered again; what is of nobody is not left.
	c.node("n2", func(s *discovery.Service) { s.Maintenance = "cordoned" })
	healthOf(t, s, nodes, map[string]string{"n1": "passing", "n2": "maintenance"})
	s.Kill()
	await(t, "it is degraded", func() bool { return tel.Health.Degraded()["consul"] != "" })
	s.Begin()
	healthOf(t, s, nodes, map[string]string{"n1": "passing", "n2": "maintenance"})
	healthOf(t, s, members, map[string]string{"m1": "passing"})
	await(t, "it is not degraded", func() bool { return tel.Health.Degraded()["consul"] == "" && r.Registered() == 3 })

	c.change(func() { delete(c.nodes, "n2") })
	healthOf(t, s, nodes, map[string]string{"n1": "passing"})

	r.end()
	if err := r.Stop(t.Context(), false); err != nil {
		t.Error(err)
	}
	healthOf(t, s, members, map[string]string{})
	healthOf(t, s, nodes, map[string]string{"n1": "passing"}) // until its time is over: there is nobody to take over
	healthOf(t, s, nodes, map[string]string{"n1": "critical"})
}

func TestTheNextLeaderTakesOverAndNoNodeIsMissing(t *testing.T) {
	s := consultest.Start(t, consultest.WithACL())
	token := t.TempDir() + "/token"
	write(t, token, leastToken(t, s))
	c := newControl()
	o := discovery.Options{Address: s.Address, TokenFile: token}
	first, second := c.run(t, "m1", o), c.run(t, "m2", o)
	const nodes = "edgefleet-edge"
	healthOf(t, s, nodes, map[string]string{"n1": "passing", "n2": "passing"})
	healthOf(t, s, "edgefleet-controlplane", map[string]string{"m1": "passing", "m2": "passing"})

	// From here on both nodes must be there, at any time.
	ctx, cancel := context.WithCancel(t.Context())
	var missing int
	var looking sync.WaitGroup
	looking.Go(func() {
		for ctx.Err() == nil {
			entries, _, err := s.API.Health().Service(nodes, "", true, (&api.QueryOptions{}).WithContext(ctx))
			if err == nil && len(entries) < 2 {
				missing++
			}
		}
	})
	keeper := func(name string) bool {
		at, err := s.API.Agent().Services()
		return err == nil && at["edgefleet-edge-c-1-n1"].Meta["edgefleet_member"] == name && at["edgefleet-edge-c-1-n2"].Meta["edgefleet_member"] == name
	}
	c.change(func() { c.leader = "" })
	c.change(func() { c.leader = "m2" })
	await(t, "the new leader keeps the nodes", func() bool { return keeper("m2") })
	await(t, "the old one does not", func() bool { return first.Registered() == 1 && second.Registered() == 3 })
	leaders, _, err := s.API.Health().Service("edgefleet-controlplane", "leader", true, nil)
	if err != nil || len(leaders) != 1 || leaders[0].Service.Meta["edgefleet_object"] != "m2" {
		t.Errorf("leaders %v %v", leaders, err)
	}
	// An orderly stop of the leader: leadership moves, the other takes over, and then its own registrations go.
	second.end()
	c.change(func() { c.leader = "m1" })
	if err := second.Stop(t.Context(), true); err != nil {
		t.Error(err)
	}
	await(t, "the first keeps the nodes", func() bool { return keeper("m1") })
	healthOf(t, s, "edgefleet-controlplane", map[string]string{"m1": "passing"})
	cancel()
	looking.Wait()
	if missing > 0 {
		t.Errorf("a node was missing %d times", missing)
	}
}

func TestWhatIsLeftOfMembersThatAreGoneIsRemoved(t *testing.T) {
	s := consultest.Start(t)
	c := newControl()
	second := c.run(t, "m2", discovery.Options{Address: s.Address})
	healthOf(t, s, "edgefleet-controlplane", map[string]string{"m2": "passing"})
	second.end() // killed: it deregisters nothing
	if _, err := s.API.Catalog().Register(&api.CatalogRegistration{
		Node: "lost-host", Address: "192.0.2.99",
		Service: &api.AgentService{ID: "edgefleet-edge-c-1-n9", Service: "edgefleet-edge", Meta: map[string]string{"edgefleet_cluster": "c-1", "edgefleet_object": "n9", "edgefleet_member": "m9"}},
		Check:   &api.AgentCheck{CheckID: "service:n9", ServiceID: "edgefleet-edge-c-1-n9", Status: api.HealthCritical},
	}, nil); err != nil {
		t.Fatal(err)
	}
	s.Register("edgefleet-edge-other", "edgefleet-edge", "192.0.2.5", 443) // of another cluster
	c.change(func() { delete(c.alive, "m2") })
	c.run(t, "m1", discovery.Options{Address: s.Address})
	healthOf(t, s, "edgefleet-controlplane", map[string]string{"m1": "passing"})
	healthOf(t, s, "edgefleet-edge", map[string]string{"n1": "passing", "n2": "passing", "": "passing"})
}

func TestOneRegistrationThatIsRefusedHoldsUpNoOther(t *testing.T) {
	s := consultest.Start(t)
	c := newControl()
	c.node("n1", func(s *discovery.Service) { s.Address = "0.0.0.0" }) // which Consul takes for no address
	tel := observability.Discard()
	r := c.run(t, "m1", discovery.Options{Address: s.Address, Telemetry: tel})
	healthOf(t, s, "edgefleet-edge", map[string]string{"n2": "passing"})
	await(t, "what is refused is told", func() bool { return strings.Contains(tel.Health.Degraded()["consul"], "n1") })
	c.node("n2", func(s *discovery.Service) { s.Status = discovery.Critical })
	healthOf(t, s, "edgefleet-edge", map[string]string{"n2": "critical"})
	c.change(func() { delete(c.nodes, "n2") })
	healthOf(t, s, "edgefleet-edge", map[string]string{})
	c.node("n1", func(s *discovery.Service) { s.Address = "198.51.100.1" })
	healthOf(t, s, "edgefleet-edge", map[string]string{"n1": "passing"})
	await(t, "nothing is told any more", func() bool { return len(tel.Health.Degraded()) == 0 })
	r.end()
}
