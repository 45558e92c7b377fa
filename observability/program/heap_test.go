package program

import (
	"context"
	"runtime"
	"runtime/metrics"
	"testing"
	"time"
)

func TestASmallHeapIsCollectedLessOftenALargeOneAsEver(t *testing.T) {
	for live, want := range map[uint64]int{0: 400, 20 << 20: 400, 64 << 20: 400, 128 << 20: 200, 256 << 20: 100, 8 << 30: 100} {
		if got := percent(live); got != want {
			t.Errorf("a heap of %d bytes: %d %%, want %d %%", live, got, want)
		}
	}
}

func TestHeadroomIsGivenUntilItsEndUnlessGOGCIsSet(t *testing.T) {
	current := func() uint64 {
		s := []metrics.Sample{{Name: "/gc/gogc:percent"}}
		metrics.Read(s)
		return s[0].Value.Uint64()
	}
	t.Setenv("GOGC", "")
	runtime.GC() // so that something is known to live
	before := current()
	ctx, end := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); Headroom(ctx) }()
	for deadline := time.Now().Add(10 * time.Second); current() != mostPercent; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("GOGC is %d, want %d", current(), mostPercent)
		}
	}
	end()
	<-ended
	if got := current(); got != before {
		t.Errorf("GOGC is %d at the end, %d before", got, before)
	}
	t.Setenv("GOGC", "50")
	Headroom(t.Context()) // returns at once
}
