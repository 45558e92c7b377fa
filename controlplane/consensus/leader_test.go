package consensus_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/raft"

	"github.com/edgefleet/edgefleet/controlplane/consensus"
	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/observability"
)

// bubble is a cluster of three on fake time.
type bubble struct {
	nodes      []*consensus.Node
	fsms       []*list
	transports []*raft.InmemTransport
}

// newBubble starts three members; the first begins the cluster and the others are added.
func newBubble(t *testing.T) *bubble {
	t.Helper()
	return newBubbleWith(t, func(tr *raft.InmemTransport) consensus.LoopbackTransport { return tr })
}

// newBubbleWith puts wrap around the transport of each member.
func newBubbleWith(t *testing.T, wrap func(*raft.InmemTransport) consensus.LoopbackTransport) *bubble {
	t.Helper()
	b := &bubble{}
	for i := range 3 {
		_, transport := raft.NewInmemTransport("")
		b.transports = append(b.transports, transport)
		b.fsms = append(b.fsms, &list{})
		n, err := consensus.OpenInMemory(consensus.Options{
			Member: fleet.MemberID(fmt.Sprintf("m%d", i+1)), FSM: b.fsms[i], Telemetry: observability.Discard(),
		}, wrap(transport))
		if err != nil {
			t.Fatal(err)
		}
		b.nodes = append(b.nodes, n)
	}
	for i := range b.nodes {
		b.reconnect(i)
	}
	if err := b.nodes[0].Bootstrap(); err != nil {
		t.Fatal(err)
	}
	settle()
	for i := 1; i < 3; i++ {
		if err := b.nodes[0].AddVoter(t.Context(), fleet.MemberID(fmt.Sprintf("m%d", i+1)), b.nodes[i].Addr()); err != nil {
			t.Fatal(err)
		}
	}
	settle()
	return b
}

// settle gives the cluster ten seconds, of fake time.
func settle() {
	time.Sleep(10 * time.Second)
	synctest.Wait()
}

func (b *bubble) close(t *testing.T) {
	t.Helper()
	for _, n := range b.nodes {
		if err := n.Crash(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	}
}

func (b *bubble) partition(i int) {
	b.transports[i].DisconnectAll()
	for j, other := range b.transports {
		if j != i {
			other.Disconnect(b.transports[i].LocalAddr())
		}
	}
}

func (b *bubble) reconnect(i int) {
	for j, other := range b.transports {
		if j != i {
			b.transports[i].Connect(other.LocalAddr(), other)
			other.Connect(b.transports[i].LocalAddr(), b.transports[i])
		}
	}
}

func (b *bubble) leaders() (out []int) {
	for i, n := range b.nodes {
		if n.IsLeader() {
			out = append(out, i)
		}
	}
	return out
}

// diary is what the leader loops of all members did, in order.
type diary struct {
	mu    sync.Mutex
	lines []string
}

func (d *diary) write(format string, args ...any) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.lines = append(d.lines, fmt.Sprintf(format, args...))
}

// lead returns a leader loop that notes its beginning and end.
func (d *diary) lead(name string) func(context.Context) error {
	return func(ctx context.Context) error {
		d.write("%s leads", name)
		<-ctx.Done()
		d.write("%s stops: %v", name, context.Cause(ctx))
		return ctx.Err()
	}
}

