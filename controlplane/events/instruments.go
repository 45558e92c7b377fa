package events

import (
	"context"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/edgefleet/edgefleet/observability"
)

type instruments struct {
	storedTotal, duplicates, rejectedTotal, missedTotal, tailSkipped metric.Int64Counter
	put                                                              metric.Float64Histogram
}

func newInstruments(t *observability.Telemetry) instruments {
	m := instruments{
		storedTotal:   t.Counter("edgefleet_events_stored_total"),
		duplicates:    t.Counter("edgefleet_events_duplicates_total"),
		rejectedTotal: t.Counter("edgefleet_events_rejected_total"),
		missedTotal:   t.Counter("edgefleet_events_missed_total"),
		tailSkipped:   t.Counter("edgefleet_events_tail_skipped_total"),
		put:           t.Histogram("edgefleet_events_put_seconds"),
	}
	for _, r := range reasons {
		m.rejectedTotal.Add(context.Background(), 0, byReason(r))
	}
	return m
}

func byReason(r reason) metric.MeasurementOption {
	return metric.WithAttributes(attribute.String("reason", string(r)))
}

func gaugeGaps(t *observability.Telemetry, m *marks) {
	t.Gauge("edgefleet_events_watermark_gaps", func() []observability.Sample {
		return []observability.Sample{{Value: float64(m.openGaps())}}
	})
}

func (m instruments) stored(ctx context.Context, added, held int, took time.Duration) {
	m.storedTotal.Add(ctx, int64(added))
	m.duplicates.Add(ctx, int64(held))
	m.put.Record(ctx, took.Seconds())
}

func (m instruments) rejected(ctx context.Context, r reason) {
	m.rejectedTotal.Add(ctx, 1, byReason(r))
}

func (m instruments) missed(ctx context.Context, n uint64) {
	if n > 0 {
		m.missedTotal.Add(ctx, int64(min(n, 1<<40)))
	}
}
