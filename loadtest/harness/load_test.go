package harness_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/edgefleet/edgefleet/loadtest/harness"
)

func TestALoadCountsWhatEndsInItsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broken := errors.New("broken")
		out, err := harness.Load{Workers: 4, Warm: time.Second, For: 10 * time.Second, Do: func(_ context.Context, worker, _ int) error {
			time.Sleep(time.Duration(worker+1) * 300 * time.Millisecond)
			if worker == 3 {
				return broken
			}
			return nil
		}}.Run(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		// 0.3 s, 0.6 s and 0.9 s an operation, of those that begin and end between second 1 and 11.
		if out.Count != 32+16+10 || out.Errors != 8 || !errors.Is(out.First, broken) || out.Seconds != 10 {
			t.Errorf("%d operations, %d errors (%v) in %v s", out.Count, out.Errors, out.First, out.Seconds)
		}
		if q := out.Took.Quantile(0.5); q != 300*time.Millisecond || out.Took.Max() != 900*time.Millisecond {
			t.Errorf("median %v, worst %v", q, out.Took.Max())
		}
	})
}

func TestALoadEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := harness.Load{Workers: 2, For: time.Hour, Do: func(ctx context.Context, _, _ int) error {
			<-ctx.Done()
			return ctx.Err()
		}}.Run(ctx)
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
	})
}

func TestQuantiles(t *testing.T) {
	var s harness.Samples
	if s.Quantile(0.5) != 0 {
		t.Error("of nothing")
	}
	for i := range 100 {
		s = append(s, time.Duration(100-i))
	}
	s.Sorted()
	for q, want := range map[float64]time.Duration{0: 1, 0.5: 50, 0.99: 99, 0.999: 100, 1: 100} {
		if got := s.Quantile(q); got != want {
			t.Errorf("quantile %v is %d, want %d", q, got, want)
		}
	}
}
