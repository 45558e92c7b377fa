package consensus

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/raft"
	"github.com/hashicorp/raft-wal/metrics"
	"github.com/hashicorp/raft-wal/verifier"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
)

// DefaultVerifyEvery is how many entries of the log are summed up together.
const DefaultVerifyEvery = 4096

// verifiedLog sums up what is appended with raft-wal's verifier: the leader writes the sum of a range into the entry that
// ends it, and every member, the leader too, reads the range back from its disk and compares. So a member whose log is not
// the leader's is found without a restart, and whether its disk or the way there was at fault.
//
// An entry ends a range by its index, whatever is in it, so that the log holds no entries for this alone. A cut of the end of
// the log begins anew: the verifier's sums would go on with what was cut.
type verifiedLog struct {
	raft.LogStore
	every uint64
	// raft is set once Raft runs.
	raft atomic.Pointer[raft.Raft]
	// damaged is told of a range that does not agree.
	damaged func(error)
	log     *slog.Logger
	ranges  metric.Int64Counter

	mu      sync.Mutex
	current atomic.Pointer[verifier.LogStore]
}

// unclosed keeps the verifier from closing the log below it.
type unclosed struct{ raft.LogStore }

// IsMonotonic implements raft.MonotonicLogStore.
func (u unclosed) IsMonotonic() bool {
	m, ok := u.LogStore.(raft.MonotonicLogStore)
	return ok && m.IsMonotonic()
}

// start begins the first verifier.
func (v *verifiedLog) start() error {
	v.count(context.Background(), 0, "ok")
	return v.begin()
}

// begin starts a verifier in place of the one there is. What that one still reports is about entries that may be gone.
func (v *verifiedLog) begin() error {
	var own *verifier.LogStore // set before anything is stored by it, and so before it reports
	own = verifier.NewLogStore(unclosed{v.LogStore}, v.endsRange, func(r verifier.VerificationReport) {
		if v.current.Load() == own {
			v.report(r)
		}
	}, &metrics.NoOpCollector{})
	return v.replace(own)
}

func (v *verifiedLog) replace(next *verifier.LogStore) error {
	if last := v.current.Swap(next); last != nil {
		return last.Close()
	}
	return nil
}

// close ends the verifier; the log below stays open.
func (v *verifiedLog) close() error {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.replace(nil)
}

// endsRange says whether a range ends with an entry. A follower goes by what the leader wrote into it: one that does not
// verify yet writes nothing.
func (v *verifiedLog) endsRange(l *raft.Log) (bool, error) {
	r := v.raft.Load()
	return len(l.Extensions) > 0 || l.Index%v.every == 0 && r != nil && r.State() == raft.Leader, nil
}

func (v *verifiedLog) report(r verifier.VerificationReport) {
	ctx := context.Background()
	var mismatch verifier.ErrChecksumMismatch
	result := "ok"
	switch {
	case errors.As(r.Err, &mismatch):
		result = "mismatch"
		err := fmt.Errorf("entries %d to %d of the write-ahead log are not the leader's (replace this member: fleetctl cluster remove, controlplane join): %w", r.Range.Start, r.Range.End-1, r.Err)
		v.log.ErrorContext(ctx, "write-ahead log differs from the leader's", "err", err)
		v.damaged(err)
	case r.Err != nil:
		// Most often a range of which the beginning is behind a snapshot already.
		result = "incomplete"
		v.log.DebugContext(ctx, "range of the write-ahead log not verified", "first_index", r.Range.Start, "index", r.Range.End, "err", r.Err)
	}
	v.count(ctx, 1, result)
}

func (v *verifiedLog) count(ctx context.Context, n int64, result string) {
	v.ranges.Add(ctx, n, metric.WithAttributes(attribute.String("result", result)))
}

// StoreLog implements raft.LogStore.
func (v *verifiedLog) StoreLog(l *raft.Log) error { return v.StoreLogs([]*raft.Log{l}) }

// StoreLogs implements raft.LogStore.
func (v *verifiedLog) StoreLogs(logs []*raft.Log) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if own := v.current.Load(); own != nil {
		return own.StoreLogs(logs)
	}
	return v.LogStore.StoreLogs(logs)
}

// DeleteRange implements raft.LogStore.
func (v *verifiedLog) DeleteRange(from, to uint64) error {
	last, err := v.LastIndex()
	if err != nil {
		return err
	}
	if to >= last && from <= last {
		v.mu.Lock()
		defer v.mu.Unlock()
		if v.current.Load() != nil {
			if err := v.begin(); err != nil {
				return err
			}
		}
	}
	return v.LogStore.DeleteRange(from, to)
}

// IsMonotonic implements raft.MonotonicLogStore.
func (v *verifiedLog) IsMonotonic() bool { return unclosed{v.LogStore}.IsMonotonic() }
