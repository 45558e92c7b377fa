package waf

import (
	"context"
	"errors"
	"net/netip"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/fleet/mask"
	"github.com/edgefleet/edgefleet/fleet/request"
	"github.com/edgefleet/edgefleet/fleet/rules"
)

// Input is one request to judge.
type Input struct {
	Tenant fleet.TenantID
	Host   fleet.HostName
	// Mode is what is set for the host; the tenant's rules may set another for the request.
	Mode  fleet.Mode
	Rules *rules.Set
	// RulesMissing: the node does not have the tenant's rules.
	RulesMissing bool
	FailPolicy   fleet.FailPolicy
	// Source is the IP list that the client is on.
	Source     rules.Source
	Request    *request.Request
	ClientAddr netip.AddrPort
	// Now is the time by which rules expire; zero is the clock's.
	Now time.Time
}

// Decision is the verdict on a request.
type Decision struct {
	// Mode is what the request was judged in, and who set it.
	Mode rules.Setting
	// Block says that the request must not reach the origin; Reason why, Cause that of the fail policy.
	Block  bool
	Reason rules.Reason
	Cause  fleet.FailCause
	// Malicious says that it was judged malicious, in any mode.
	Malicious bool
	// Events are masked, one for each attack type; the caller adds node, sequence, time and ids. A request that only
	// experimental rules matched has events and is not malicious.
	Events []fleet.Event
	// EngineError says that the request was not, or not wholly, judged.
	EngineError error
	// Failed are the causes for which it was not wholly judged.
	Failed []fleet.FailCause
}

// Judge judges one request. It waits for a free slot until ctx ends, and not at all where too many requests of the client
// or tenant wait already; the time that judging takes is bounded by the limits of the request and its body.
func (e *Engine) Judge(ctx context.Context, in Input) Decision {
	if in.Now.IsZero() {
		in.Now = time.Now()
	}
	d := Decision{Mode: rules.Setting{Mode: in.Mode, Layer: rules.LayerHost}}
	// When it fails, the host's own mode holds.
	d.EngineError = e.fence(ctx, in, "mode", func() error { d.Mode = in.Rules.Mode(in.Mode, "", in.Request, in.Now); return nil })
	in.Mode = d.Mode.Mode
	if !rules.Analyses(in.Mode, in.Source) {
		e.decide(ctx, in, &d, false)
		return d
	}
	leave, busy, err := e.slots.enter(ctx, in)
	if err != nil {
		d.EngineError = errors.Join(d.EngineError, e.failed(ctx, in, busy, err))
		d.Failed = []fleet.FailCause{fleet.FailTimeout}
		e.decide(ctx, in, &d, false)
		return e.count(ctx, in, d)
	}
	defer leave()
	start := time.Now()
	d = e.judge(ctx, in, d)
	e.seconds.Record(ctx, time.Since(start).Seconds())
	return e.count(ctx, in, d)
}

func (e *Engine) judge(ctx context.Context, in Input, d Decision) Decision {
	f := findings{rules: &rules.Found{}}
	d.EngineError = errors.Join(d.EngineError, e.fence(ctx, in, "rules", func() error {
		f.rules = in.Rules.Evaluate(in.Request, in.Now)
		d.Failed = rules.Failed(in.Request)
		return nil
	}))
	f.own = f.rules.Matches
	for _, failure := range f.rules.Failures {
		d.EngineError = errors.Join(d.EngineError, e.rulePanicked(ctx, in, failure))
	}
	d.EngineError = errors.Join(d.EngineError,
		e.fence(ctx, in, "crs", func() (err error) { f.crs, err = e.inspect(ctx, in, nil); return err }),
		e.fence(ctx, in, "disable", func() error { return e.disable(ctx, in, &f) }),
	)
	if d.EngineError != nil {
		d.Failed = append(d.Failed, fleet.FailEngineError)
	}
	if in.RulesMissing {
		d.Failed = append(d.Failed, fleet.FailConfigNotLoaded)
	}

	crs := f.crs.score >= e.options.AnomalyThreshold
	if !crs {
		f.crs.matches = nil // below the threshold they are no findings
	}
	d.EngineError = errors.Join(d.EngineError, e.fence(ctx, in, "patches", func() error { f.patch(in.Request); return nil }))
	d.Malicious = crs || f.decisive()
	e.decide(ctx, in, &d, f.patched())
	d.EngineError = errors.Join(d.EngineError, e.fence(ctx, in, "events", func() error {
		d.Events = describe(in, f, d.Block, masks(in))
		return nil
	}))
	return d
}

// masks says what is hidden. Where the tenant's rules are missing, its masks are too, and only metadata leaves.
func masks(in Input) *mask.Set {
	if in.RulesMissing {
		return nil
	}
	return in.Rules.Mask(in.Now)
}

// decide applies the table of modes and the fail policy, and counts the latter.
func (e *Engine) decide(ctx context.Context, in Input, d *Decision, patched bool) {
	v := rules.Decide(rules.Facts{Mode: in.Mode, Source: in.Source, Malicious: d.Malicious, Patched: patched, Failed: d.Failed, Policy: in.FailPolicy})
	d.Block, d.Reason, d.Cause = v.Block, v.Reason, v.Cause
	if len(d.Failed) == 0 || v.Block && v.Reason != rules.BlockedFailure {
		return // it needed no policy
	}
	for _, cause := range d.Failed {
		outcome := "passed"
		if v.Block {
			if cause != v.Cause {
				continue
			}
			outcome = "refused"
		}
		e.unjudged.Add(ctx, 1, metric.WithAttributes(
			attribute.String("cause", string(cause)), attribute.String("outcome", outcome), attribute.String("tenant", string(in.Tenant))))
	}
}

// rulePanicked counts and logs a rule that panicked.
func (e *Engine) rulePanicked(ctx context.Context, in Input, f rules.Failure) error {
	e.rulePanics.Add(ctx, 1, metric.WithAttributes(attribute.String("tenant", string(in.Tenant)), attribute.String("rule", string(f.Rule))))
	e.options.Telemetry.Logger.ErrorContext(ctx, "rule panicked", "tenant", in.Tenant, "host", in.Host, "rule", f.Rule, "err", f.Err, "stack", string(f.Stack))
	return e.failed(ctx, in, "panic_rules", f.Err)
}