func TestAnHourInAPartitionMakesExactlyOneNewLeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBubble(t)
		ctx, cancel := context.WithCancel(t.Context())
		var d diary
		var loops sync.WaitGroup
		for i, n := range b.nodes {
			loops.Go(func() {
				if err := n.RunLeader(ctx, d.lead(fmt.Sprintf("m%d", i+1))); err != nil {
					t.Errorf("m%d: %v", i+1, err)
				}
			})
		}
		settle()
		if _, _, err := b.nodes[0].Apply(ctx, []byte("before")); err != nil {
			t.Fatal(err)
		}
		b.partition(0)
		time.Sleep(time.Hour)
		synctest.Wait()
		leaders := b.leaders()
		if len(leaders) != 1 || leaders[0] == 0 {
			t.Fatalf("leaders are %v", leaders)
		}
		next := b.nodes[leaders[0]]
		if _, err := b.nodes[0].ReadIndex(ctx); !errors.Is(err, fleet.ErrUnavailable) {
			t.Errorf("read on the member that is cut off: %v", err)
		}
		if _, _, err := next.Apply(ctx, []byte("after")); err != nil {
			t.Fatal(err)
		}
		b.reconnect(0)
		settle()
		if got := b.leaders(); !cmp.Equal(got, leaders) {
			t.Errorf("after the partition %v lead instead of %v", got, leaders)
		}
		if diff := cmp.Diff([]string{"before", "after"}, b.fsms[0].all()); diff != "" {
			t.Error(diff)
		}
		cancel()
		loops.Wait()
		want := []string{
			"m1 leads", "m1 stops: leadership lost",
			fmt.Sprintf("m%d leads", leaders[0]+1), fmt.Sprintf("m%d stops: context canceled", leaders[0]+1),
		}
		if diff := cmp.Diff(want, d.lines); diff != "" {
			t.Error(diff)
		}
		b.close(t)
	})
}

func TestALeaderThatIsCutOffStopsLeadingWithinSecondsAndItsWriteIsUnknown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBubble(t)
		b.partition(0)
		start := time.Now()
		_, _, err := b.nodes[0].Apply(t.Context(), []byte("lost"))
		if !errors.Is(err, fleet.ErrUnavailable) || !errors.Is(err, consensus.ErrOutcomeUnknown) {
			t.Errorf("write on a leader that is cut off: %v", err)
		}
		if took := time.Since(start); took > time.Second {
			t.Errorf("it noticed after %v", took)
		}
		mustContain(t, err, "majority of the members is not reachable")
		settle()
		b.reconnect(0)
		settle()
		for i, f := range b.fsms {
			if f.holds("lost")() {
				t.Errorf("m%d applied a write that no majority had", i+1)
			}
		}
		b.close(t)
	})
}

func TestACallersDeadlineHolds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBubble(t)
		b.partition(0)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		defer cancel()
		start := time.Now()
		_, _, err := b.nodes[0].Apply(ctx, []byte("x"))
		if !errors.Is(err, fleet.ErrTimeout) || !errors.Is(err, consensus.ErrOutcomeUnknown) || time.Since(start) != 10*time.Millisecond {
			t.Errorf("after %v: %v", time.Since(start), err)
		}
		if _, err := b.nodes[0].ReadIndex(ctx); !errors.Is(err, fleet.ErrTimeout) {
			t.Errorf("read: %v", err)
		}
		b.close(t)
	})
}

func TestEveryTenureIsRunOnceHoweverOftenLeadershipMoves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBubble(t)
		ctx, cancel := context.WithCancel(t.Context())
		var mu sync.Mutex
		running, most := map[int]int{}, 0
		var loops sync.WaitGroup
		for i, n := range b.nodes {
			loops.Go(func() {
				err := n.RunLeader(ctx, func(ctx context.Context) error {
					mu.Lock()
					running[i]++
					most = max(most, running[i])
					mu.Unlock()
					// A loop that is slow to stop outlives its tenure; the next one waits for it.
					<-ctx.Done()
					time.Sleep(3 * time.Second)
					mu.Lock()
					running[i]--
					mu.Unlock()
					return nil
				})
				if err != nil {
					t.Error(err)
				}
			})
		}
		settle()
		for range 10 {
			leaders := b.leaders()
			if len(leaders) != 1 {
				t.Fatalf("leaders are %v", leaders)
			}
			if err := b.nodes[leaders[0]].TransferLeadership(ctx, ""); err != nil {
				t.Fatal(err)
			}
			time.Sleep(500 * time.Millisecond)
		}
		settle()
		mu.Lock()
		for i := range b.nodes {
			if want := b.nodes[i].IsLeader(); (running[i] == 1) != want || most > 1 {
				t.Errorf("m%d leads: %v, loops running: %d, at most %d at once", i+1, want, running[i], most)
			}
		}
		mu.Unlock()
		cancel()
		loops.Wait()
		b.close(t)
	})
}

