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
)

// span is a time in which something went on.
type span struct{ from, to time.Time }

// overlaps reports whether the two have a moment in common.
func (s span) overlaps(o span) bool { return s.from.Before(o.to) && o.from.Before(s.to) }

func (s span) length() time.Duration { return s.to.Sub(s.from) }

// watched is what was seen of the snapshots of all members.
type watched struct {
	// leader is the time of the leader's first whole one, quiet those in which no member took one.
	leader span
	quiet  []span
	// taken counts the snapshots of all.
	taken int
}

func total(ss []span) (d time.Duration) {
	for _, s := range ss {
		d += s.length()
	}
	return d
}

// enough reports whether there is as much time without a snapshot as the leader's took, to compare with.
func (w *watched) enough() bool {
	return w.leader.length() > 0 && total(w.quiet) >= w.leader.length()
}

// snapshots writes until the leader has taken a snapshot, which every write waits for if any does, and compares the waits
// meanwhile with those of as much time in which no member takes one.
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

// compare holds the writes during the leader's snapshot against those of as much time without one, the last there was.
func (r *run) compare(name string, writes []span, seen watched) {
	quiet := last(seen.quiet, seen.leader.length())
	within := func(s span, of []span) bool { return slices.ContainsFunc(of, s.overlaps) }
	var in, out harness.Samples
	for _, s := range writes {
		switch {
		case s.overlaps(seen.leader):
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
		fmt.Sprintf("worst write during the leader's snapshot (%.1f s: %s) less the worst of as much time in which no member takes one (%s); members took %d",
			seen.leader.length().Seconds(), tell(in), tell(out), seen.taken))
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
	since := make([]time.Time, len(all)) // in which a member takes one
	tick := time.NewTicker(snapshotTick)
	defer tick.Stop()
	begun := time.Now() // of the time without one
	for {
		now, quiet := time.Now(), true
		for i, m := range all {
			tmp, err := filepath.Glob(filepath.Join(m.Data(), "raft", "snapshots", "*.tmp"))
			if err != nil {
				return w, err
			}
			taking, took := len(tmp) > 0, !since[i].IsZero()
			switch {
			case taking && !took:
				since[i] = now
			case took && !taking:
				w.taken++
				if m == leader && w.leader.length() == 0 {
					w.leader = span{since[i], now}
				}
				since[i] = time.Time{}
			}
			quiet = quiet && !taking
		}
		ahead := w
		switch {
		case !quiet && !begun.IsZero():
			w.quiet = append(w.quiet, span{begun, now})
			begun = time.Time{}
		case quiet && begun.IsZero():
			begun = now
		case quiet:
			ahead.quiet = append(slices.Clone(w.quiet), span{begun, now})
		}
		if ahead.enough() {
			return ahead, nil
		}
		select {
		case <-ctx.Done():
			return w, fmt.Errorf("the leader took no snapshot within %s, or there was not as much time without one: members took %d, and none in %s of it", snapshotLimit, w.taken, total(w.quiet))
		case <-tick.C:
		}
	}
}
