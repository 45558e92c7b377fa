package api

import (
	"context"
	"strconv"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/edgefleet/edgefleet/observability"
)

// limiter counts failed authentications by address in fixed windows.
type limiter struct {
	mu    sync.Mutex
	start time.Time
	count map[string]int
}

// failures an address may cause in window before it has to wait.
const (
	failures = 20
	window   = time.Minute
)

// maxSources bounds the addresses that are counted in one window; beyond it, none is added.
const maxSources = 100_000

func newLimiter() *limiter { return &limiter{count: map[string]int{}} }

func (l *limiter) allow(source string, now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if now.Sub(l.start) > window {
		l.start = now
		clear(l.count)
	}
	return l.count[source] < failures
}

func (l *limiter) failed(source string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.count) < maxSources || l.count[source] > 0 {
		l.count[source]++
	}
}

type metrics struct {
	requests metric.Int64Counter
	seconds  metric.Float64Histogram
}

func newMetrics(t *observability.Telemetry) metrics {
	return metrics{requests: t.Counter("edgefleet_api_requests_total"), seconds: t.Histogram("edgefleet_api_request_seconds")}
}

func (m metrics) observe(ctx context.Context, method string, status int, d time.Duration) {
	m.requests.Add(ctx, 1, metric.WithAttributes(attribute.String("method", method), attribute.String("status", strconv.Itoa(status))))
	m.seconds.Record(ctx, d.Seconds(), metric.WithAttributes(attribute.String("method", method)))
}

func itoa(n uint64) string { return strconv.FormatUint(n, 10) }