func TestWhatALeaderLoopReturns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBubble(t)
		broken := errors.New("broken")
		err := b.nodes[0].RunLeader(t.Context(), func(context.Context) error { return broken })
		if !errors.Is(err, broken) {
			t.Errorf("the error of a loop became %v", err)
		}
		runs := 0
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := b.nodes[0].RunLeader(ctx, func(context.Context) error { runs++; return nil }); err != nil || runs != 1 {
			t.Errorf("a loop with nothing to do ran %d times, %v", runs, err)
		}
		done := make(chan error)
		go func() {
			done <- b.nodes[0].RunLeader(t.Context(), func(ctx context.Context) error { <-ctx.Done(); return nil })
		}()
		settle()
		b.close(t)
		if err := <-done; !errors.Is(err, fleet.ErrUnavailable) {
			t.Errorf("after Close: %v", err)
		}
	})
}

func TestAMemberThatWasCutOffDoesNotDeposeTheLeaderWhenItReturns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBubble(t)
		defer b.close(t)
		before := b.nodes[0].Stats()
		if !b.nodes[0].IsLeader() {
			t.Fatal("m1 does not lead")
		}
		b.partition(2)
		time.Sleep(time.Hour)
		synctest.Wait()
		if away := b.nodes[2].Stats(); away.State != "candidate" || away.Term != before.Term {
			t.Errorf("after an hour of elections that it cannot win, it is a %s in term %d; the leader's is %d", away.State, away.Term, before.Term)
		}
		// A write that the others hold: it may not even be voted for.
		if _, _, err := b.nodes[0].Apply(t.Context(), []byte("meanwhile")); err != nil {
			t.Fatal(err)
		}
		b.reconnect(2)
		settle()
		for i, n := range b.nodes {
			if s := n.Stats(); s.Term != before.Term || s.Leader != "m1" || !b.fsms[i].holds("meanwhile")() {
				t.Errorf("m%d is in term %d instead of %d, led by %q, and has %v", i+1, s.Term, before.Term, s.Leader, b.fsms[i].all())
			}
		}
	})
}

// hung is a transport whose hand-overs wait until they may go on.
type hung struct {
	*raft.InmemTransport
	on <-chan struct{}
}

// TimeoutNow implements raft.Transport.
func (h hung) TimeoutNow(raft.ServerID, raft.ServerAddress, *raft.TimeoutNowRequest, *raft.TimeoutNowResponse) error {
	<-h.on
	return errors.New("nobody answered")
}

func TestALeaderThatRaftLeftInAHandOverIsNotKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		on, first := make(chan struct{}), true
		b := newBubbleWith(t, func(tr *raft.InmemTransport) consensus.LoopbackTransport {
			if first {
				first = false
				return hung{tr, on}
			}
			return tr
		})
		if err := b.nodes[0].TransferLeadership(t.Context(), "m2"); err == nil {
			t.Fatal("a hand-over that nobody heard of succeeded")
		}
		b.partition(0)
		settle()
		b.reconnect(0)
		settle()
		led := make(chan error, 1)
		go func() {
			led <- b.nodes[0].RunLeader(t.Context(), func(context.Context) error {
				t.Error("it leads, and can commit nothing")
				return nil
			})
		}()
		if err := b.nodes[b.leaders()[0]].TransferLeadership(t.Context(), "m1"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		select {
		case err := <-led:
			mustContain(t, err, "member m1 leads", "must start anew")
			if errors.Is(err, fleet.ErrUnavailable) {
				t.Errorf("this reads as if it had been closed: %v", err)
			}
		default:
			t.Errorf("it is kept; leaders are %v", b.leaders())
		}
		close(on)
		settle()
		b.close(t)
		synctest.Wait()
	})
}
