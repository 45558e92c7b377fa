package sets_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"github.com/edgefleet/edgefleet/controlplane/command"
	"github.com/edgefleet/edgefleet/controlplane/fsm"
	"github.com/edgefleet/edgefleet/controlplane/leader/sets"
	"github.com/edgefleet/edgefleet/controlplane/state"
	"github.com/edgefleet/edgefleet/fleet"
)

// cluster applies what is proposed to a real state machine, one at a time.
type cluster struct {
	t     *testing.T
	state *state.Store
	fsm   *fsm.FSM
	turn  chan uint64
}

func (c *cluster) Propose(_ context.Context, h command.Header, b command.Body) (any, error) {
	data, err := command.Encode(h, b)
	if err != nil {
		return nil, err
	}
	index := <-c.turn + 1
	defer func() { c.turn <- index }()
	r, _ := c.fsm.Apply(&raft.Log{Index: index, Data: data}).(fsm.Result)
	if r.Err != nil {
		return nil, r.Err
	}
	return r.Object, nil
}

func (c *cluster) index() uint64 { return c.state.Read().Index() }

// put stores nodes as they stand in a text such as "a b:down c@us".
func (c *cluster) put(text string) {
	index := <-c.turn + 1
	tx := c.state.Write()
	for i, word := range strings.Fields(text) {
		word, is, _ := strings.Cut(word, ":")
		id, region, found := strings.Cut(word, "@")
		if !found {
			region = "eu"
		}
		n := fleet.Node{ID: fleet.NodeID(id), Observed: fleet.NodeObserved{State: fleet.NodeUp, Serving: true}}
		n.Spec = fleet.NodeSpec{Group: "default", Region: fleet.RegionName(region), Addresses: []netip.Addr{netip.AddrFrom4([4]byte{192, 0, 2, byte(i)})}, Cordoned: is == "cordoned"}
		if is == "down" {
			n.Observed.State = fleet.NodeDown
		}
		tx.PutNode(n)
	}
	tx.SetIndex(index)
	tx.Commit()
	c.turn <- index
}

func (c *cluster) host(name fleet.HostName, regions ...fleet.RegionName) {
	index := <-c.turn + 1
	tx := c.state.Write()
	tx.PutHost(fleet.Host{Name: name, Tenant: "acme", Spec: fleet.HostSpec{Regions: regions}})
	tx.SetIndex(index)
	tx.Commit()
	c.turn <- index
}

// want compares the sets, as "key: nodes, -out".
func (c *cluster) want(want ...string) {
	c.t.Helper()
	synctest.Wait()
	var got []string
	for _, s := range c.state.Read().DNSSets() {
		words := []string{s.Key + ":"}
		for _, id := range s.Nodes {
			words = append(words, string(id))
		}
		for _, o := range s.Out {
			words = append(words, "-"+string(o.Node))
		}
		if s.Held != nil {
			words = append(words, fmt.Sprintf("held %d/%d", s.Held.Healthy, s.Held.Should))
		}
		got = append(got, strings.Join(words, " "))
	}
	if !slices.Equal(got, want) {
		c.t.Errorf("%q, want %q", got, want)
	}
}

func start(t *testing.T) (*cluster, func() func()) {
	t.Helper()
	c := &cluster{t: t, state: state.New(), turn: make(chan uint64, 1)}
	c.fsm = fsm.New(c.state)
	c.turn <- 0
	tx := c.state.Write()
	tx.PutGroup(fleet.Group{Name: "default"})
	tx.PutTenant(fleet.Tenant{ID: "acme", Spec: fleet.TenantSpec{Group: "default"}})
	tx.Commit()
	return c, func() func() {
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		l := &sets.Loop{State: c.state, Proposer: c, Bake: 15 * time.Second, Logger: slog.New(slog.DiscardHandler), Now: time.Now}
		go func() { done <- l.Run(ctx) }()
		return func() {
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
	}
}

func TestSetsFollowNodesAndHosts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, lead := start(t)
		stop := lead()
		c.put("a b@us c@us")
		time.Sleep(time.Second)
		c.want("default: a b c")
		c.host("shop.example.com", "us")
		time.Sleep(2 * time.Second)
		c.want("default: a b c", "default/us: b c")

		c.put("b@us:down")
		time.Sleep(time.Second)
		c.want("default: a c -b", "default/us: c -b")
		c.put("c@us:down")
		time.Sleep(time.Second)
		c.want("default: a c -b held 1/3", "default/us: c -b held 0/2")

		c.put("b@us")
		time.Sleep(14 * time.Second)
		c.want("default: a -b -c", "default/us: b -c")
		stop()

		// Another leader goes on with the deadlines of the first.
		stop = lead()
		defer stop()
		time.Sleep(2 * time.Second)
		c.want("default: a b -c", "default/us: b -c")
		c.host("shop.example.com")
		time.Sleep(2 * time.Second)
		c.want("default: a b -c")
	})
}

func TestNothingIsWrittenWhereNothingChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, lead := start(t)
		defer lead()()
		c.put("a b c")
		time.Sleep(time.Second)
		c.want("default: a b c")
		before := c.index()
		for range 20 {
			c.put("a b c") // as a report does that says something else
			time.Sleep(time.Second)
		}
		if got := c.index(); got != before+20 {
			t.Errorf("%d commands for 20 reports that change nothing in DNS", got-before-20)
		}
	})
}
