// Package controlplane is the load scenario of the control plane: what three members acknowledge durably and read
// linearizably each second, beside etcd on the same disk in the same run; how long the loss and the planned transfer of a
// leader keep a write waiting; and what a large state costs.
//
// Its bounds are the project's promises. It owns no product code: it uses the programs as they are shipped, but for the
// bare log, which is package consensus in a process of its own.
package controlplane

import (
	"context"
	"fmt"
	"time"

	"github.com/edgefleet/edgefleet/loadtest/harness"
	"github.com/edgefleet/edgefleet/loadtest/report"
)

// Name is the scenario's name.
const Name = "controlplane"

// About is the scenario in a line.
const About = "writes, reads, failover, planned transfer and a large state of three members, beside etcd"

// Parts names the parts in the order in which they run.
var Parts = []string{"etcd", "bare", "api", "transfer", "failover", "state"}

// The load, the same on both sides.
const (
	// workers is how many clients have one request under way each.
	workers = 64
	// valueBytes is about what the log entry of the measured API write has.
	valueBytes = 512
	// objects are written and read in turn.
	objects = 1024
	members = 3
)

// run is one run of the scenario.
type run struct {
	env *harness.Env
	rep *report.Report
	// etcdWrites and etcdReads are etcd's rates a second, 0 when there are none to compare with.
	etcdWrites, etcdReads float64
}

// Run measures. A number that cannot be had is a check that does not hold; an error ends the scenario.
func Run(ctx context.Context, e *harness.Env, rep *report.Report) error {
	r := &run{env: e, rep: rep}
	steps := []struct {
		part string
		run  func(context.Context) error
	}{{"etcd", r.etcd}, {"bare", r.bare}, {"cluster", r.cluster}, {"state", r.state}}
	for _, s := range steps {
		if s.part != "cluster" && !e.Wants(s.part) {
			continue
		}
		if err := s.run(ctx); err != nil {
			return fmt.Errorf("%s: %w", s.part, err)
		}
	}
	return nil
}

// warm and measured are the times of one load.
func (r *run) warm() time.Duration {
	return harness.Pick(r.env, 2*time.Second, 500*time.Millisecond, 100*time.Millisecond)
}

func (r *run) measured() time.Duration {
	return harness.Pick(r.env, 10*time.Second, 2*time.Second, 300*time.Millisecond)
}

// share is the bound that is a part of etcd's rate.
func share(etcd, part float64) report.Bound {
	if etcd == 0 {
		return report.Bound{}
	}
	return report.AtLeast(etcd * part)
}

// versus tells how a rate compares with etcd's.
func versus(rate, etcd float64) string {
	if etcd == 0 {
		return "not compared with etcd"
	}
	return fmt.Sprintf("%.0f %% of etcd's rate", 100*rate/etcd)
}

// latencies tells the quantiles of a load.
func latencies(o harness.Outcome) string {
	s := fmt.Sprintf("p50 %.1f ms, p99 %.1f ms, max %.1f ms", harness.Millis(o.Took.Quantile(0.5)), harness.Millis(o.Took.Quantile(0.99)), harness.Millis(o.Took.Max()))
	if o.Errors > 0 {
		s += fmt.Sprintf(", %d errors (%v)", o.Errors, o.First)
	}
	return s
}
