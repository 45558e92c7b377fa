// Package rules compiles the rules of one tenant and evaluates them over a parsed request.
//
// The control plane validates a rule with the same compilation that nodes run, so that what was accepted also loads.
// It judges the request alone: modes, verdicts and masking are the caller's, and so a Match holds what the client
// really sent. It has no state between requests, no clock and no I/O.
package rules

import (
	"fmt"
	"regexp"

	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/fleet/request"
)

// MaxExcerpt bounds the excerpt of a match, in bytes.
const MaxExcerpt = 1 << 10

// Set is the compiled rules of one tenant. It is immutable and safe for concurrent use; a nil Set matches nothing.
type Set struct{ rules []rule }

// Match is one rule that matched, with the excerpt that it matched. Neither Value nor Payload is masked.
type Match struct {
	Rule         fleet.RuleID
	Type         fleet.AttackType
	Experimental bool
	Point        fleet.Point
	// Parameter is the name of the parameter or header at Point, if it has one.
	Parameter string
	// Value is the whole value at Point, Payload the part of it that the pattern matched.
	Value, Payload string
	// Message is the rule's own fixed text: its comment, or "rule <id>".
	Message string
}

type rule struct {
	id         fleet.RuleID
	spec       fleet.RuleSpec
	message    string
	conditions []condition
	point      fleet.Point
	pattern    *regexp.Regexp
}

// Validate compiles spec as a node does. The error names the field.
func Validate(spec fleet.RuleSpec) error {
	_, err := compile(fleet.BundleRule{ID: "rule", Spec: spec})
	return err
}

// Compile compiles the rules of a tenant's bundle, all or nothing. The error names the rule.
func Compile(bundle []fleet.BundleRule) (*Set, error) {
	if len(bundle) > fleet.MaxRulesPerTenant {
		return nil, fleet.NewError(fleet.ErrTooLarge, "rules", "%d rules; the limit for one tenant is %d", len(bundle), fleet.MaxRulesPerTenant)
	}
	s := &Set{rules: make([]rule, 0, len(bundle))}
	seen := make(map[fleet.RuleID]bool, len(bundle))
	for _, b := range bundle {
		if seen[b.ID] {
			return nil, fleet.Invalid("rules", "rule %q occurs twice in the bundle", b.ID)
		}
		seen[b.ID] = true
		r, err := compile(b)
		if err != nil {
			return nil, fmt.Errorf("rule %q: %w", b.ID, err)
		}
		s.rules = append(s.rules, r)
	}
	return s, nil
}

func compile(b fleet.BundleRule) (rule, error) {
	// The bundle belongs to one tenant that is not repeated in its rules.
	if err := (fleet.Rule{ID: b.ID, Tenant: "bundle", Spec: b.Spec}).Validate(); err != nil {
		return rule{}, err
	}
	r := rule{id: b.ID, spec: b.Spec, message: b.Spec.Comment, point: request.Canonical(b.Spec.Point)}
	if r.message == "" {
		r.message = "rule " + string(b.ID)
	}
	if len(b.Spec.Point) > 0 {
		if err := request.ValidatePoint(b.Spec.Point); err != nil {
			return rule{}, err
		}
	}
	var err error
	if r.pattern, err = regexp.Compile(b.Spec.Pattern); err != nil {
		return rule{}, fleet.Invalid("pattern", "the pattern %q is not an RE2 regular expression: %v", b.Spec.Pattern, err)
	}
	for i, c := range b.Spec.Conditions {
		compiled, err := compileCondition(c)
		if err != nil {
			return rule{}, fmt.Errorf("condition %d: %w", i+1, err)
		}
		r.conditions = append(r.conditions, compiled)
	}
	return r, nil
}

// Evaluate returns the rules that r matches, each once, in the order of the bundle.
func (s *Set) Evaluate(r *request.Request) []Match {
	if s == nil {
		return nil
	}
	var matches []Match
	for i := range s.rules {
		if m, ok := s.rules[i].evaluate(r); ok {
			matches = append(matches, m)
		}
	}
	return matches
}

func (r *rule) evaluate(req *request.Request) (Match, bool) {
	for _, c := range r.conditions {
		if !c.holds(req) {
			return Match{}, false
		}
	}
	values := req.All()
	if len(r.point) > 0 {
		values = req.At(r.point)
	}
	for _, v := range values {
		if len(r.point) == 0 && !inspected(v.Point) {
			continue
		}
		at := r.pattern.FindStringIndex(v.Value)
		if at == nil {
			continue
		}
		return Match{
			Rule: r.id, Type: r.spec.AttackType, Experimental: r.spec.Experimental, Message: r.message,
			Point: v.Point, Parameter: v.Name, Value: v.Value, Payload: v.Value[at[0]:min(at[1], at[0]+MaxExcerpt)],
		}, true
	}
	return Match{}, false
}

// inspected says where a rule without a point looks: the whole path, every argument, and every header value.
func inspected(p fleet.Point) bool {
	switch p[0][0] {
	case "path":
		return len(p[0]) == 1
	case "get", "header":
		return true
	case "post":
		return len(p) > 1
	}
	return false
}
