package controlplane

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/edgefleet/edgefleet/loadtest/harness"
	"github.com/edgefleet/edgefleet/loadtest/report"
)

// ackLimit bounds the wait for the next acknowledged write.
const ackLimit = 30 * time.Second

// retryPause is how long a client whose write was refused waits before the next.
const retryPause = 2 * time.Millisecond

// failover kills the leader with SIGKILL, again and again, and measures the time to the next acknowledged write.
func (r *run) failover(ctx context.Context, w *wire) error {
	rounds := harness.Pick(r.env, 50, 4, 1)
	var took harness.Samples
	for i := range rounds {
		leader, err := w.cluster.Leader(ctx)
		if err != nil {
			return err
		}
		d, err := r.killed(ctx, w, leader, i)
		if err != nil {
			return err
		}
		took = append(took, d)
		r.env.Say("failover %d of %d: %.0f ms", i+1, rounds, harness.Millis(d))
		if err := leader.Start(ctx); err != nil {
			return err
		}
		if err := w.cluster.CaughtUp(ctx); err != nil {
			return err
		}
	}
	took.Sorted()
	note := fmt.Sprintf("from SIGKILL of the leader to the first acknowledged write through one of the others; %d kills", rounds)
	r.rep.Add("failover median", took.Quantile(0.5).Seconds(), "s", report.AtMost(0.7), note)
	r.rep.Add("failover worst", took.Max().Seconds(), "s", report.AtMost(1.2), note)
	return nil
}

// killed kills the leader and returns how long no write was acknowledged. A client at each other member writes all the
// time: a member holds a write until there is a leader, and answers with an error when it passed one on to the dead.
func (r *run) killed(ctx context.Context, w *wire, leader *harness.Member, round int) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, ackLimit)
	defer cancel()
	others := w.cluster.Others(leader)
	if err := w.write(ctx, 0, round, others[0]); err != nil { // connections are warm, the cluster is well
		return 0, fmt.Errorf("write before the kill: %w", err)
	}
	start := time.Now()
	leader.Kill()
	acked := make(chan time.Duration, len(others))
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	for n, m := range others {
		wg.Go(func() {
			for i := round * 1000; ctx.Err() == nil; i++ {
				if w.write(ctx, n, i, m) == nil {
					acked <- time.Since(start)
					return
				}
				pauseFor(ctx, retryPause)
			}
		})
	}
	select {
	case d := <-acked:
		return d, nil
	case <-ctx.Done():
		return 0, fmt.Errorf("no write was acknowledged within %s of the kill of %s", ackLimit, leader.ID)
	}
}

func pauseFor(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
