package observability

import (
	"context"
	"sync"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
)

// buckets of every histogram, in seconds: from what a local verdict takes to what a distant operation may.
var buckets = []float64{
	0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60,
}

// Sample is one series of a gauge at the moment it is read.
type Sample struct {
	Value float64
	Attrs []attribute.KeyValue
}

// instruments makes each declared instrument once.
type instruments struct {
	meter    metric.Meter
	declared map[string]Metric

	mu         sync.Mutex
	counters   map[string]metric.Int64Counter
	histograms map[string]metric.Float64Histogram
}

func newInstruments(meter metric.Meter) *instruments {
	return &instruments{
		meter: meter, declared: declared(),
		counters: map[string]metric.Int64Counter{}, histograms: map[string]metric.Float64Histogram{},
	}
}

func declared() map[string]Metric {
	rows := map[string]Metric{}
	for _, m := range Metrics() {
		rows[m.Name] = m
	}
	return rows
}

// find panics for what the registry does not hold: that is an error in the program, found by its first test.
func (i *instruments) find(name string, kind MetricKind) Metric {
	m, ok := i.declared[name]
	if !ok || m.Kind != kind {
		panic("observability: " + name + " is not declared as a " + string(kind) + ": add a row to metrics.go")
	}
	return m
}

// made panics for an instrument that OpenTelemetry refuses: only a malformed row of the registry causes it.
func made[T any](instrument T, err error) T {
	if err != nil {
		panic("observability: " + err.Error())
	}
	return instrument
}

// Counter is the declared counter of that name; it panics if the registry has none. Record the labels of its row with
// every addition. A counter without labels is shown from here on; one with few, known labels should be recorded as 0 for
// each by its owner, if what it counts is rare.
func (t *Telemetry) Counter(name string) metric.Int64Counter {
	i := t.instruments
	m := i.find(name, KindCounter)
	i.mu.Lock()
	defer i.mu.Unlock()
	if _, ok := i.counters[name]; !ok {
		c := made(i.meter.Int64Counter(name, metric.WithUnit(m.Unit), metric.WithDescription(m.Description)))
		if len(m.Labels) == 0 {
			c.Add(context.Background(), 0) // shown from the start: an increase from nothing is none to an alert
		}
		i.counters[name] = c
	}
	return i.counters[name]
}

// Histogram is the declared histogram of that name, in seconds; it panics if the registry has none.
func (t *Telemetry) Histogram(name string) metric.Float64Histogram {
	i := t.instruments
	m := i.find(name, KindHistogram)
	i.mu.Lock()
	defer i.mu.Unlock()
	if _, ok := i.histograms[name]; !ok {
		i.histograms[name] = made(i.meter.Float64Histogram(name, metric.WithUnit(m.Unit),
			metric.WithDescription(m.Description), metric.WithExplicitBucketBoundaries(buckets...)))
	}
	return i.histograms[name]
}

// Gauge calls read at every scrape and push, from any goroutine; read must not block. It panics if the registry has no
// gauge of that name. Several readers of one gauge must give different labels.
func (t *Telemetry) Gauge(name string, read func() []Sample) {
	i := t.instruments
	m := i.find(name, KindGauge)
	made(i.meter.Float64ObservableGauge(name, metric.WithUnit(m.Unit), metric.WithDescription(m.Description),
		metric.WithFloat64Callback(func(_ context.Context, o metric.Float64Observer) error {
			for _, s := range read() {
				o.Observe(s.Value, metric.WithAttributes(s.Attrs...))
			}
			return nil
		})))
}
