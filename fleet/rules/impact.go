package rules

import (
	"net/http"
	"slices"
	"strings"

	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/fleet/request"
)

// Touches says of events whether a rule that disables would have taken a finding of theirs out. Events hold no headers and
// no queries, so conditions on those count as if they held: with such conditions, what is said here is the most that it touches.
func Touches(spec fleet.RuleSpec) (func(fleet.Event) bool, error) {
	r, _, err := compile(fleet.BundleRule{ID: "rule", Spec: spec})
	if err != nil {
		return nil, err
	}
	if spec.Kind != fleet.RuleDisableAttackType && spec.Kind != fleet.RuleDisableRule {
		return nil, fleet.Invalid("kind", "a rule of kind %s takes nothing out: give disable_attack_type or disable_rule", spec.Kind)
	}
	var known []condition
	for _, c := range r.conditions {
		if !slices.Contains([]byte("qgh"), c.point[0]) || c.point == "host" { // query, get, header
			known = append(known, c)
		}
	}
	r.conditions = known
	return func(e fleet.Event) bool {
		named := slices.Contains(spec.AttackTypes, e.Type) || slices.ContainsFunc(e.Rules, func(m fleet.MatchedRule) bool { return slices.Contains(spec.Rules, m.ID) })
		if !named || len(r.point) > 0 && !pointCovers(r.point, e.Point) {
			return false
		}
		return r.applies(request.Parse(request.Input{
			Method: e.Method, Scheme: "https", Proto: e.Protocol, Host: string(e.Host), URI: e.Path, Header: http.Header{},
		}, request.Limits{}))
	}, nil
}

// pointCovers compares with a point as events have it: joined by dots. Elements with _all stand for any name, which may have
// dots itself.
func pointCovers(point fleet.Point, text string) bool {
	prefix := ""
	for _, e := range point {
		name := e[0]
		if rest, ok := cutWildcard(name); ok {
			return text != "" && strings.HasPrefix(text, prefix+rest)
		}
		prefix += request.PointString(fleet.Point{e}) + "."
	}
	return strings.HasPrefix(text+".", prefix)
}

func cutWildcard(name string) (string, bool) {
	for _, w := range []string{"_all", "_name"} {
		if rest, ok := strings.CutSuffix(name, w); ok {
			return rest, true
		}
	}
	return name, false
}
