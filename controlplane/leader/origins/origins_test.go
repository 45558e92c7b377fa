package origins_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/raft"

	"github.com/edgefleet/edgefleet/controlplane/command"
	"github.com/edgefleet/edgefleet/controlplane/fsm"
	"github.com/edgefleet/edgefleet/controlplane/leader/origins"
	"github.com/edgefleet/edgefleet/controlplane/state"
	"github.com/edgefleet/edgefleet/fleet"
)

const host fleet.HostName = "www.acme.example"

const web = "consul://web"

// cluster applies what is proposed to a real state machine, and plays the registry.
type cluster struct {
	t       *testing.T
	state   *state.Store
	machine *fsm.FSM

	mu        sync.Mutex
	index     uint64
	proposals int
	degraded  error
	listeners map[string]func([]fleet.Instance, error)
}

func newCluster(t *testing.T, urls ...string) *cluster {
	t.Helper()
	s := state.New()
	c := &cluster{t: t, state: s, machine: fsm.New(s), listeners: map[string]func([]fleet.Instance, error){}}
	tx := s.Write()
	tx.PutCluster(fleet.ClusterRecord{Cluster: fleet.Cluster{ID: "c1", Zone: "edge.example.net"}})
	tx.PutTenant(fleet.Tenant{ID: "acme", Spec: fleet.TenantSpec{Group: fleet.DefaultGroup, Form: fleet.SecurityEdge}})
	tx.PutNode(fleet.Node{ID: "n1", Spec: fleet.NodeSpec{Addresses: []netip.Addr{netip.MustParseAddr("198.51.100.1")}}})
	c.putHost(tx, host, urls...)
	tx.Commit()
	return c
}

func (c *cluster) putHost(tx *state.Tx, name fleet.HostName, urls ...string) {
	h := fleet.Host{Name: name, Tenant: "acme", Spec: fleet.HostSpec{Mode: fleet.ModeBlock}}
	for _, u := range urls {
		h.Spec.Origins = append(h.Spec.Origins, fleet.Origin{URL: u})
	}
	tx.PutHost(h)
}

func (c *cluster) write(f func(*state.Tx)) {
	tx := c.state.Write()
	f(tx)
	tx.Commit()
	c.settle()
}

// settle lets the loop do all that it has to do.
func (c *cluster) settle() {
	time.Sleep(time.Second)
	synctest.Wait()
}

