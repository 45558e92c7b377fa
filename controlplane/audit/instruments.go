package audit

import "github.com/edgefleet/edgefleet/observability"

func (l *Log) instrument() {
	gauge := func(name string, read func() float64) {
		l.o.Telemetry.Gauge(name, func() []observability.Sample { return []observability.Sample{{Value: read()}} })
	}
	gauge("edgefleet_audit_segments", func() float64 { n, _ := l.count(); return float64(n) })
	gauge("edgefleet_audit_segments_missing", func() float64 { _, n := l.count(); return float64(n) })
	gauge("edgefleet_audit_state_entries", func() float64 {
		v := l.o.State.Read()
		if first := v.AuditFirst(); first > 0 {
			return float64(v.AuditHead().Seq - first + 1)
		}
		return 0
	})
}

// count is how many segments there are, and how many of them are not on this disk.
func (l *Log) count() (all, missing int) {
	for s := range l.o.State.Read().AuditSegments(0) {
		all++
		if !l.Holds(s) {
			missing++
		}
	}
	return all, missing
}
