package mask

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/fleet/request"
)

// Conditions compiles the conditions of a rule into a function that says whether a request meets them.
type Conditions func([]fleet.RuleCondition) (func(*request.Request) bool, error)

// rule is a customer's rule of kind sensitive_data.
type rule struct {
	id fleet.RuleID
	// point is where values are hidden, and all that is below; name hides them at every point that ends in it. With
	// neither, pattern is looked for in every value.
	point fleet.Point
	name  string
	// pattern hides what it matches, instead of whole values.
	pattern *regexp.Regexp
	holds   func(*request.Request) bool
	spec    fleet.RuleSpec
}

// Compile makes a Set of the default pack and rules of kind sensitive_data; others are not looked at. A rule has a point,
// of which [["any","NAME"]] is a name in any place and any case, a pattern, or both. Where conditions is nil, rules with
// conditions hold for every request: more is hidden than was asked for, never less.
func Compile(rules []fleet.BundleRule, conditions Conditions) (*Set, error) {
	s := Default()
	for _, b := range rules {
		if b.Spec.Kind != fleet.RuleSensitiveData {
			continue
		}
		r, err := compile(b, conditions)
		if err != nil {
			return nil, fmt.Errorf("rule %q: %w", b.ID, err)
		}
		s.rules = append(s.rules, r)
	}
	return s, nil
}

// Validate compiles one rule of kind sensitive_data, without its conditions. The error names the field.
func Validate(spec fleet.RuleSpec) error {
	_, err := compile(fleet.BundleRule{Spec: spec}, nil)
	return err
}

// At returns s without the rules that have expired by now.
func (s *Set) At(now time.Time) *Set {
	if s == nil || !slices.ContainsFunc(s.rules, func(r rule) bool { return r.spec.Expired(now) }) {
		return s
	}
	current := *s
	current.rules = slices.DeleteFunc(slices.Clone(s.rules), func(r rule) bool { return r.spec.Expired(now) })
	return &current
}

func compile(b fleet.BundleRule, conditions Conditions) (rule, error) {
	r := rule{id: b.ID, spec: b.Spec, point: request.Canonical(b.Spec.Point)}
	if len(r.point) == 0 && b.Spec.Pattern == "" {
		return rule{}, fleet.Invalid("point", "what should be masked? give a point, a pattern or both")
	}
	if len(r.point) > 0 {
		if err := request.ValidatePoint(r.point); err != nil {
			return rule{}, err
		}
		if request.IsName(r.point) {
			return rule{}, fleet.Invalid("point", "%q stands for names, and a mask hides values: use %q", r.point[len(r.point)-1][0], strings.Replace(r.point[len(r.point)-1][0], "_name", "_all", 1))
		}
		if r.point[0][0] == "any" {
			r.name, r.point = fold(r.point[0][1]), nil
		}
	}
	if b.Spec.Pattern != "" {
		re, err := regexp.Compile(b.Spec.Pattern)
		if err != nil {
			return rule{}, fleet.Invalid("pattern", "the pattern %q is not an RE2 regular expression: %v", b.Spec.Pattern, err)
		}
		if re.MatchString("") {
			return rule{}, fleet.Invalid("pattern", "the pattern %q matches the empty text, and so everything: write what a value has at least", b.Spec.Pattern)
		}
		r.pattern = re
	}
	if conditions != nil && len(b.Spec.Conditions) > 0 {
		holds, err := conditions(b.Spec.Conditions)
		if err != nil {
			return rule{}, err
		}
		r.holds = holds
	}
	return r, nil
}

// active are the rules that hold for r.
func (s *Set) active(r *request.Request) []rule {
	var active []rule
	for _, rule := range s.rules {
		if rule.holds == nil || rule.holds(r) {
			active = append(active, rule)
		}
	}
	return active
}

// values are those of r at which the rule looks.
func (c rule) values(r *request.Request) []request.Value {
	switch {
	case len(c.point) > 0:
		found := r.Under(c.point)
		if parts := partsOf(c.point); parts != nil {
			for _, v := range r.All() {
				if slices.Contains(parts, v.Point[0][0]) {
					found = append(found, v)
				}
			}
		}
		return found
	case c.name == "":
		return r.All()
	}
	var found []request.Value
	for _, v := range r.All() {
		if c.named(v.Point) != nil {
			found = append(found, v)
		}
	}
	return found
}

// partsOf are the bases of points whose values are parts of the value at p.
func partsOf(p fleet.Point) []string {
	switch {
	case len(p) != 1 || len(p[0]) != 1:
		return nil
	case p[0][0] == "uri":
		return []string{"path", "action_name", "action_ext", "get"}
	case p[0][0] == "path":
		return []string{"path", "action_name", "action_ext"}
	}
	return nil
}

// named returns the shortest prefix of p that ends in the rule's name, nil if there is none.
func (c rule) named(p fleet.Point) fleet.Point {
	for i, e := range p {
		if c.name != "" && named(e) && strings.TrimPrefix(fold(e[1]), "@") == c.name {
			return p[:i+1]
		}
	}
	return nil
}

// named says that e has a name that the client chose.
func named(e []string) bool { return len(e) == 2 && e[0] != "array" && e[0] != "path" && e[0] != "jwt" }
