package consensus

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/raft"

	"github.com/edgefleet/edgefleet/fleet"
)

// ErrOutcomeUnknown is wrapped beside fleet.ErrUnavailable or fleet.ErrTimeout when a command may or may not have been
// committed. Without it, the command was not and will not be.
var ErrOutcomeUnknown = fleet.ErrOutcomeUnknown

var errClosed = fmt.Errorf("%w: this member is stopping", fleet.ErrUnavailable)

// enqueueTimeout bounds how long a request without a deadline waits for Raft's main loop to take it.
const enqueueTimeout = 10 * time.Second

// Apply proposes cmd and returns what the state machine made of it and at which index of the log. It must be called on
// the leader and is never retried here.
//
// Errors: fleet.ErrUnavailable when this member does not lead or has lost leadership or quorum, naming the leader if it
// is known, with fleet.ErrNotLeader if the command certainly was not proposed and another member may be asked; fleet.ErrTimeout when ctx's deadline passed; fleet.ErrTooLarge. See ErrOutcomeUnknown.
func (n *Node) Apply(ctx context.Context, cmd []byte) (result any, index uint64, err error) {
	if len(cmd) > MaxCommandBytes {
		return nil, 0, fleet.NewError(fleet.ErrTooLarge, "command", "a command of %d bytes is over the limit of %d: split it, or store the content as a blob", len(cmd), MaxCommandBytes)
	}
	var f raft.ApplyFuture
	err = n.propose(ctx, func() raft.Future {
		f = n.raft.Apply(cmd, timeoutOf(ctx))
		return f
	})
	if err != nil {
		return nil, 0, n.explainChange("apply", err)
	}
	return f.Response(), f.Index(), nil
}

// Barrier returns when everything committed before it is in the state machine of this member, which must lead.
func (n *Node) Barrier(ctx context.Context) error {
	term := n.raft.CurrentTerm()
	var f raft.Future
	err := n.propose(ctx, func() raft.Future {
		f = n.raft.Barrier(timeoutOf(ctx))
		return f
	})
	if err != nil {
		return n.explain("barrier", err)
	}
	if entry, ok := f.(raft.IndexFuture); ok && n.raft.CurrentTerm() == term {
		n.barrierMu.Lock()
		defer n.barrierMu.Unlock()
		if n.barrier.index < entry.Index() {
			n.barrier.term, n.barrier.index = term, entry.Index()
		}
	}
	return nil
}

// ReadIndex makes a read of the local state machine linearizable: when it returns, this member led while the call ran,
// and the state machine holds everything that had been acknowledged to anyone before the call. It returns the index up
// to which that holds. It must be called on the leader; errors are as for Apply.
func (n *Node) ReadIndex(ctx context.Context) (uint64, error) {
	term := n.raft.CurrentTerm()
	if !n.IsLeader() {
		return 0, n.explain("read", raft.ErrNotLeader)
	}
	// The commit index of a new leader lags until it has committed in its own term (the Raft thesis, section 6.4).
	settled, err := n.settledIn(ctx, term)
	if err != nil {
		return 0, err
	}
	index := n.raft.CommitIndex()
	if err := n.await(ctx, func() raft.Future { return n.raft.VerifyLeader() }, nil); err != nil {
		return 0, n.explain("read", err)
	}
	if n.raft.CurrentTerm() != term {
		return 0, n.explain("read", raft.ErrNotLeader)
	}
	command, err := n.lastCommand(settled, index)
	if err != nil {
		return 0, err
	}
	if err := n.fsm.wait(ctx, command); err != nil {
		return 0, n.explain("read", err)
	}
	return max(index, settled), nil
}

// Settled returns when the state machine of this member, which must lead, holds everything that was committed before it
// led: until then, decisions on what it holds would be about the past. It takes a barrier once in a term, and nothing
// afterwards. Errors are as for Apply; nothing was changed.
func (n *Node) Settled(ctx context.Context) error {
	term := n.raft.CurrentTerm()
	if !n.IsLeader() {
		return n.explain("settle", raft.ErrNotLeader)
	}
	_, err := n.settledIn(ctx, term)
	return err
}

// settledIn returns the index of a barrier that was applied in term, making one if there is none.
func (n *Node) settledIn(ctx context.Context, term uint64) (uint64, error) {
	if index, ok := n.lastBarrier(term); ok {
		return index, nil
	}
	if err := n.Barrier(ctx); err != nil {
		return 0, err
	}
	if index, ok := n.lastBarrier(term); ok {
		return index, nil
	}
	return 0, n.explain("read", raft.ErrNotLeader)
}

