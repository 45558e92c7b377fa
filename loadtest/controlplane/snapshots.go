package controlplane

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/edgefleet/edgefleet/loadtest/harness"
	"github.com/edgefleet/edgefleet/loadtest/report"
)

const (
	// stateClients write while snapshots are taken, with statePause between two writes each.
	stateClients = 8
	statePause   = 5 * time.Millisecond
	// snapshotLimit is how long the leader's snapshot may be waited for: members look every one to two minutes whether one
	// is due, and take their time for it.
	snapshotLimit = 5 * time.Minute
	// snapshotTick is how often is looked whether a snapshot is being taken.
	snapshotTick = 4 * time.Millisecond
	// compared is the least time without a snapshot that is compared with the time of snapshots.
	compared = 5 * time.Second
)

// span is a time in which something went on.
type span struct{ from, to time.Time }

// overlaps reports whether the two have a moment in common.
func (s span) overlaps(o span) bool { return s.from.Before(o.to) && o.from.Before(s.to) }

func (s span) length() time.Duration { return s.to.Sub(s.from) }

// watched is what was seen of the snapshots of all members.
type watched struct {
	// busy are the times in which any member took one, quiet those in which none did.
	busy, quiet []span
	// taken counts them; leader says that one of them was the leader's.
	taken  int
	leader bool
}

func total(ss []span) (d time.Duration) {
	for _, s := range ss {
		d += s.length()
	}
	return d
}

// enough reports whether there is as much time without a snapshot to compare with.
func (w *watched) enough() bool {
	return w.leader && total(w.quiet) >= max(total(w.busy), compared)
}

// snapshots writes until the leader has taken a snapshot and compares the waits during the snapshots of all members with
// those of as much time without one.
func (r *run) snapshots(ctx context.Context, c *harness.Members) error {
	w, err := newWire(c)
	if err != nil {
		return err
	}
	leader, err := c.Leader(ctx)
	if err != nil {
		return err
	}
	r.env.Say("writes, until the leader took a snapshot, and as long without one")
	run, stop := context.WithTimeout(ctx, snapshotLimit)
	defer stop()
	var seen watched
	var found error
	var watch sync.WaitGroup
	watch.Go(func() {
		defer stop()
		seen, found = watchSnapshots(run, c.All, leader)
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
		r.rep.Fail(name, "ms", found.Error())
		return nil
	}
	r.compare(name, slices.Concat(writes...), seen)
	for _, err := range failed {
		if err != nil {
			r.rep.Fail("writes during a snapshot", "", err.Error())
			break
		}
	}
	return nil
}

// compare holds the writes during snapshots against those of as much time without one, the last there was.
func (r *run) compare(name string, writes []span, seen watched) {
	length := max(total(seen.busy), compared)
	quiet := last(seen.quiet, length)
	within := func(s span, of []span) bool { return slices.ContainsFunc(of, s.overlaps) }
	var in, out harness.Samples
	for _, s := range writes {
		switch {
		case within(s, seen.busy):
			in = append(in, s.length())
		case within(s, quiet):
			out = append(out, s.length())
		}
	}
	in.Sorted()
	out.Sorted()
	tell := func(s harness.Samples) string {
		return fmt.Sprintf("%d writes, p50 %.1f ms, p99 %.1f ms, worst %.1f ms", len(s), harness.Millis(s.Quantile(0.5)), harness.Millis(s.Quantile(0.99)), harness.Millis(s.Max()))
	}
	r.rep.Add(name, max(0, harness.Millis(in.Max()-out.Max())), "ms", report.AtMost(50),
		fmt.Sprintf("worst write during the snapshots of any member (%d, one or more of them in %.1f s: %s) less the worst without one (%.1f s: %s)",
			seen.taken, total(seen.busy).Seconds(), tell(in), total(quiet).Seconds(), tell(out)))
}

// last are the last of the spans, that long in all.
func last(ss []span, length time.Duration) (out []span) {
	for _, s := range slices.Backward(ss) {
		if length <= 0 {
			break
		}
		s.from = s.to.Add(-min(length, s.length()))
		length -= s.length()
		out = append(out, s)
	}
	return out
}

// watchSnapshots watches the snapshots of all members until the leader has taken one and there was as much time without.
// Raft writes a snapshot to a directory whose name ends in .tmp, and renames that.
func watchSnapshots(ctx context.Context, all []*harness.Member, leader *harness.Member) (watched, error) {
	var w watched
	taking := make([]bool, len(all))
	tick := time.NewTicker(snapshotTick)
	defer tick.Stop()
	current, begin := &w.quiet, time.Now()
	for {
		for i, m := range all {
			tmp, err := filepath.Glob(filepath.Join(m.Data(), "raft", "snapshots", "*.tmp"))
			if err != nil {
				return w, err
			}
			if taking[i] && len(tmp) == 0 {
				w.taken++
				w.leader = w.leader || m == leader
			}
			taking[i] = len(tmp) > 0
		}
		now, next := time.Now(), &w.quiet
		if slices.Contains(taking, true) {
			next = &w.busy
		}
		if next != current {
			*current = append(*current, span{begin, now})
			current, begin = next, now
		}
		ahead := w
		if current == &w.quiet {
			ahead.quiet = append(slices.Clone(w.quiet), span{begin, now})
			if ahead.enough() {
				return ahead, nil
			}
		}
		select {
		case <-ctx.Done():
			return w, fmt.Errorf("the leader took no snapshot within %s, or there was not as much time without one: %d snapshots in %s", snapshotLimit, w.taken, total(w.busy))
		case <-tick.C:
		}
	}
}
