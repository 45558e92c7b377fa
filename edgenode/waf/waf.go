// Package waf judges requests with a tenant's own rules and the OWASP core rule set, and describes what it found as
// masked events.
//
// One engine serves all tenants: the core rule set is compiled once, and always in detection mode, so that the mode, the
// threshold and experimental rules are decided here. The verdict is local: no I/O, except that Coraza keeps uploaded
// files of a request in memory-backed files while it looks at it. It does not touch the request, answer the client, or
// keep events.
//
// What cannot be judged, or not wholly, passes unless the host's fail policy closes for its cause: a panic, an engine that
// is busy, or of which a client or tenant uses its share, until the caller's deadline, a body beyond the inspected prefix, rules that the node does not have. It is counted
// by cause and outcome, and the Decision says what was an error. A query or form of more than a thousand arguments is
// malicious. A rule of a tenant that panics costs itself alone: it is counted by its id, and the others judge the request.
package waf

import (
	"cmp"
	"context"
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/corazawaf/coraza/v3"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/fleet/rules"
	"github.com/edgefleet/edgefleet/observability"
)

// Options configures an Engine; zero fields take the defaults.
type Options struct {
	// ParanoiaLevel of the core rule set, 1 to 4; default 1.
	ParanoiaLevel int
	// AnomalyThreshold is the inbound score from which a request is malicious; default 5, one critical match.
	AnomalyThreshold int
	// BodyLimit bounds the inspected body in bytes; default 128 KiB. What is beyond it passes.
	BodyLimit int
	// Concurrency bounds the requests judged at once; default twice the CPUs.
	Concurrency int
	// TenantShare and ClientShare bound those of one tenant and of one client; default three quarters and half of
	// Concurrency, so that neither keeps the others from being judged, and each alone can use every CPU.
	TenantShare, ClientShare int
	// Profile is how the core rule set is used; default ProfileTuned.
	Profile Profile
	// Setup is SecLang that is read before the core rule set: its own settings, such as tx.arg_length; default none.
	Setup string
	// Telemetry receives metrics and the stacks of panics; nil discards them.
	Telemetry *observability.Telemetry
}

func (o *Options) validate() error {
	slots := cmp.Or(o.Concurrency, 2*runtime.GOMAXPROCS(0))
	defaults := []struct {
		field    *int
		name     string
		value    int
		min, max int
	}{
		{&o.ParanoiaLevel, "paranoia_level", 1, 1, 4},
		{&o.AnomalyThreshold, "anomaly_threshold", 5, 1, 10_000},
		{&o.BodyLimit, "body_limit", 128 << 10, 1 << 10, 16 << 20},
		{&o.Concurrency, "concurrency", slots, 1, 10_000},
		{&o.TenantShare, "tenant_share", max(1, slots*3/4), 1, 10_000},
		{&o.ClientShare, "client_share", max(1, slots/2), 1, 10_000},
	}
	for _, d := range defaults {
		if *d.field == 0 {
			*d.field = d.value
		}
		if *d.field < d.min || *d.field > d.max {
			return fleet.Invalid(d.name, "%s is %d: give %d to %d", d.name, *d.field, d.min, d.max)
		}
	}
	if o.Telemetry == nil {
		o.Telemetry = observability.Discard()
	}
	o.Profile = cmp.Or(o.Profile, ProfileTuned)
	return o.Profile.validate()
}

// Engine judges requests for all tenants. It is safe for concurrent use.
type Engine struct {
	options Options
	waf     coraza.WAF
	slots   *admission
	// excuses are empty but in the tuned profile.
	excuses map[int]excuse

	verdicts, failures, partial, unjudged, rulePanics metric.Int64Counter
	seconds                                           metric.Float64Histogram
}

// NewEngine compiles the core rule set, which takes about a second.
func NewEngine(o Options) (*Engine, error) {
	if err := o.validate(); err != nil {
		return nil, err
	}
	w, err := compileCRS(o)
	if err != nil {
		return nil, fmt.Errorf("compile core rule set: %w", err)
	}
	excuses := map[int]excuse{}
	if o.Profile == ProfileTuned {
		if excuses, err = compileExcuses(exclusions); err != nil {
			return nil, err
		}
	}
	return &Engine{
		options: o, excuses: excuses, waf: w, slots: newAdmission(o),
		verdicts: o.Telemetry.Counter("edgefleet_waf_verdicts_total"),
		failures: o.Telemetry.Counter("edgefleet_waf_errors_total"),
		partial:  o.Telemetry.Counter("edgefleet_waf_partial_total"),
		unjudged: o.Telemetry.Counter("edgefleet_waf_fail_policy_total"), rulePanics: o.Telemetry.Counter("edgefleet_waf_rule_panics_total"),
		seconds: o.Telemetry.Histogram("edgefleet_waf_judge_seconds"),
	}, nil
}

// fence runs one part of judging. A panic stays within the request and becomes an error without the request's data.
func (e *Engine) fence(ctx context.Context, in Input, part string, f func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			kind := "panic"
			if r, ok := p.(runtime.Error); ok {
				kind = r.Error()
			}
			e.options.Telemetry.Logger.ErrorContext(ctx, "rule engine panicked", "tenant", in.Tenant, "host", in.Host, "part", part, "err", kind, "stack", string(debug.Stack()))
			err = e.failed(ctx, in, "panic_"+part, fmt.Errorf("judge request: %s panicked: %s", part, kind))
		}
	}()
	if err := f(); err != nil {
		return e.failed(ctx, in, part, err)
	}
	return nil
}

func (e *Engine) failed(ctx context.Context, in Input, reason string, err error) error {
	e.failures.Add(ctx, 1, metric.WithAttributes(attribute.String("reason", reason), attribute.String("tenant", string(in.Tenant))))
	return err
}

func (e *Engine) count(ctx context.Context, in Input, d Decision) Decision {
	verdict := "clean"
	switch {
	case d.Block && d.Reason == rules.BlockedFailure:
		verdict = "unjudged"
	case d.Block:
		verdict = "blocked"
	case d.Malicious:
		verdict = "monitored"
	case d.EngineError != nil:
		verdict = "unjudged"
	case len(d.Events) > 0:
		verdict = "experimental"
	}
	e.verdicts.Add(ctx, 1, metric.WithAttributes(attribute.String("verdict", verdict), attribute.String("tenant", string(in.Tenant))))
	return d
}
