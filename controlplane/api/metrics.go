package api

import (
	"context"
	"net/http"
	"strconv"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/edgefleet/edgefleet/observability"
)

type metrics struct {
	requests metric.Int64Counter
	crowded  metric.Int64Counter
	seconds  metric.Float64Histogram
}

func newMetrics(t *observability.Telemetry) metrics {
	return metrics{requests: t.Counter("edgefleet_api_requests_total"), crowded: t.Counter("edgefleet_api_nodes_refused_total"), seconds: t.Histogram("edgefleet_api_request_seconds")}
}

func (m metrics) observe(ctx context.Context, method string, status int, d time.Duration, waited bool) {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPatch, http.MethodDelete:
	default:
		method = "other" // a client may make up any number of methods
	}
	m.requests.Add(ctx, 1, metric.WithAttributes(attribute.String("method", method), attribute.String("status", strconv.Itoa(status))))
	if waited {
		return // as long as the caller said
	}
	m.seconds.Record(ctx, d.Seconds(), metric.WithAttributes(attribute.String("method", method)))
}

func itoa(n uint64) string { return strconv.FormatUint(n, 10) }
