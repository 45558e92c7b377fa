package proxy

import (
	"context"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/observability"
)

// metrics are the instruments of the request path; their rows are in package observability.
type metrics struct {
	requests, refused, blocked, originErrors, handshakes, panics metric.Int64Counter
	seconds                                                      metric.Float64Histogram
	// classes holds the label of each class of status, so that the hot path makes none.
	classes [6]metric.MeasurementOption
}

func newMetrics(t *observability.Telemetry, active *atomic.Int64) *metrics {
	m := &metrics{
		requests:     t.Counter("edgefleet_proxy_requests_total"),
		refused:      t.Counter("edgefleet_proxy_refused_total"),
		blocked:      t.Counter("edgefleet_proxy_blocked_total"),
		originErrors: t.Counter("edgefleet_proxy_origin_errors_total"),
		handshakes:   t.Counter("edgefleet_proxy_tls_handshake_failures_total"),
		panics:       t.Counter("edgefleet_proxy_panics_total"),
		seconds:      t.Histogram("edgefleet_proxy_request_seconds"),
	}
	for i, class := range []string{"aborted", "1xx", "2xx", "3xx", "4xx", "5xx"} {
		m.classes[i] = metric.WithAttributeSet(attribute.NewSet(attribute.String("class", class)))
	}
	t.Gauge("edgefleet_proxy_active_requests", func() []observability.Sample {
		return []observability.Sample{{Value: float64(active.Load())}}
	})
	return m
}

// request counts one answered request; status 0 or statusClientGone means that the client did not wait for it.
func (m *metrics) request(ctx context.Context, status int, seconds float64) {
	class := m.classes[0]
	if i := status / 100; i >= 1 && i <= 5 && status != statusClientGone {
		class = m.classes[i]
	}
	m.requests.Add(ctx, 1, class)
	m.seconds.Record(ctx, seconds)
}

func (m *metrics) handshakeFailed(ctx context.Context, reason string) {
	m.handshakes.Add(ctx, 1, byReason(reason))
}

func byReason(reason string) metric.MeasurementOption {
	return metric.WithAttributes(attribute.String("reason", reason))
}

// counters are totals by tenant. Tenants come from the configuration, never from a request, so they are few.
type counters struct{ tenants sync.Map }

type counter struct{ requests, detected, blocked atomic.Uint64 }

func (c *counters) of(t fleet.TenantID) *counter {
	if v, ok := c.tenants.Load(t); ok {
		return v.(*counter)
	}
	v, _ := c.tenants.LoadOrStore(t, &counter{})
	return v.(*counter)
}

func (c *counters) list() []fleet.TenantCounters {
	var out []fleet.TenantCounters
	for k, v := range c.tenants.Range {
		n := v.(*counter)
		out = append(out, fleet.TenantCounters{
			Tenant: k.(fleet.TenantID), Requests: n.requests.Load(), Detected: n.detected.Load(), Blocked: n.blocked.Load(),
		})
	}
	slices.SortFunc(out, func(a, b fleet.TenantCounters) int { return strings.Compare(string(a.Tenant), string(b.Tenant)) })
	return out
}
