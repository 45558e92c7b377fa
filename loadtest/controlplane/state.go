package controlplane

import (
	"context"
	"fmt"
	"net/http"
	"path/filepath"
	"sync"
	"time"

	"github.com/edgefleet/edgefleet/loadtest/harness"
	"github.com/edgefleet/edgefleet/loadtest/report"
)

const (
	// stateClients write while snapshots are taken, with statePause between two writes each.
	stateClients = 8
	statePause   = 5 * time.Millisecond
	// snapshotLimit is how long a snapshot may be waited for: members look every one to two minutes whether one is due.
	snapshotLimit = 3 * time.Minute
	// compared is the least time before a snapshot that is compared with the time in it.
	compared = 5 * time.Second
)

// state measures what a large state costs: how long a member takes to restore it, and whether writes wait for its
// snapshots.
func (r *run) state(ctx context.Context) error {
	n := harness.Pick(r.env, 1_000_000, 50_000, 5_000)
	r.env.Say("a state of %d objects", n)
	c, err := r.env.NewMembers(ctx, "state")
	if err != nil {
		return err
	}
	if err := r.seed(ctx, c.All[0], n); err != nil {
		return err
	}
	r.env.Say("restore")
	start := time.Now()
	if err := c.All[0].Start(ctx); err != nil {
		return err
	}
	r.rep.Add("restore of the state", time.Since(start).Seconds(), "s", report.AtMost(30), fmt.Sprintf("%d objects; from the start of the process to ready", n))
	if r.env.Short || r.env.Smoke {
		return c.Stop(ctx) // members take snapshots too seldom for a short run
	}
	r.env.Say("two members join and receive it")
	start = time.Now()
	for range members - 1 {
		m, err := c.Join(ctx, "state")
		if err != nil {
			return err
		}
		// One after the other: a member that has a vote and not the state yet is one that the quorum lacks.
		if err := m.Ready(ctx); err != nil {
			return err
		}
		if err := c.CaughtUp(ctx); err != nil {
			return err
		}
	}
	if err := holdsSeed(ctx, c); err != nil {
		return err
	}
	r.rep.Add("two members receive the state", time.Since(start).Seconds(), "s", report.Bound{}, "from join to voting, one after the other, over the network")
	if err := r.snapshots(ctx, c); err != nil {
		return err
	}
	return c.Stop(ctx)
}

// holdsSeed makes sure that every member has the first of the objects.
func holdsSeed(ctx context.Context, c *harness.Members) error {
	w, err := newWire(c)
	if err != nil {
		return err
	}
	for _, m := range c.All {
		if err := w.do(ctx, 0, m, http.MethodGet, "/v1/tenants/"+tenant(0)+"/hosts/"+string(seedHost(0))+"?consistency=stale", ""); err != nil {
			return fmt.Errorf("member %s does not hold the state: %w", m.ID, err)
		}
	}
	return nil
}

// span is a time in which something went on.
type span struct{ from, to time.Time }

// overlaps reports whether the two have a moment in common.
func (s span) overlaps(o span) bool { return s.from.Before(o.to) && o.from.Before(s.to) }

// snapshots writes until the leader has taken a snapshot and compares the waits in it with those before.
func (r *run) snapshots(ctx context.Context, c *harness.Members) error {
	w, err := newWire(c)
	if err != nil {
		return err
	}
	leader, err := c.Leader(ctx)
	if err != nil {
		return err
	}
	r.env.Say("writes, until the leader takes a snapshot")
	run, stop := context.WithTimeout(ctx, snapshotLimit)
	defer stop()
	var taken span
	var found error
	var watch sync.WaitGroup
	watch.Go(func() {
		defer stop()
		taken, found = awaitSnapshot(run, filepath.Join(leader.Data(), "raft", "snapshots"))
	})
	writes := make([][]span, stateClients)
	failed := make([]error, stateClients)
	for n := range stateClients {
		watch.Go(func() {
			for i := 0; run.Err() == nil; i++ {
				s := span{from: time.Now()}
				if err := w.write(ctx, n, i, leader); err != nil {
					failed[n] = err
				}
				s.to = time.Now()
				writes[n] = append(writes[n], s)
				pauseFor(run, statePause)
			}
		})
	}
	watch.Wait()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	const name = "longest wait for a snapshot"
	if found != nil {
		r.rep.Fail(name, "ms", fmt.Sprintf("the leader took no snapshot within %s: %v", snapshotLimit, found))
		return nil
	}
	r.compare(name, writes, taken)
	for _, err := range failed {
		if err != nil {
			r.rep.Fail("writes during a snapshot", "", err.Error())
			break
		}
	}
	return nil
}

// compare holds the writes during a snapshot against those of as long a time before.
func (r *run) compare(name string, writes [][]span, taken span) {
	length := max(taken.to.Sub(taken.from), compared)
	before := span{taken.from.Add(-length), taken.from}
	var in, out harness.Samples
	for _, ws := range writes {
		for _, s := range ws {
			switch {
			case s.overlaps(taken):
				in = append(in, s.to.Sub(s.from))
			case s.overlaps(before):
				out = append(out, s.to.Sub(s.from))
			}
		}
	}
	in.Sorted()
	out.Sorted()
	tell := func(s harness.Samples) string {
		return fmt.Sprintf("%d writes, p50 %.1f ms, p99 %.1f ms, worst %.1f ms", len(s), harness.Millis(s.Quantile(0.5)), harness.Millis(s.Quantile(0.99)), harness.Millis(s.Max()))
	}
	r.rep.Add(name, max(0, harness.Millis(in.Max()-out.Max())), "ms", report.AtMost(50),
		fmt.Sprintf("worst write during the leader's snapshot (%.1f s: %s) less the worst before it (%.1f s: %s)", taken.to.Sub(taken.from).Seconds(), tell(in), length.Seconds(), tell(out)))
}

// awaitSnapshot waits for the next snapshot in dir to begin and to end. Raft writes it to a directory whose name ends
// in .tmp, and renames that.
func awaitSnapshot(ctx context.Context, dir string) (span, error) {
	var s span
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		tmp, err := filepath.Glob(filepath.Join(dir, "*.tmp"))
		if err != nil {
			return s, err
		}
		switch {
		case len(tmp) > 0 && s.from.IsZero():
			s.from = time.Now()
		case len(tmp) == 0 && !s.from.IsZero():
			s.to = time.Now()
			return s, nil
		}
		select {
		case <-ctx.Done():
			return s, ctx.Err()
		case <-tick.C:
		}
	}
}
