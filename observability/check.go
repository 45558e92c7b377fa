package observability

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/edgefleet/edgefleet/fleet"
)

// prefix of every metric of ours; what libraries emit under other names is theirs.
const prefix = "edgefleet_"

// CheckExposition holds a scrape of /metrics against the registry: each of our series must be declared with this
// name, type and exactly these label keys. The error lists everything that differs.
func CheckExposition(r io.Reader) error {
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(r)
	if err != nil {
		return fleet.Invalid("metrics", "not a Prometheus exposition: %v", err)
	}
	var all []*dto.MetricFamily
	for _, f := range families {
		all = append(all, f)
	}
	var errs []error
	for _, u := range undeclared(all) {
		errs = append(errs, fleet.Invalid("metrics", "%s", u))
	}
	return errors.Join(errs...)
}

// Undeclared says how what this process emits now differs from the registry; nothing means that it does not.
func (t *Telemetry) Undeclared() []string {
	families, err := t.registry.Gather()
	if err != nil {
		return []string{err.Error()}
	}
	return undeclared(families)
}

func undeclared(families []*dto.MetricFamily) []string {
	rows := declared()
	var out []string
	for _, f := range families {
		name := f.GetName()
		if !strings.HasPrefix(name, prefix) {
			continue
		}
		row, ok := rows[name]
		if !ok {
			out = append(out, name+" is not declared: add a row to metrics.go")
			continue
		}
		if kind := strings.ToLower(f.GetType().String()); kind != string(row.Kind) {
			out = append(out, fmt.Sprintf("%s is a %s and declared as a %s", name, kind, row.Kind))
		}
		for _, m := range f.GetMetric() {
			if got, want := labelKeys(m), slices.Sorted(slices.Values(row.Labels)); !slices.Equal(got, want) {
				out = append(out, fmt.Sprintf("%s has the labels %v and is declared with %v", name, got, want))
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func labelKeys(m *dto.Metric) []string {
	var keys []string
	for _, l := range m.GetLabel() {
		keys = append(keys, l.GetName())
	}
	slices.Sort(keys)
	return keys
}
