package rules

import (
	"slices"
	"time"

	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/fleet/request"
)

// Question is a request whose judging is to be explained.
type Question struct {
	// Host is the mode that is set for the host, Kill that of a kill switch.
	Host, Kill fleet.Mode
	Source     Source
	Policy     fleet.FailPolicy
	// RulesMissing: the node does not have the tenant's rules.
	RulesMissing bool
	Request      *request.Request
	Now          time.Time
}

// Explanation says how a tenant's own rules judge a request. It is made by the code that nodes run.
type Explanation struct {
	Mode   Setting `json:"mode"`
	Source Source  `json:"source,omitempty" enum:",allow,deny,gray" doc:"IP list that the client is on"`
	// Rules are those whose conditions all hold, then the others.
	Rules   []ExplainedRule  `json:"rules"`
	Points  []ExplainedPoint `json:"points"`
	Matches []ExplainedMatch `json:"matches"`
	// Problems are the parts of the request that were not read.
	Problems []ExplainedPoint  `json:"problems,omitempty"`
	Policy   fleet.FailPolicy  `json:"fail_policy"`
	Failed   []fleet.FailCause `json:"failed,omitempty" doc:"causes for which the request is not wholly judged"`
	Headers  []ExplainedHeader `json:"response_headers,omitempty"`
	Outcome  Outcome           `json:"outcome" enum:"passed,reported,blocked"`
	Reason   Reason            `json:"reason,omitempty" doc:"why it is blocked"`
	Cause    fleet.FailCause   `json:"cause,omitempty" doc:"cause of the fail policy"`
	// Malicious: something was found that counts.
	Malicious bool `json:"malicious"`
}

// Outcome is what becomes of a request.
type Outcome string

// The outcomes. Reported includes that nothing was found: it would have been.
const (
	OutcomePassed   Outcome = "passed"
	OutcomeReported Outcome = "reported"
	OutcomeBlocked  Outcome = "blocked"
)

// ExplainedRule is one rule and its conditions.
type ExplainedRule struct {
	Rule       fleet.RuleID         `json:"rule"`
	Kind       fleet.RuleKind       `json:"kind"`
	Applies    bool                 `json:"applies" doc:"all conditions hold, and the rule has not ended"`
	Expired    bool                 `json:"expired,omitempty"`
	Conditions []ExplainedCondition `json:"conditions,omitempty"`
}

// ExplainedCondition is one condition, and what of the request it was compared with.
type ExplainedCondition struct {
	fleet.RuleCondition
	Holds  bool     `json:"holds"`
	Values []string `json:"values,omitempty"`
}

// ExplainedPoint is a value at a point, or why there is none.
type ExplainedPoint struct {
	Point  string `json:"point"`
	Value  string `json:"value,omitempty" doc:"at most 256 bytes of it"`
	Masked bool   `json:"masked,omitempty" doc:"it does not leave the node"`
	Reason string `json:"reason,omitempty"`
}

// ExplainedMatch is a rule that fires.
type ExplainedMatch struct {
	Rule         fleet.RuleID     `json:"rule"`
	Type         fleet.AttackType `json:"attack_type"`
	Point        string           `json:"point"`
	Payload      string           `json:"payload,omitempty"`
	Experimental bool             `json:"experimental,omitempty"`
	Patch        bool             `json:"virtual_patch,omitempty"`
	// DisabledBy is the rule that takes the finding out.
	DisabledBy fleet.RuleID `json:"disabled_by,omitempty"`
	// Error: the rule panicked.
	Error string `json:"error,omitempty"`
}

// ExplainedHeader is a header that a rule sets.
type ExplainedHeader struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

const (
	maxExplainedValue  = 256
	maxExplainedPoints = 500
)

