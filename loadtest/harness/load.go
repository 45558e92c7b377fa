package harness

import (
	"context"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Load is a closed loop: each worker has one operation under way.
type Load struct {
	Workers int
	// Warm is how long operations run before they count, For how long they count.
	Warm, For time.Duration
	// Do is one operation; i counts a worker's.
	Do func(ctx context.Context, worker, i int) error
}

// Outcome is what a load did.
type Outcome struct {
	Count, Errors int
	Seconds       float64
	// Took are the latencies of the operations that succeeded, sorted.
	Took Samples
	// First is one of the errors.
	First error
}

// Rate is how many operations succeeded a second.
func (o Outcome) Rate() float64 {
	if o.Seconds == 0 {
		return 0
	}
	return float64(o.Count) / o.Seconds
}

// Run runs the load to its end, or until ctx ends.
func (l Load) Run(ctx context.Context) (Outcome, error) {
	var (
		wg       sync.WaitGroup
		counting atomic.Bool
		took     = make([]Samples, l.Workers)
		errs     = make([]int, l.Workers)
		first    atomic.Pointer[error]
	)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	run, stop := context.WithCancel(ctx)
	defer stop()
	for w := range l.Workers {
		wg.Go(func() {
			for i := 0; run.Err() == nil; i++ {
				counts, start := counting.Load(), time.Now()
				err := l.Do(ctx, w, i)
				switch {
				case !counts || !counting.Load():
				case err != nil:
					errs[w]++
					first.CompareAndSwap(nil, &err)
				default:
					took[w] = append(took[w], time.Since(start))
				}
			}
		})
	}
	pause(ctx, l.Warm)
	start := time.Now()
	counting.Store(true)
	pause(ctx, l.For)
	counting.Store(false)
	out := Outcome{Seconds: time.Since(start).Seconds()}
	stop()
	wg.Wait()
	for w := range l.Workers {
		out.Took = append(out.Took, took[w]...)
		out.Errors += errs[w]
	}
	out.Count = len(out.Took)
	slices.Sort(out.Took)
	if e := first.Load(); e != nil {
		out.First = *e
	}
	return out, context.Cause(ctx)
}

// pause waits for d or ctx.
func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// Samples are durations; the methods need them sorted.
type Samples []time.Duration

// Quantile is the q-th quantile, the nearest sample that at least q of all do not exceed; 0 without samples.
func (s Samples) Quantile(q float64) time.Duration {
	if len(s) == 0 {
		return 0
	}
	i := int(math.Ceil(q*float64(len(s)))) - 1
	return s[min(max(i, 0), len(s)-1)]
}

// Max is the largest.
func (s Samples) Max() time.Duration { return s.Quantile(1) }

// Sorted sorts in place and returns s.
func (s Samples) Sorted() Samples {
	slices.Sort(s)
	return s
}

// Millis is a duration in milliseconds.
func Millis(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
