package heads_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
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
	"github.com/edgefleet/edgefleet/controlplane/leader"
	"github.com/edgefleet/edgefleet/controlplane/leader/heads"
	"github.com/edgefleet/edgefleet/controlplane/state"
	"github.com/edgefleet/edgefleet/fleet"
)

type slot struct {
	group fleet.GroupName
	kind  fleet.HeadKind
}

// library has the roots that a test sets, and signs with words.
type library struct {
	wake chan struct{}

	mu    sync.Mutex
	roots map[slot]fleet.Digest
}

func (l *library) Run(ctx context.Context, changed func(context.Context) error) error {
	for {
		if err := changed(ctx); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-l.wake:
		}
	}
}

func (l *library) Root(g fleet.GroupName, k fleet.HeadKind) fleet.Digest {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.roots[slot{g, k}]
}

func (l *library) GroupHeads(v *state.View, g fleet.GroupName) (out []fleet.SignedHead, err error) {
	for _, k := range fleet.HeadKinds {
		if h, ok := v.Head(g, k); ok {
			out = append(out, fleet.SignedHead{KeyID: fmt.Sprintf("%s %d/%d", k, h.Version.Incarnation, h.Version.Generation), Head: json.RawMessage(`{}`)})
		}
	}
	return out, nil
}

// world is a loop over a real state machine.
type world struct {
	t       *testing.T
	state   *state.Store
	machine *fsm.FSM
	lib     *library
	fail    error // of the bus

	mu        sync.Mutex
	index     uint64
	proposed  []command.HeadsAdvance
	published []string
}

func newWorld(t *testing.T, groups ...fleet.GroupName) *world {
	t.Helper()
	s := state.New()
	w := &world{t: t, state: s, machine: fsm.New(s), lib: &library{wake: make(chan struct{}), roots: map[slot]fleet.Digest{}}}
	tx := s.Write()
	tx.PutCluster(fleet.ClusterRecord{Cluster: fleet.Cluster{ID: "c1", Incarnation: 1}})
	for _, g := range groups {
		tx.PutGroup(fleet.Group{Name: g})
	}
	tx.Commit()
	return w
}

func (w *world) Propose(_ context.Context, h command.Header, b command.Body) (any, error) {
	body, ok := b.(command.HeadsAdvance)
	if !ok || h.Name != "leader/heads" {
		w.t.Errorf("proposed %T as %s", b, h.Name)
	}
	entry, err := command.Encode(h, b)
	if err != nil {
		return nil, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.proposed = append(w.proposed, body)
	w.index++
	r, _ := w.machine.Apply(&raft.Log{Index: w.index, Data: entry}).(fsm.Result)
	if r.Err != nil {
		return nil, r.Err
	}
	return r.Object, nil
}

// publish notes what nodes are told, and that it was committed before.
func (w *world) publish(subject string, data []byte) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.fail != nil {
		return w.fail
	}
	var set fleet.HeadSet
	if err := fleet.DecodeStrict(data, &set); err != nil {
		w.t.Error(err)
	}
	words := []string{subject}
	for _, h := range set.Heads {
		words = append(words, h.KeyID)
	}
	w.published = append(w.published, strings.Join(words, ", "))
	return nil
}

// run starts a loop and returns how to end it.
func (w *world) run(p leader.Proposer) (stop func() error) {
	l := &heads.Loop{State: w.state, Library: w.lib, Proposer: p, Publish: w.publish, Now: time.Now}
	ctx, cancel := context.WithCancel(w.t.Context())
	done := make(chan error, 1)
	go func() { done <- l.Run(ctx) }()
	synctest.Wait()
	return func() error {
		cancel()
		return <-done
	}
}

// change sets roots and lets the loop see it.
func (w *world) change(roots map[slot]string) {
	w.lib.mu.Lock()
	for _, s := range slices.SortedFunc(maps.Keys(roots), func(a, b slot) int { return strings.Compare(string(a.kind), string(b.kind)) }) {
		w.lib.roots[s] = fleet.DigestOf([]byte(roots[s]))
	}
	w.lib.mu.Unlock()
	w.wake()
}

