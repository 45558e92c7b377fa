package spool

import (
	"context"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/edgefleet/edgefleet/observability"
)

// instruments count what the ledger cannot show over time. Metrics have no tenant label; the ledger does.
type instruments struct {
	dropped                    map[Reason]metric.MeasurementOption
	drops, releases, resentOut metric.Int64Counter
}

func newInstruments(s *Spool) instruments {
	t := s.o.Telemetry
	m := instruments{
		dropped:   map[Reason]metric.MeasurementOption{},
		drops:     t.Counter("edgefleet_spool_dropped_total"),
		releases:  t.Counter("edgefleet_spool_released_total"),
		resentOut: t.Counter("edgefleet_spool_resent_total"),
	}
	for _, r := range Reasons {
		m.dropped[r] = metric.WithAttributeSet(attribute.NewSet(attribute.String("reason", string(r))))
		m.drops.Add(context.Background(), 0, m.dropped[r])
	}
	t.Gauge("edgefleet_spool_events", func() []observability.Sample {
		s.mu.Lock()
		defer s.mu.Unlock()
		var n uint64
		for _, a := range s.ledger {
			n += a.Spooled
		}
		return []observability.Sample{{Value: float64(n)}}
	})
	t.Gauge("edgefleet_spool_bytes", func() []observability.Sample {
		s.mu.Lock()
		defer s.mu.Unlock()
		return []observability.Sample{{Value: float64(s.size())}}
	})
	return m
}

func (m instruments) drop(ctx context.Context, r Reason) { m.dropN(ctx, r, 1) }

func (m instruments) dropN(ctx context.Context, r Reason, n uint64) {
	if n > 0 {
		m.drops.Add(ctx, int64(n), m.dropped[r])
	}
}

func (m instruments) release(ctx context.Context, n uint64) {
	if n > 0 {
		m.releases.Add(ctx, int64(n))
	}
}

func (m instruments) resent(ctx context.Context, n int64) {
	if n > 0 {
		m.resentOut.Add(ctx, n)
	}
}