func (n *Node) lastBarrier(term uint64) (uint64, bool) {
	n.barrierMu.Lock()
	defer n.barrierMu.Unlock()
	return n.barrier.index, n.barrier.term == term && term > 0
}

// lastCommand returns the index of the last command after settled and up to index, 0 if there is none: only commands
// reach the state machine, so only for them can be waited. On a busy cluster the last entry is one.
func (n *Node) lastCommand(settled, index uint64) (uint64, error) {
	for i := index; i > settled; i-- {
		var entry raft.Log
		switch err := n.logs.GetLog(i, &entry); {
		case errors.Is(err, raft.ErrLogNotFound):
			// Dropped behind a snapshot, which is taken of what was applied.
			return 0, nil
		case err != nil:
			return 0, fmt.Errorf("read log entry %d: %w", i, err)
		case entry.Type == raft.LogCommand:
			return i, nil
		}
	}
	return 0, nil
}

// timeoutOf is how long Raft's main loop may take to accept a request.
func timeoutOf(ctx context.Context) time.Duration {
	if deadline, ok := ctx.Deadline(); ok {
		// Raft takes 0 for "for ever".
		return max(time.Until(deadline), time.Nanosecond)
	}
	return enqueueTimeout
}

// propose is await for what adds to the log: it waits while leadership is handed over.
func (n *Node) propose(ctx context.Context, start func() raft.Future) error {
	if err := n.gate.enter(ctx, n.closing); err != nil {
		return notStartedError{err}
	}
	return n.await(ctx, start, n.gate.leave)
}

// await starts a request and waits for its result, for ctx, or for Close. Raft's futures know no context: the waiting
// goroutine ends when Raft answers, which it does at the latest when the member stops leading or stops; then it calls
// answered, if that is set.
func (n *Node) await(ctx context.Context, start func() raft.Future, answered func()) error {
	if answered == nil {
		answered = func() {}
	}
	if err := ctx.Err(); err != nil {
		answered()
		return notStartedError{err}
	}
	select {
	case <-n.closing:
		answered()
		return notStartedError{raft.ErrRaftShutdown}
	default:
	}
	done := make(chan error, 1)
	go func() {
		err := start().Error()
		answered()
		done <- err
	}()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	case <-n.closing:
		return raft.ErrLeadershipLost
	}
}

// notStartedError marks an error that came before anything was asked of Raft.
type notStartedError struct{ error }

func (e notStartedError) Unwrap() error { return e.error }

// explain turns Raft's errors into ours: what happened, and who leads.
func (n *Node) explain(op string, err error) error {
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("%s: %w: %w", op, fleet.ErrTimeout, err)
	case errors.Is(err, context.Canceled):
		return fmt.Errorf("%s: %w", op, err)
	case errors.Is(err, raft.ErrNotLeader), errors.Is(err, raft.ErrLeadershipTransferInProgress):
		return fmt.Errorf("%s: %w: %w: member %s does not lead, %s", op, fleet.ErrUnavailable, fleet.ErrNotLeader, n.member, n.whoLeads())
	case errors.Is(err, raft.ErrRaftShutdown):
		return fmt.Errorf("%s: %w", op, errClosed)
	case errors.Is(err, raft.ErrEnqueueTimeout):
		return fmt.Errorf("%s: %w: member %s is too busy to take it: try again later", op, fleet.ErrUnavailable, n.member)
	case errors.Is(err, raft.ErrLeadershipLost), errors.Is(err, raft.ErrAbortedByRestore):
		return fmt.Errorf("%s: %w: member %s lost leadership meanwhile, %s", op, fleet.ErrUnavailable, n.member, n.whoLeads())
	}
	return fmt.Errorf("%s: %w: %w", op, fleet.ErrUnavailable, err)
}

// explainChange is explain for what changes the log: it adds whether the change may have taken effect.
func (n *Node) explainChange(op string, err error) error {
	for _, definite := range []error{raft.ErrNotLeader, raft.ErrLeadershipTransferInProgress, raft.ErrEnqueueTimeout} {
		if errors.Is(err, definite) {
			return n.explain(op, err)
		}
	}
	if errors.As(err, new(notStartedError)) {
		if errors.Is(err, raft.ErrRaftShutdown) {
			return fmt.Errorf("%w (%w)", n.explain(op, err), fleet.ErrNotLeader)
		}
		return n.explain(op, err)
	}
	return fmt.Errorf("%w (%w: read before trying again)", n.explain(op, err), ErrOutcomeUnknown)
}

func (n *Node) whoLeads() string {
	if id, addr, ok := n.Leader(); ok && id != n.member {
		return fmt.Sprintf("the leader is %s at %s", id, addr)
	}
	return "no leader is known: an election is under way, or a majority of the members is not reachable"
}
