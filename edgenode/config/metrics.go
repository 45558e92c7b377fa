package config

import (
	"context"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/observability"
)

// metrics are the store's instruments.
type metrics struct {
	heads, damaged metric.Int64Counter
}

func newMetrics(s *Store, t *observability.Telemetry) metrics {
	t.Gauge("edgefleet_node_head_generation", func() []observability.Sample {
		snap := s.Snapshot()
		if snap == nil {
			return nil
		}
		samples := make([]observability.Sample, 0, len(snap.Versions))
		for kind, v := range snap.Versions {
			samples = append(samples, observability.Sample{Value: float64(v.Generation), Attrs: []attribute.KeyValue{attribute.String("kind", string(kind))}})
		}
		return samples
	})
	return metrics{
		heads:   t.Counter("edgefleet_node_heads_total"),
		damaged: t.Counter("edgefleet_node_state_damaged_total"),
	}
}

// applied counts the outcome of a head.
func (m metrics) applied(ctx context.Context, kind fleet.HeadKind, err error) {
	result := "applied"
	if err != nil {
		result = "refused"
	}
	m.heads.Add(ctx, 1, metric.WithAttributes(attribute.String("kind", string(kind)), attribute.String("result", result)))
}

// corrupt counts stored state that could not be used.
func (m metrics) corrupt(ctx context.Context) { m.damaged.Add(ctx, 1) }