func (c *cluster) Propose(_ context.Context, h command.Header, b command.Body) (any, error) {
	entry, err := command.Encode(h, b)
	if err != nil {
		c.t.Error(err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.index++
	c.proposals++
	r, ok := c.machine.Apply(&raft.Log{Index: c.index, Data: entry}).(fsm.Result)
	if !ok || r.Err != nil || h.Name != "leader/origins" {
		c.t.Errorf("%s by %s: %v", b.Type(), h.Name, r.Err)
	}
	return r.Object, nil
}

// Watch plays the registry, which answers when the test says so.
func (c *cluster) Watch(ctx context.Context, s fleet.ConsulOrigin, got func([]fleet.Instance, error)) {
	c.mu.Lock()
	c.listeners[s.Query()] = got
	c.mu.Unlock()
	<-ctx.Done()
	c.mu.Lock()
	delete(c.listeners, s.Query())
	c.mu.Unlock()
}

func (c *cluster) watched() (out []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for q := range c.listeners {
		out = append(out, q)
	}
	slices.Sort(out)
	return out
}

// says makes the registry answer for the service web.
func (c *cluster) says(err error, addrs ...string) {
	c.t.Helper()
	var is []fleet.Instance
	for _, a := range addrs {
		is = append(is, fleet.Instance{Address: a, Port: 80})
	}
	c.mu.Lock()
	got := c.listeners["web"]
	c.mu.Unlock()
	if got == nil {
		c.t.Fatal("nobody listens")
	}
	got(is, err)
	c.settle()
}

// lead runs the loop until stop.
func (c *cluster) lead(w origins.Watcher) (stop func()) {
	c.t.Helper()
	l := origins.New(origins.Options{State: c.state, Proposer: c, Watcher: w, Now: time.Now, Degraded: func(err error) {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.degraded = err
	}})
	ctx, cancel := context.WithCancel(c.t.Context())
	done := make(chan error, 1)
	go func() { done <- l.Run(ctx) }()
	c.settle()
	return func() {
		cancel()
		if err := <-done; err != nil {
			c.t.Error(err)
		}
	}
}

// is holds the host's only service against what it should stand for.
func (c *cluster) is(what string, st fleet.ConditionState, reason string, want ...string) {
	c.t.Helper()
	o, _ := c.state.Read().HostOrigins(host)
	if len(o.Services) != 1 {
		c.t.Errorf("%s: %+v", what, o)
		return
	}
	s := o.Services[0]
	var got []string
	for _, i := range s.Instances {
		got = append(got, i.URL)
	}
	if diff := cmp.Diff(want, got); diff != "" || s.Condition.State != st || s.Condition.Reason != reason {
		c.t.Errorf("%s: %s %s %q\n%s", what, s.Condition.State, s.Condition.Reason, s.Condition.Message, diff)
	}
}

const (
	a, b = "http://203.0.113.7:80", "http://203.0.113.8:80"
	yes  = fleet.ConditionTrue
	no   = fleet.ConditionFalse
	wait = fleet.ConditionWaiting
)

func TestTheLoopFollowsAService(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, web, "https://203.0.113.1")
		stop := c.lead(c)
		defer func() { stop() }()
		c.is("nothing is known", wait, fleet.ReasonOriginUnresolved)
		c.says(errors.New("refused"))
		c.is("Consul is away", wait, fleet.ReasonOriginUnresolved)
		c.says(nil)
		c.is("there is none", wait, fleet.ReasonOriginUnresolved)
		c.says(nil, "203.0.113.7", "203.0.113.8")
		c.is("two", yes, "", a, b)
		before := c.proposals
		c.says(nil, "203.0.113.7", "203.0.113.8")
		c.says(errors.New("refused"))
		c.is("Consul is away, and the last stay", yes, "", a, b)
		if c.proposals != before {
			t.Errorf("%d commands for no change", c.proposals-before)
		}
		c.says(nil, "203.0.113.8")
		c.is("one", yes, "", b)
		c.says(nil)
		c.is("none is healthy, and the last stays", no, fleet.ReasonOriginNoInstance, b)
		since, _ := c.state.Read().HostOrigins(host)

		stop()
		before = c.proposals
		stop = c.lead(c)
		c.is("a new leader that knows nothing yet changes nothing", no, fleet.ReasonOriginNoInstance, b)
		c.says(errors.New("refused"))
		c.says(nil)
		c.is("nor when it hears the same", no, fleet.ReasonOriginNoInstance, b)
		again, _ := c.state.Read().HostOrigins(host)
		if c.proposals != before || !again.Services[0].Condition.Since.Equal(since.Services[0].Condition.Since) {
			t.Errorf("%d commands, %v then %v", c.proposals-before, since, again)
		}
		c.says(nil, "203.0.113.7")
		c.is("and follows it", yes, "", a)
	})
}

