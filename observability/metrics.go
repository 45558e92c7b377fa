package observability

import "slices"

// MetricKind is the type of a metric in the exposition.
type MetricKind string

// The kinds of metric.
const (
	KindCounter   MetricKind = "counter"
	KindHistogram MetricKind = "histogram"
	KindGauge     MetricKind = "gauge"
)

// Metric is one row of the registry: what may be emitted, and what dashboards and alerts are generated from.
type Metric struct {
	// Name is what Prometheus shows. Counters end in _total, histograms in _seconds.
	Name string
	Kind MetricKind
	// Unit is UCUM: "s", "By", or "1" for a count or a ratio.
	Unit string
	// Description is one sentence for people.
	Description string
	// Labels are the keys that every series of the metric has, no more and no less. They never hold a request's
	// data, and their values are few: kinds, reasons, names of nodes and tenants.
	Labels []string
}

// Metrics lists every metric that Edgefleet emits, in the order of the areas below.
func Metrics() []Metric {
	return slices.Concat(
		processMetrics,
		nodeMetrics,
	)
}

var processMetrics = []Metric{
	{Name: "edgefleet_build_info", Kind: KindGauge, Unit: "1", Description: "Always 1; the label is the version of the running program.", Labels: []string{"version"}},
}

// nodeMetrics are those of an edge node's state and session.
var nodeMetrics = []Metric{
	{Name: "edgefleet_node_heads_total", Kind: KindCounter, Unit: "1", Description: "Heads that the node applied or refused.", Labels: []string{"kind", "result"}},
	{Name: "edgefleet_node_head_generation", Kind: KindGauge, Unit: "1", Description: "Generation of the head that the node serves.", Labels: []string{"kind"}},
	{Name: "edgefleet_node_state_damaged_total", Kind: KindCounter, Unit: "1", Description: "Stored last-known-good state that could not be used at start."},
	{Name: "edgefleet_node_session_connected", Kind: KindGauge, Unit: "1", Description: "Whether the node is connected to a member by NATS."},
	{Name: "edgefleet_node_polls_total", Kind: KindCounter, Unit: "1", Description: "Polls for heads.", Labels: []string{"transport", "result"}},
	{Name: "edgefleet_node_blobs_total", Kind: KindCounter, Unit: "1", Description: "Blobs fetched from the control plane.", Labels: []string{"transport", "result"}},
	{Name: "edgefleet_node_identity_expiry_seconds", Kind: KindGauge, Unit: "s", Description: "Time until the node's own certificate ends; negative when it has ended."},
}
