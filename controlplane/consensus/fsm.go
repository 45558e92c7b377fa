package consensus

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/edgefleet/edgefleet/fleet"
)

// trackedFSM is the given state machine plus the one thing Raft does not tell: which command it has really applied.
// (raft.AppliedIndex is what was queued for it.)
//
// It also writes down how far that is. Raft does not know what was committed until a leader tells it, so that without
// a quorum a member would start with the state of its last snapshot, or none; with the mark, resume starts it with
// what it had.
type trackedFSM struct {
	fsm     raft.FSM
	log     *slog.Logger
	observe func(time.Duration)
	// mark is nil for a log in memory. It is not synced: one that lags only recovers less.
	mark *mark
	// growth is told of every command that was applied.
	growth *growth

	mu sync.Mutex
	// applied is the last command that the state machine has, recovered the last that it had before Raft started, passed
	// the last that Raft gave since.
	applied, recovered, passed uint64
	// changed is closed at the next Apply; nil while nobody waits.
	changed chan struct{}
	// restores counts the snapshots of the leader that took the place of the state.
	restores int
	// closing is closed when the member stops.
	closing <-chan struct{}
}

// Apply implements raft.FSM. A panic of the state machine is left to end the process (see the package comment); the
// line written first says where it stood.
func (f *trackedFSM) Apply(l *raft.Log) any {
	return f.ApplyBatch([]*raft.Log{l})[0]
}

// ApplyBatch implements raft.BatchingFSM. That the commands of a batch were applied is written down, and told to those
// who wait, once.
func (f *trackedFSM) ApplyBatch(logs []*raft.Log) []any {
	f.mu.Lock()
	recovered := f.recovered
	f.passed = logs[len(logs)-1].Index
	f.mu.Unlock()
	results, fresh := make([]any, len(logs)), make([]*raft.Log, 0, len(logs))
	at := make([]int, 0, len(logs))
	for i, l := range logs {
		// Nobody waits for what was proposed before this start.
		if l.Type == raft.LogCommand && l.Index > recovered {
			fresh, at = append(fresh, l), append(at, i)
		}
	}
	if len(fresh) == 0 {
		return results
	}
	for i, r := range f.apply(fresh) {
		results[at[i]] = r
	}
	f.reached(fresh[len(fresh)-1].Index)
	return results
}

// apply gives commands to the state machine, all at once if it takes them so.
func (f *trackedFSM) apply(logs []*raft.Log) (results []any) {
	start, done := time.Now(), false
	defer func() {
		if !done {
			first, last := logs[0], logs[len(logs)-1]
			f.log.ErrorContext(context.Background(), "state machine cannot apply a committed entry, halting this member",
				"first_index", first.Index, "index", last.Index, "term", last.Term, "bytes", len(last.Data))
		}
	}()
	if batching, ok := f.fsm.(raft.BatchingFSM); ok {
		results = batching.ApplyBatch(logs)
	} else {
		for _, l := range logs {
			results = append(results, f.fsm.Apply(l))
		}
	}
	done = true
	f.growth.add(logs)
	each := time.Since(start) / time.Duration(len(logs))
	for range logs {
		f.observe(each)
	}
	return results
}

// reached notes that the command at index was applied.
func (f *trackedFSM) reached(index uint64) {
	if f.mark != nil {
		if err := f.mark.raise(index); err != nil {
			f.log.DebugContext(context.Background(), "mark of the state machine lags", "err", err)
		}
	}

	f.mu.Lock()
	defer f.mu.Unlock()
	f.applied = index
	if f.changed != nil {
		close(f.changed)
		f.changed = nil
	}
}

// resume gives the state machine what it had when the process ended: the newest snapshot and the commands behind it,
// up to the one at index marked. It is done before Raft starts.
func (f *trackedFSM) resume(p parts, marked uint64) error {
	metas, err := p.snapshots.List()
	if err != nil {
		return fmt.Errorf("list snapshots: %w", err)
	}
	next := uint64(1)
	if len(metas) > 0 {
		_, r, err := p.snapshots.Open(metas[0].ID)
		if err == nil {
			err = f.fsm.Restore(r)
		}
		if err != nil {
			return fmt.Errorf("%w: restore snapshot %s: %w", fleet.ErrCorrupt, metas[0].ID, err)
		}
		next = metas[0].Index + 1
	}
	for ; next <= marked; next++ {
		var l raft.Log
		switch err := p.logs.GetLog(next, &l); {
		case errors.Is(err, raft.ErrLogNotFound):
			return nil // a log that a snapshot replaced
		case err != nil:
			return fmt.Errorf("read log entry %d: %w", next, err)
		case l.Type == raft.LogCommand:
			f.apply([]*raft.Log{&l})
			f.reached(next)
			f.recovered = next
		}
	}
	return nil
}

// Snapshot implements raft.FSM. Raft takes a snapshot to be of what it applied itself: there is none until it has
// applied what was recovered.
func (f *trackedFSM) Snapshot() (raft.FSMSnapshot, error) {
	f.mu.Lock()
	ahead, restores := f.passed < f.recovered, f.restores
	f.mu.Unlock()
	if ahead {
		return nil, raft.ErrNothingNewToSnapshot
	}
	s, err := f.fsm.Snapshot()
	if err != nil {
		return nil, err
	}
	f.growth.begin()
	return ownSnapshot{s, &pace{
		closing: f.closing, hurry: func() bool { return f.growth.passed() > 0 }, replaced: func() bool { return f.restored() != restores },
	}}, nil
}

// restored says how often a snapshot of the leader took the place of the state.
func (f *trackedFSM) restored() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.restores
}

// Restore implements raft.FSM: with a snapshot of the leader.
func (f *trackedFSM) Restore(r io.ReadCloser) error {
	f.mu.Lock()
	f.recovered = 0
	f.restores++
	f.mu.Unlock()
	f.growth.begin()
	return f.fsm.Restore(r)
}

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