func TestInstancesThatAHostMustNotHave(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, web)
		defer c.lead(c)()
		c.says(nil, "10.0.0.1", "127.0.0.1", "169.254.169.254", "198.51.100.1", "lb.edge.example.net", "www.acme.example", "", "a b", strings.Repeat("x", 70000))
		c.is("none is good", no, fleet.ReasonOriginRefused)
		o, _ := c.state.Read().HostOrigins(host)
		if n := len(o.Services[0].Refused); n != 9 {
			t.Errorf("%d are refused: %+v", n, o.Services[0].Refused)
		}
		for _, r := range o.Services[0].Refused {
			if r.Reason == "" || len(r.Instance) > 256 || len(r.Reason) > 256 {
				t.Errorf("refused without a reason, or with too long a one: %+v", r)
			}
		}
		c.says(nil, "10.0.0.1", "203.0.113.7", "app.example.org")
		c.is("the good ones are taken", no, fleet.ReasonOriginRefused, a, "http://app.example.org:80")
		allow := func(ps ...netip.Prefix) {
			c.write(func(tx *state.Tx) {
				v, _ := tx.Tenant("acme")
				v.Spec.AllowedOrigins = ps
				tx.PutTenant(v)
			})
		}
		allow(netip.MustParsePrefix("10.0.0.0/8"))
		c.is("an operator allowed the range", yes, "", "http://10.0.0.1:80", a, "http://app.example.org:80")
		c.says(nil, "10.0.0.1")
		c.is("it alone", yes, "", "http://10.0.0.1:80")
		allow()
		c.is("the range is closed again: what is private does not stay as the last good one", no, fleet.ReasonOriginRefused)
	})
}

func TestWatchesFollowTheHosts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, web, "consul://api?tag=x", "consul://web?scheme=https")
		stop := c.lead(c)
		watches := func(want ...string) {
			t.Helper()
			if diff := cmp.Diff(want, c.watched()); diff != "" {
				t.Error(diff)
			}
		}
		watches("api?tag=x", "web")
		c.says(nil, "203.0.113.7")
		o, _ := c.state.Read().HostOrigins(host)
		if len(o.Services) != 3 || o.Services[0].Instances[0].URL != a || o.Services[2].Instances[0].URL != "https://203.0.113.7:80" {
			t.Errorf("%+v", o)
		}
		c.write(func(tx *state.Tx) { c.putHost(tx, host, "consul://api?tag=x") })
		watches("api?tag=x")
		c.write(func(tx *state.Tx) { c.putHost(tx, host, "https://203.0.113.1") })
		watches()
		if o, ok := c.state.Read().HostOrigins(host); ok {
			t.Errorf("what a host does not name any more is kept: %+v", o)
		}
		c.write(func(tx *state.Tx) {
			for i := range 200 {
				c.putHost(tx, fleet.HostName(fmt.Sprintf("h%d.acme.example", i)), web)
			}
		})
		watches("web")
		before := c.proposals
		var many []string
		for i := range 100 {
			many = append(many, fmt.Sprintf("203.0.113.%d", i+100))
		}
		c.says(nil, many...)
		o, _ = c.state.Read().HostOrigins("h7.acme.example")
		if n := len(o.Services[0].Instances); n != fleet.MaxInstances || !strings.Contains(o.Services[0].Condition.Message, "84 more") {
			t.Errorf("%d instances: %+v", n, o.Services[0].Condition)
		}
		if n := c.proposals - before; n != 4 {
			t.Errorf("200 hosts in %d commands", n)
		}
		stop()
		watches()
	})
}

func TestALeaderWithoutConsulSaysSoAndChangesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, web)
		stop := c.lead(c)
		c.says(nil, "203.0.113.7")
		stop()
		before := c.proposals
		stop = c.lead(nil)
		defer func() { stop() }()
		c.is("the last stay", yes, "", a)
		if !errors.Is(c.degraded, fleet.ErrUnavailable) || !strings.Contains(c.degraded.Error(), "consul.address") || c.proposals != before {
			t.Errorf("degraded: %v", c.degraded)
		}
		c.write(func(tx *state.Tx) { c.putHost(tx, host, "https://203.0.113.1") })
		if c.degraded != nil {
			t.Errorf("no host names a service, and still: %v", c.degraded)
		}
		c.write(func(tx *state.Tx) { c.putHost(tx, host, web) })
		stop()
		stop = func() {}
		if c.degraded != nil {
			t.Errorf("a member that leads no more: %v", c.degraded)
		}
	})
}
