package pacing_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/edgefleet/edgefleet/controlplane/pacing"
)

func TestRests(t *testing.T) {
	closed := make(chan struct{})
	close(closed)
	for _, tt := range []struct {
		name string
		work time.Duration
		skip bool
		stop chan struct{}
		want time.Duration
	}{
		{"three quarters of the time are rest", 10 * time.Millisecond, false, nil, 30 * time.Millisecond},
		{"a part that took long is not made up for", time.Hour, false, nil, 100 * time.Millisecond},
		{"who stops does not rest", 10 * time.Millisecond, false, closed, 0},
		{"who has no time does not rest", 10 * time.Millisecond, true, nil, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var p pacing.Pace
				began := time.Now()
				p.Rest(nil)
				if d := time.Since(began); d != 0 {
					t.Errorf("a rest of %v before the work", d)
				}
				for range 3 {
					time.Sleep(tt.work)
					began = time.Now()
					if tt.skip {
						p.Skip()
					} else {
						p.Rest(tt.stop)
					}
					if d := time.Since(began); d != tt.want {
						t.Errorf("a rest of %v, want %v", d, tt.want)
					}
				}
			})
		})
	}
}
