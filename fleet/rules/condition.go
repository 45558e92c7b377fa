package rules

import (
	"regexp"
	"slices"
	"strings"

	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/fleet/request"
)

// condition is a compiled fleet.RuleCondition.
type condition struct {
	point  string
	absent bool
	match  func(string) bool
}

func compileCondition(c fleet.RuleCondition, cost *budget) (condition, error) {
	cost.conditions++
	if err := request.ValidateAttribute(c.Point); err != nil {
		return condition{}, err
	}
	if len(c.Value) > fleet.MaxPatternLength {
		return condition{}, fleet.NewError(fleet.ErrTooLarge, "conditions", "the value has %d bytes; the limit is %d", len(c.Value), fleet.MaxPatternLength)
	}
	compiled := condition{point: c.Point}
	// Host names have no case (RFC 4343), and the attribute is in lower case.
	fold := c.Type == fleet.MatchIEqual || c.Point == "host"
	switch c.Type {
	case fleet.MatchAbsent:
		if c.Value != "" {
			return condition{}, fleet.Invalid("conditions", "a condition of type absent has no value; remove %q", c.Value)
		}
		compiled.absent = true
	case fleet.MatchEqual, fleet.MatchIEqual:
		switch {
		case c.Point == "uri" && strings.Contains(c.Value, "*"):
			cost.expressions++
			re, err := regexp.Compile(uriPattern(c.Value, fold))
			if err != nil {
				return condition{}, fleet.Invalid("conditions", "the URI pattern %q cannot be compiled: %v", c.Value, err)
			}
			compiled.match = re.MatchString
		case fold:
			compiled.match = func(v string) bool { return strings.EqualFold(v, c.Value) }
		default:
			compiled.match = func(v string) bool { return v == c.Value }
		}
	case fleet.MatchRegex:
		pattern := c.Value
		if fold {
			pattern = "(?i)" + pattern
		}
		if _, err := measure("conditions", pattern, cost); err != nil {
			return condition{}, err
		}
		re, err := regexp.Compile(pattern)
		if err != nil {
			return condition{}, fleet.Invalid("conditions", "the value %q is not an RE2 regular expression: %v", c.Value, err)
		}
		compiled.match = re.MatchString
	default:
		return condition{}, fleet.Invalid("conditions", "%q is not a type of condition: use equal, iequal, regex or absent", string(c.Type))
	}
	return compiled, nil
}

// holds compares every value of the attribute, so that a duplicated parameter cannot hide one behind another.
func (c condition) holds(r *request.Request) bool {
	values, err := r.Attributes(c.point)
	if err != nil {
		return false // not reached: the point was checked when it was compiled
	}
	if c.absent {
		return len(values) == 0
	}
	return slices.ContainsFunc(values, c.match)
}

// uriPattern turns a pattern in which * stands for one component of the path, or a part of one, and ** for any number
// of components into a regular expression.
func uriPattern(pattern string, fold bool) string {
	var b strings.Builder
	b.WriteString(`(?s`)
	if fold {
		b.WriteString(`i`)
	}
	b.WriteString(`)^`)
	for i, component := range strings.Split(pattern, "/") {
		slash := ""
		if i > 0 {
			slash = "/"
		}
		switch component {
		case "**":
			b.WriteString(`(?:` + slash + `[^/]*)*`)
		case "*":
			b.WriteString(slash + `[^/]+`)
		default:
			parts := strings.Split(component, "*")
			for j := range parts {
				parts[j] = regexp.QuoteMeta(parts[j])
			}
			b.WriteString(slash + strings.Join(parts, `[^/]*`))
		}
	}
	b.WriteString(`$`)
	return b.String()
}