// Explain judges q by the tenant's own rules, as a node does where the managed rules find nothing.
func (s *Set) Explain(q Question) Explanation {
	e := Explanation{
		Mode: s.Mode(q.Host, q.Kill, q.Request, q.Now), Source: q.Source, Policy: q.Policy,
		Rules: s.explainRules(q), Points: explainPoints(q.Request), Matches: []ExplainedMatch{},
	}
	for _, p := range q.Request.Problems() {
		e.Problems = append(e.Problems, ExplainedPoint{Point: request.PointString(p.Point), Reason: string(p.Reason)})
	}
	facts := Facts{Mode: e.Mode.Mode, Source: q.Source, Policy: q.Policy}
	if Analyses(facts.Mode, q.Source) {
		s.explainFindings(q, &e, &facts)
	}
	v := Decide(facts)
	e.Malicious, e.Failed, e.Reason, e.Cause = facts.Malicious, facts.Failed, v.Reason, v.Cause
	switch {
	case v.Block:
		e.Outcome = OutcomeBlocked
	case v.Report:
		e.Outcome = OutcomeReported
	default:
		e.Outcome = OutcomePassed
	}
	if !v.Block {
		for _, h := range s.Headers(q.Request, q.Now) {
			e.Headers = append(e.Headers, ExplainedHeader{h[0], h[1]})
		}
	}
	return e
}

func (s *Set) explainFindings(q Question, e *Explanation, facts *Facts) {
	f := s.Evaluate(q.Request, q.Now)
	for _, m := range f.Matches {
		e.Matches = append(e.Matches, explainMatch(m))
		facts.Malicious = facts.Malicious || !m.Experimental
		facts.Patched = facts.Patched || m.Patch
		if id, _, ok := f.Patched(m.Type, []fleet.Point{m.Point}); ok && !m.Experimental {
			facts.Patched = true
			e.Matches = append(e.Matches, ExplainedMatch{Rule: id, Type: fleet.AttackVPatch, Point: request.PointString(m.Point), Patch: true})
		}
	}
	for _, d := range f.disabled {
		m := explainMatch(d.Match)
		m.DisabledBy = d.by
		e.Matches = append(e.Matches, m)
	}
	for _, failure := range f.Failures {
		e.Matches = append(e.Matches, ExplainedMatch{Rule: failure.Rule, Error: failure.Err.Error()})
	}
	if len(f.Failures) > 0 {
		facts.Failed = append(facts.Failed, fleet.FailEngineError)
	}
	if q.RulesMissing {
		facts.Failed = append(facts.Failed, fleet.FailConfigNotLoaded)
	}
	facts.Failed = append(facts.Failed, Failed(q.Request)...)
}

func explainMatch(m Match) ExplainedMatch {
	return ExplainedMatch{Rule: m.Rule, Type: m.Type, Point: request.PointString(m.Point), Payload: excerpt(m.Payload), Experimental: m.Experimental, Patch: m.Patch}
}

func explainPoints(r *request.Request) []ExplainedPoint {
	out := []ExplainedPoint{}
	for _, v := range r.All() {
		if len(out) == maxExplainedPoints {
			return append(out, ExplainedPoint{Reason: "there are more points than are shown"})
		}
		out = append(out, ExplainedPoint{Point: request.PointString(v.Point), Value: excerpt(v.Value)})
	}
	return out
}

func (s *Set) explainRules(q Question) []ExplainedRule {
	out := []ExplainedRule{}
	if s == nil {
		return out
	}
	for _, r := range slices.Concat(s.modes, s.detectors, s.patches, s.disables, s.headers, s.pages) {
		x := ExplainedRule{Rule: r.id, Kind: r.spec.Kind, Expired: r.expired(q.Now)}
		x.Applies = !x.Expired
		for i, c := range r.conditions {
			values, _ := q.Request.Attributes(c.point) // was checked when it was compiled
			for j := range values {
				values[j] = excerpt(values[j])
			}
			holds := c.holds(q.Request)
			x.Applies = x.Applies && holds
			x.Conditions = append(x.Conditions, ExplainedCondition{RuleCondition: r.spec.Conditions[i], Holds: holds, Values: values})
		}
		out = append(out, x)
	}
	slices.SortStableFunc(out, func(a, b ExplainedRule) int {
		switch {
		case a.Applies == b.Applies:
			return 0
		case a.Applies:
			return -1
		}
		return 1
	})
	return out
}

func excerpt(s string) string { return s[:min(len(s), maxExplainedValue)] }
