package program

import (
	"context"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

const (
	// headroom is what a heap may at least grow by between two garbage collections, if that is no more than mostPercent of
	// what lives in it: a small one under load would be collected several times a second, for a tenth of a processor.
	headroom    = 256 << 20
	mostPercent = 400
	// leastPercent is the runtime's own default.
	leastPercent = 100
	headroomTick = time.Second
)

// Headroom lets a small heap grow further between two garbage collections than the runtime would, until ctx ends; a large
// one is collected as ever. With GOGC set, it does nothing. GOMEMLIMIT holds all the same.
func Headroom(ctx context.Context) {
	if os.Getenv("GOGC") != "" {
		return
	}
	live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	defer debug.SetGCPercent(debug.SetGCPercent(leastPercent))
	tick := time.NewTicker(headroomTick)
	defer tick.Stop()
	for now := leastPercent; ; {
		metrics.Read(live)
		// It stops the world for a moment, so not for a little.
		if next := percent(live[0].Value.Uint64()); next < now*9/10 || next > now*11/10 {
			debug.SetGCPercent(next)
			now = next
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// percent is the GOGC for a heap in which that many bytes live.
func percent(live uint64) int {
	return int(min(max(headroom*100/max(live, 1), leastPercent), mostPercent)) //nolint:gosec // at most mostPercent
}