func (w *world) wake() {
	w.lib.wake <- struct{}{}
	synctest.Wait()
}

// took returns and forgets what was proposed and published.
func (w *world) took() (commands int, published []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	commands, published = len(w.proposed), w.published
	w.proposed, w.published = nil, nil
	return commands, published
}

func (w *world) want(what string, commands int, published ...string) {
	w.t.Helper()
	got, lines := w.took()
	if diff := cmp.Diff(published, lines); diff != "" || got != commands {
		w.t.Errorf("%s: %d commands, want %d; published: %s", what, got, commands, diff)
	}
}

func TestAHeadAdvancesOncePerChangeAndIsToldAfterItsCommit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "a", "b")
		stop := w.run(w)
		w.want("nothing is derived yet", 0)
		w.change(map[slot]string{{"a", "config"}: "1", {"a", "certs"}: "1", {"a", "ruleset"}: "1", {"b", "config"}: "1"})
		w.want("all first heads in one command", 1, "hd.group.a, certs 1/1, ruleset 1/1, config 1/1", "hd.group.b, config 1/1")
		w.wake()
		w.want("woken without a change", 0)
		w.change(map[slot]string{{"a", "config"}: "2"})
		w.want("one kind of one group", 1, "hd.group.a, certs 1/1, ruleset 1/1, config 1/2")
		w.change(map[slot]string{{"a", "config"}: "1"})
		w.want("back to older content is a higher generation", 1, "hd.group.a, certs 1/1, ruleset 1/1, config 1/3")
		if h, _ := w.state.Read().Head("a", "config"); h.Root != fleet.DigestOf([]byte("1")) || h.Version.Generation != 3 {
			t.Errorf("%+v", h)
		}
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
}

func TestANewLeaderTellsWhatStandsAndProposesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "a")
		stop := w.run(w)
		w.change(map[slot]string{{"a", "config"}: "1"})
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		w.took()
		stop = w.run(w)
		w.want("a new leader", 0, "hd.group.a, config 1/1")
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
}

func TestANewIncarnationRestartsGenerationsAtOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "a")
		stop := w.run(w)
		w.change(map[slot]string{{"a", "config"}: "1"})
		w.change(map[slot]string{{"a", "config"}: "2"})
		w.took()
		tx := w.state.Write() // as a restore does it
		tx.PutCluster(fleet.ClusterRecord{Cluster: fleet.Cluster{ID: "c1", Incarnation: 2}})
		tx.Commit()
		w.wake()
		w.want("the same content in a new incarnation", 1, "hd.group.a, config 2/1")
		w.change(map[slot]string{{"a", "config"}: "3"})
		w.want("and on", 1, "hd.group.a, config 2/2")
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
}

func TestNothingHappensBeforeTheClusterIsInitialised(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := state.New()
		w := newWorld(t)
		w.state, w.machine = s, fsm.New(s)
		stop := w.run(w)
		w.change(map[slot]string{{"a", "config"}: "1"})
		w.want("no cluster", 0)
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
}

func TestABusThatIsAwayIsNotFatalAndIsToldLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "a")
		w.fail = errors.New("bus is away")
		stop := w.run(w)
		w.change(map[slot]string{{"a", "config"}: "1"})
		w.want("committed, not told", 1)
		w.mu.Lock()
		w.fail = nil
		w.mu.Unlock()
		w.wake()
		w.want("told with the next change of anything", 0, "hd.group.a, config 1/1")
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
}

type refuser struct{ err error }

func (r refuser) Propose(context.Context, command.Header, command.Body) (any, error) {
	return nil, r.err
}

func TestAFailedProposalTellsNobodyAndEndsTheLoop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "a")
		w.lib.roots[slot{"a", "config"}] = fleet.DigestOf(nil)
		err := w.run(refuser{fleet.ErrUnavailable})()
		if !errors.Is(err, fleet.ErrUnavailable) || !strings.Contains(err.Error(), "advance heads") {
			t.Errorf("got %v", err)
		}
		w.want("a failed proposal", 0)
	})
}
