package consensus

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/edgefleet/edgefleet/fleet"
)

// ErrLeadershipLost is the cause of the context that RunLeader gives to lead, once this member stops leading.
var ErrLeadershipLost = errors.New("leadership lost")

// stuckTransfer is how long Raft may refuse what a new leader proposes because of a hand-over that is long over: longer
// than any request to another member takes.
const stuckTransfer = 10 * time.Second

// barrierRetry is the pause before a leader whose barrier failed tries again.
const barrierRetry = 50 * time.Millisecond

// leadership counts the changes of leadership of this member. Raft's notifications pass through it in order and none
// is dropped; whoever looks late sees at least that the count moved on.
type leadership struct {
	mu      sync.Mutex
	leading bool
	// changes grows with every gain and loss.
	changes uint64
	// changed is closed at the next change.
	changed chan struct{}
	ended   bool
}

// tenure is one uninterrupted time of leading.
type tenure uint64

func (l *leadership) set(leading bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended {
		return
	}
	l.leading = leading
	l.changes++
	close(l.changed)
	l.changed = make(chan struct{})
}

// end makes the member lose leadership for good.
func (l *leadership) end() {
	l.set(false)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ended = true
}

// current returns the tenure, whether this member leads, and a channel that closes when either changes.
func (l *leadership) current() (tenure, bool, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return tenure(l.changes), l.leading, l.changed
}

// follow takes every notification of Raft, which waits for it to be taken, until Close.
func (n *Node) follow(notify <-chan bool) {
	for {
		select {
		case leading := <-notify:
			n.leadership.set(leading)
			ctx, term := context.Background(), n.raft.CurrentTerm()
			if leading {
				n.log.InfoContext(ctx, "leadership gained", "member", n.member, "term", term)
			} else {
				id, _, _ := n.Leader()
				n.log.InfoContext(ctx, "leadership lost", "member", n.member, "term", term, "leader", id)
			}
		case <-n.closing:
			return
		}
	}
}

// Leader is who leads as far as this member knows, and its Raft address; ok is false during an election.
func (n *Node) Leader() (id fleet.MemberID, raftAddr string, ok bool) {
	addr, server := n.raft.LeaderWithID()
	if server == raft.ServerID(n.member) && !n.IsLeader() {
		return "", "", false // it steps down
	}
	return fleet.MemberID(server), string(addr), server != ""
}

// IsLeader reports whether this member believes that it leads. A leader that was cut off believes so for up to a
// heartbeat timeout: use ReadIndex where that matters.
func (n *Node) IsLeader() bool { return n.raft.State() == raft.Leader }

// RunLeader runs lead whenever this member leads, until ctx ends; then it returns nil, after lead has returned. Before
// each run everything that was committed before is in the state machine. The context of a run ends with the cause
// ErrLeadershipLost when leadership is lost, and the next run, if any, starts after lead has returned.
//
// lead may return early: nil means that it has nothing left to do for as long as this member leads; an error while
// it still leads is returned. Several RunLeader may run at once. After Close, fleet.ErrUnavailable is returned.
//
// A hand-over that was interrupted can leave Raft (1.7.3) refusing everything once this member leads again, for ever:
// the goroutine that hands over waits for one that has ended. Then an error is returned, and the process must start anew.
func (n *Node) RunLeader(ctx context.Context, lead func(ctx context.Context) error) error {
	for {
		now, leading, changed := n.leadership.current()
		if leading {
			if err := n.runTenure(ctx, now, lead); err != nil {
				return err
			}
		}
		if latest, _, _ := n.leadership.current(); latest != now {
			continue
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil
		case <-n.closing:
			return errClosed
		}
	}
}

// runTenure runs lead within one tenure.
func (n *Node) runTenure(ctx context.Context, t tenure, lead func(context.Context) error) error {
	run, cancel := context.WithCancelCause(ctx)
	var watch sync.WaitGroup
	watch.Go(func() {
		for {
			now, _, changed := n.leadership.current()
			if now != t {
				cancel(ErrLeadershipLost)
				return
			}
			select {
			case <-changed:
			case <-run.Done():
				return
			}
		}
	})
	defer watch.Wait()
	defer cancel(context.Canceled)

	if ok, err := n.settle(run); !ok || err != nil {
		return err
	}
	if err := lead(run); err != nil && run.Err() == nil {
		return fmt.Errorf("lead: %w", err)
	}
	return nil
}

// settle waits until the state machine holds everything committed before this tenure; false means that it ended first,
// an error that Raft is stuck.
func (n *Node) settle(run context.Context) (bool, error) {
	for start := time.Now(); ; {
		err := n.Barrier(run)
		switch {
		case err == nil:
			return run.Err() == nil, nil
		case run.Err() != nil:
			return false, nil
		case !errors.Is(err, fleet.ErrNotLeader) || !n.IsLeader():
			start = time.Now() // it has another reason
		case time.Since(start) > stuckTransfer:
			return false, fmt.Errorf("member %s leads, and Raft has refused everything for %s because of an interrupted hand-over: the process must start anew", n.member, stuckTransfer)
		}
		select {
		case <-run.Done():
			return false, nil
		case <-time.After(barrierRetry):
			n.log.DebugContext(run, "barrier of a new leader failed, trying again", "err", err)
		}
	}
}
