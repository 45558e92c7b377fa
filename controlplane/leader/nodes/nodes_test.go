package nodes_test

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
	"github.com/edgefleet/edgefleet/controlplane/leader/nodes"
	"github.com/edgefleet/edgefleet/controlplane/state"
	"github.com/edgefleet/edgefleet/fleet"
)

// cluster applies what is proposed to a real state machine, as a cluster of one does, and keeps it.
type cluster struct {
	t       *testing.T
	state   *state.Store
	machine *fsm.FSM
	err     error

	mu    sync.Mutex
	index uint64
	log   []proposal
}

// proposed is what was proposed so far.
func (c *cluster) proposed() []proposal {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.log)
}

type proposal struct {
	at   time.Time
	body command.NodesReport
}

func (c *cluster) Propose(_ context.Context, h command.Header, b command.Body) (any, error) {
	if c.err != nil {
		return nil, c.err
	}
	if h.Name != "leader/nodes" || h.Party != fleet.Vendor || !h.Time.Equal(time.Now()) {
		c.t.Errorf("header %+v", h)
	}
	if _, ok := b.(command.NodeLock); ok {
		return c.answer(h, b)
	}
	body, ok := b.(command.NodesReport)
	if !ok {
		c.t.Fatalf("proposed %T", b)
	}
	c.mu.Lock()
	c.log = append(c.log, proposal{time.Now(), body})
	c.mu.Unlock()
	return c.apply(h, b), nil
}

func (c *cluster) apply(h command.Header, b command.Body) any {
	c.t.Helper()
	obj, err := c.answer(h, b)
	if err != nil {
		c.t.Fatalf("%s: %v", b.Type(), err)
	}
	return obj
}

// answer is what the state machine makes of a command.
func (c *cluster) answer(h command.Header, b command.Body) (any, error) {
	c.t.Helper()
	entry, err := command.Encode(h, b)
	if err != nil {
		c.t.Fatal(err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.index++
	r, ok := c.machine.Apply(&raft.Log{Index: c.index, Data: entry}).(fsm.Result)
	if !ok {
		c.t.Fatalf("%s: no result", b.Type())
	}
	if r.Err != nil {
		return nil, r.Err
	}
	return r.Object, nil
}

// newCluster has n nodes, n0 and up, that enrolled and have not reported.
func newCluster(t *testing.T, n int) *cluster {
	t.Helper()
	s := state.New()
	tx := s.Write()
	for i := range n {
		tx.PutNode(fleet.Node{
			ID: fleet.NodeID(fmt.Sprint("n", i)), Spec: fleet.NodeSpec{Group: fleet.DefaultGroup, Region: "eu", Addresses: []netip.Addr{netip.MustParseAddr("198.51.100.1")}},
			Observed: fleet.NodeObserved{State: fleet.NodeEnrolled, Since: time.Now()},
		})
	}
	tx.Commit()
	return &cluster{t: t, state: s, machine: fsm.New(s)}
}

// lead runs a loop until stop.
func (c *cluster) lead() (l *nodes.Loop, stop func() error) {
	l = nodes.New(nodes.Options{State: c.state, Proposer: c, Now: time.Now})
	return l, c.run(l)
}

func (c *cluster) run(l *nodes.Loop) (stop func() error) {
	ctx, cancel := context.WithCancel(c.t.Context())
	done := make(chan error, 1)
	go func() { done <- l.Run(ctx) }()
	synctest.Wait()
	return func() error {
		cancel()
		return <-done
	}
}

func (c *cluster) node(id fleet.NodeID) fleet.NodeObserved {
	n, ok := c.state.Read().Node(id)
	if !ok {
		c.t.Fatalf("node %s is gone", id)
	}
	return n.Observed
}

func report(n fleet.NodeID) fleet.Report {
	return fleet.Report{Node: n, Boot: "b1", Sent: time.Now(), Software: "v1", Serving: true, Heads: []fleet.HeadReport{
		{Kind: fleet.HeadConfig, Version: fleet.Version{Incarnation: 1, Generation: 3}, Root: fleet.DigestOf(nil), AppliedAt: time.Now()},
	}}
}

// beat sends a heartbeat each second for d.
func beat(l *nodes.Loop, d time.Duration, ids ...fleet.NodeID) {
	for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(time.Second) {
		for _, id := range ids {
			l.Report(report(id))
		}
	}
}

func TestHeartbeatsFoldIntoOneCommandAQuarterSecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 3)
		l, stop := c.lead()
		began := time.Now()
		for range 3 {
			for _, id := range []fleet.NodeID{"n2", "n0", "n1", "unknown"} {
				l.Report(report(id))
			}
			time.Sleep(50 * time.Millisecond)
		}
		time.Sleep(time.Second)
		if len(c.proposed()) != 1 || len(c.proposed()[0].body.Reports) != 3 || c.proposed()[0].at.Sub(began) != 250*time.Millisecond {
			t.Fatalf("%+v", c.proposed())
		}
		if c.proposed()[0].body.Reports[0].ID != "n0" || c.proposed()[0].body.Reports[2].ID != "n2" {
			t.Error("the reports are not in order")
		}
		o := c.node("n1")
		if o.State != fleet.NodeUp || !o.Serving || o.Boot != "b1" || o.Software != "v1" || len(o.Heads) != 1 || o.ClockSkew != "" {
			t.Errorf("%+v", o)
		}
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
}

func TestUnchangedHeartbeatsProposeNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 2)
		l, stop := c.lead()
		beat(l, time.Hour, "n0", "n1")
		if len(c.proposed()) != 1 {
			t.Errorf("%d commands for an hour of the same", len(c.proposed()))
		}
		for name, change := range map[string]func(*fleet.Report){
			"another boot":   func(r *fleet.Report) { r.Boot = "b2" },
			"another binary": func(r *fleet.Report) { r.Boot, r.Software = "b2", "v2" },
			"not serving":    func(r *fleet.Report) { r.Serving = false },
			"a new head":     func(r *fleet.Report) { r.Heads[0].Version.Generation++ },
			"a refused head": func(r *fleet.Report) { r.Heads[0].Reason = "no" },
		} {
			before := len(c.proposed())
			r := report("n0")
			change(&r)
			l.Report(r)
			time.Sleep(time.Second)
			if len(c.proposed()) != before+1 {
				t.Errorf("%s: %d commands", name, len(c.proposed())-before)
			}
		}
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
}

func TestASilentNodeIsDownAfterTheReapingAgeAndUpAgainWhenHeard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 3)
		l, stop := c.lead()
		beat(l, time.Minute, "n0", "n1")
		last := time.Now().Add(-time.Second)
		beat(l, 13*time.Second, "n0") // a second short of the age: at the age itself, both answers are right
		if c.node("n1").State != fleet.NodeUp {
			t.Error("down before its time")
		}
		beat(l, 4*time.Second, "n0")
		o := c.node("n1")
		if o.State != fleet.NodeDown || o.Since.Sub(last) < 15*time.Second || o.Since.Sub(last) > 15*time.Second+250*time.Millisecond {
			t.Errorf("%s %s after its last heartbeat", o.State, o.Since.Sub(last))
		}
		if o.Boot != "b1" || len(o.Heads) != 1 {
			t.Errorf("what it reported last is lost: %+v", o)
		}
		if c.node("n0").State != fleet.NodeUp || c.node("n2").State != fleet.NodeEnrolled {
			t.Error("the others changed too")
		}
		before := len(c.proposed())
		beat(l, time.Hour, "n0")
		if len(c.proposed()) != before {
			t.Error("a node that is down is called down again")
		}
		heard := time.Now()
		beat(l, 2*time.Second, "n0", "n1")
		if o := c.node("n1"); o.State != fleet.NodeUp || o.Since.Sub(heard) > time.Second {
			t.Errorf("%+v", o)
		}
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
}

func TestANewLeaderGivesEveryNodeAFullGrace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 1)
		l, stop := c.lead()
		beat(l, time.Minute, "n0")
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour) // nobody leads
		_, stop = c.lead()
		began := time.Now()
		time.Sleep(15*time.Second - time.Millisecond)
		if c.node("n0").State != fleet.NodeUp {
			t.Error("the new leader did not wait")
		}
		time.Sleep(time.Second)
		if o := c.node("n0"); o.State != fleet.NodeDown || o.Since.Sub(began) < 15*time.Second {
			t.Errorf("%+v", o)
		}
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
}

func TestReportsFromBeforeLeadershipAreForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 2)
		l := nodes.New(nodes.Options{State: c.state, Proposer: c, Now: time.Now})
		for range 10_000 { // a follower never blocks and keeps a bounded queue
			l.Report(report("n0"))
		}
		time.Sleep(time.Hour)
		stop := c.run(l)
		time.Sleep(time.Second)
		if len(c.proposed()) != 0 || c.node("n0").State != fleet.NodeEnrolled {
			t.Errorf("old reports count: %+v", c.proposed())
		}
		l.Report(report("n1"))
		time.Sleep(time.Second)
		if c.node("n1").State != fleet.NodeUp {
			t.Error("new reports do not")
		}
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
}

func TestClockSkewIsRecordedOnceAndClearedWhenItIsGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 1)
		l, stop := c.lead()
		send := func(behind time.Duration) fleet.NodeObserved {
			r := report("n0")
			r.Sent = time.Now().Add(-behind)
			l.Report(r)
			time.Sleep(time.Second)
			return c.node("n0")
		}
		if o := send(59 * time.Second); o.ClockSkew != "" {
			t.Errorf("within the limit: %q", o.ClockSkew)
		}
		if o := send(90 * time.Second); o.ClockSkew != "1m30s" {
			t.Errorf("behind: %q", o.ClockSkew)
		}
		before := len(c.proposed())
		for i := range 60 {
			send(90*time.Second + time.Duration(i%7)*time.Second)
		}
		if len(c.proposed()) != before {
			t.Errorf("%d commands for a skew that wavers", len(c.proposed())-before)
		}
		if o := send(-2 * time.Hour); o.ClockSkew != "-2h0m0s" {
			t.Errorf("ahead: %q", o.ClockSkew)
		}
		if o := send(0); o.ClockSkew != "" {
			t.Errorf("set right: %q", o.ClockSkew)
		}
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
}

func TestARevokedNodeIsNotFollowed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 2)
		l, stop := c.lead()
		beat(l, 2*time.Second, "n0")
		c.apply(command.Header{Time: time.Now()}, command.NodeRevoke{ID: "n0"})
		before := len(c.proposed())
		for range 100 {
			r := report("n0")
			r.Boot = fmt.Sprint(time.Now().Unix())
			l.Report(r)
			time.Sleep(time.Second)
		}
		time.Sleep(time.Hour)
		if len(c.proposed()) != before || c.node("n0").State != fleet.NodeUp {
			t.Errorf("%d commands about a revoked node", len(c.proposed())-before)
		}
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
}

func TestWhatANodeReportsCannotFillTheLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n = 2000
		c := newCluster(t, n)
		l, stop := c.lead()
		bad := report("n0")
		bad.Boot = strings.Repeat("x", 1<<20)
		l.Report(bad)
		time.Sleep(time.Second)
		if len(c.proposed()) != 0 {
			t.Error("a report over the limits is folded")
		}
		for i := range n {
			r := report(fleet.NodeID(fmt.Sprint("n", i)))
			r.Heads = nil
			for _, k := range fleet.HeadKinds {
				r.Heads = append(r.Heads, fleet.HeadReport{Kind: k, Root: fleet.Digest(strings.Repeat("r", 4000)), Reason: strings.Repeat("\x01", 4000)})
			}
			r.Counters = make([]fleet.TenantCounters, 1000)
			l.Report(r)
		}
		time.Sleep(time.Second)
		folded := 0
		for _, p := range c.proposed() { // each was encoded by apply, which fails over command.MaxBytes
			folded += len(p.body.Reports)
		}
		if folded != n || len(c.proposed()) > 10 {
			t.Errorf("%d reports in %d commands", folded, len(c.proposed()))
		}
		if h := c.node("n7").Heads; len(h) != 3 || h[0].Root != "" || len(h[0].Reason) != 512 {
			t.Errorf("%d heads", len(h))
		}
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
}

func TestAFailedProposalEndsTheLoopAndLosesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 1)
		c.err = fleet.ErrUnavailable
		l := nodes.New(nodes.Options{State: c.state, Proposer: c, Now: time.Now})
		done := make(chan error, 1)
		go func() { done <- l.Run(t.Context()) }()
		synctest.Wait()
		l.Report(report("n0"))
		if err := <-done; !errors.Is(err, fleet.ErrUnavailable) || !strings.Contains(err.Error(), "fold reports") {
			t.Errorf("got %v", err)
		}
		c.err = nil
		stop := c.run(l) // leads again
		beat(l, 2*time.Second, "n0")
		if diff := cmp.Diff(fleet.NodeUp, c.node("n0").State); diff != "" {
			t.Error(diff)
		}
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
}
