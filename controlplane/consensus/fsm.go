package consensus

import (
	"context"
	"io"
	"log/slog"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// trackedFSM is the given state machine plus the one thing Raft does not tell: which command it has really applied.
// (raft.AppliedIndex is what was queued for it.)
type trackedFSM struct {
	fsm     raft.FSM
	log     *slog.Logger
	observe func(time.Duration)

	mu      sync.Mutex
	applied uint64
	// changed is closed at the next Apply; nil while nobody waits.
	changed chan struct{}
}

// Apply implements raft.FSM. A panic of the state machine is left to end the process (see the package comment); the
// line written first says where it stood.
func (f *trackedFSM) Apply(l *raft.Log) any {
	start, done := time.Now(), false
	defer func() {
		if !done {
			f.log.ErrorContext(context.Background(), "state machine cannot apply a committed entry, halting this member",
				"index", l.Index, "term", l.Term, "bytes", len(l.Data))
		}
	}()
	result := f.fsm.Apply(l)
	done = true
	f.observe(time.Since(start))

	f.mu.Lock()
	defer f.mu.Unlock()
	f.applied = l.Index
	if f.changed != nil {
		close(f.changed)
		f.changed = nil
	}
	return result
}

// Snapshot implements raft.FSM.
func (f *trackedFSM) Snapshot() (raft.FSMSnapshot, error) { return f.fsm.Snapshot() }

// Restore implements raft.FSM.
func (f *trackedFSM) Restore(r io.ReadCloser) error { return f.fsm.Restore(r) }

// wait returns when the command at index was applied, or ctx ends.
func (f *trackedFSM) wait(ctx context.Context, index uint64) error {
	for {
		f.mu.Lock()
		if f.applied >= index {
			f.mu.Unlock()
			return nil
		}
		if f.changed == nil {
			f.changed = make(chan struct{})
		}
		changed := f.changed
		f.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
