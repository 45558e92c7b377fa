package hosts

import (
	"context"
	"crypto/tls"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"time"
	"unsafe"

	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/loadtest/harness"
	"github.com/edgefleet/edgefleet/loadtest/report"
	"github.com/edgefleet/edgefleet/tls/sni"
)

// sni times single lookups of names in random order, one in ten by a wildcard, and weighs the table.
func (r *run) sni(ctx context.Context) error {
	n := harness.Pick(r.env, 1_000_000, 200_000, 10_000)
	lookups := harness.Pick(r.env, 1<<21, 1<<18, 1<<12)
	r.env.Say("a certificate table of %d names", n)
	entries := make([]sni.Entry, n)
	certificate := &tls.Certificate{}
	for i := range entries {
		name := fmt.Sprintf("host-%d.customer-%d.example", i, i%997)
		if i%10 == 0 {
			name = "*." + name
		}
		entries[i] = sni.Entry{Name: fleet.HostName(name), Certificate: certificate}
	}
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	table := &sni.Table{}
	table.Replace(entries)
	runtime.GC()
	runtime.ReadMemStats(&after)
	names := make([]string, 1<<16)
	for i := range names {
		names[i] = strings.Replace(string(entries[rand.IntN(n)].Name), "*", "shop", 1)
	}
	took, clock := make(harness.Samples, 0, lookups), make(harness.Samples, 0, lookups)
	var buffer [256]byte
	for i := range lookups {
		// As in a handshake, the name was just read, and is in the processor's cache; what the table has of it is not.
		name := unsafe.String(&buffer[0], copy(buffer[:], names[i%len(names)]))
		start := time.Now()
		_, ok := table.Lookup(name)
		took = append(took, time.Since(start))
		start = time.Now()
		clock = append(clock, time.Since(start))
		if !ok {
			return fleet.NewError(fleet.ErrCorrupt, "sni", "the table does not find %s, which is in it", names[i%len(names)])
		}
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	took.Sorted()
	clock.Sorted()
	micros := func(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }
	note := fmt.Sprintf("%d lookups among %d names in random order, a tenth by wildcards, with the clock's own time (p50 %.2f µs, p99 %.2f µs, when nothing is between): p50 %.2f µs, max %.0f µs",
		lookups, table.Len(), micros(clock.Quantile(0.5)), micros(clock.Quantile(0.99)), micros(took.Quantile(0.5)), micros(took.Max()))
	r.rep.Add("certificate lookup p99", micros(took.Quantile(0.99)), "µs", report.AtMost(1), note)
	runtime.KeepAlive(entries)
	r.rep.Add("certificate table", float64(after.HeapAlloc-before.HeapAlloc)/float64(n), "B/name", report.Bound{}, "beside the names and certificates themselves, which are shared with what is served; twice that while it is replaced")
	return nil
}
