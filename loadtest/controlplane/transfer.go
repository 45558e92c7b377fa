package controlplane

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/edgefleet/edgefleet/loadtest/harness"
	"github.com/edgefleet/edgefleet/loadtest/report"
)

// transferClients write while leadership moves; transferSettle is how long before and after each move.
const (
	transferClients = 8
	transferSettle  = 300 * time.Millisecond
)

// transfer hands leadership over as planned while clients write by every member, and measures the longest time in which
// no write was acknowledged. No write may fail, and nothing is repeated.
func (r *run) transfer(ctx context.Context, w *wire) error {
	rounds := harness.Pick(r.env, 30, 5, 1)
	r.env.Say("planned transfers")
	if err := w.handOver(ctx); err != nil {
		r.rep.Fail("planned transfer", "ms", "leadership could not be handed over: "+err.Error())
		return nil //nolint:nilerr // it is a check that does not hold
	}
	if err := w.cluster.CaughtUp(ctx); err != nil {
		return err
	}
	acks := newAcks()
	run, stop := context.WithCancel(ctx)
	defer stop()
	var clients sync.WaitGroup
	for n := range transferClients {
		clients.Go(func() {
			for i := 0; run.Err() == nil; i++ {
				acks.add(w.write(ctx, n, i, w.cluster.All[n%len(w.cluster.All)]), time.Now())
			}
		})
	}
	var gaps harness.Samples
	var failed error
	for range rounds {
		pauseFor(run, transferSettle)
		start := time.Now()
		if failed = w.handOver(run); failed != nil {
			break
		}
		pauseFor(run, transferSettle)
		gaps = append(gaps, acks.longest(start, time.Now()))
	}
	stop()
	clients.Wait()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if failed != nil {
		r.rep.Fail("planned transfer", "ms", failed.Error())
		return nil
	}
	gaps.Sorted()
	note := fmt.Sprintf("longest time without an acknowledged write around a transfer; %d transfers, %d clients that write by all members", rounds, transferClients)
	r.rep.Add("planned transfer median", harness.Millis(gaps.Quantile(0.5)), "ms", report.AtMost(50), note)
	r.rep.Add("planned transfer worst", harness.Millis(gaps.Max()), "ms", report.AtMost(250), note)
	note = fmt.Sprintf("of %d writes, none repeated", len(acks.at)+acks.errors)
	if acks.first != nil {
		note += "; the first: " + acks.first.Error()
	}
	r.rep.Add("requests failed by a transfer", float64(acks.errors), "requests", report.AtMost(0), note)
	return nil
}

// handOver asks the leader to hand over to any other member.
func (w *wire) handOver(ctx context.Context) error {
	leader, err := w.cluster.Leader(ctx)
	if err != nil {
		return err
	}
	return w.do(ctx, workers-1, leader, http.MethodPost, "/v1/cluster/transfer-leader", `{}`)
}

// acks are the times of the acknowledged writes.
type acks struct {
	mu     sync.Mutex
	at     []time.Time
	errors int
	first  error
}

func newAcks() *acks { return &acks{} }

func (a *acks) add(err error, at time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if err == nil {
		a.at = append(a.at, at)
		return
	}
	a.errors++
	if a.first == nil {
		a.first = err
	}
}

// longest is the longest time between two acknowledgements, of which the later is after from and the earlier before to.
func (a *acks) longest(from, to time.Time) time.Duration {
	a.mu.Lock()
	defer a.mu.Unlock()
	slices.SortFunc(a.at, time.Time.Compare)
	last, longest := from, time.Duration(0)
	for _, t := range a.at {
		if t.Before(from) {
			last = t
			continue
		}
		longest = max(longest, t.Sub(last))
		if last = t; t.After(to) {
			break
		}
	}
	if last.Before(to) {
		longest = max(longest, to.Sub(last))
	}
	return longest
}
