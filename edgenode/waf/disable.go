package waf

import (
	"context"
	"fmt"
	"regexp"
	"strconv"

	"github.com/corazawaf/coraza/v3/types"
	"github.com/corazawaf/coraza/v3/types/variables"

	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/fleet/request"
)

// target is what a rule of the core rule set must not look at; without a variable, at nothing.
type target struct {
	rule     int
	whole    bool
	variable variables.RuleVariable
	key      string
}

// remover is what a transaction of Coraza can besides its interface: it is what the action ctl does.
type remover interface {
	RemoveRuleByID(id int)
	RemoveRuleTargetByID(id int, variable variables.RuleVariable, key string, keyRx *regexp.Regexp)
}

func remove(tx types.Transaction, targets []target) error {
	if len(targets) == 0 {
		return nil
	}
	r, ok := tx.(remover)
	if !ok {
		return fmt.Errorf("the transaction is a %T and cannot leave out rules", tx)
	}
	for _, t := range targets {
		if t.whole {
			r.RemoveRuleByID(t.rule)
		} else {
			r.RemoveRuleTargetByID(t.rule, t.variable, t.key, nil)
		}
	}
	return nil
}

// disable inspects the request once more, without what the tenant's rules disable, if any of that had a part in its being
// malicious: the score of what is left is exact then.
func (e *Engine) disable(ctx context.Context, in Input, f *findings) error {
	if f.crs.score < e.options.AnomalyThreshold {
		return nil
	}
	targets := f.disabled(in.Request)
	if len(targets) == 0 {
		return nil
	}
	again, err := e.inspect(ctx, in, targets)
	if err == nil {
		f.crs = again
	}
	return err
}

// disabled are the targets of the core rule set that the tenant's rules take out.
func (f *findings) disabled(r *request.Request) []target {
	var out []target
	for _, m := range f.crs.matches {
		id, kind := m.Rule().ID(), attackType(m.Rule())
		text := strconv.Itoa(id)
		if f.rules.Disabled(kind, text, nil) {
			out = append(out, target{rule: id, whole: true})
			continue
		}
		matched := m.MatchedDatas()
		for _, d := range matched[:min(len(matched), maxTargets)] {
			if points := pointsOf(named(r, d)); len(points) > 0 && f.rules.Disabled(kind, text, points) {
				for _, v := range collections(d.Variable()) {
					out = append(out, target{rule: id, variable: v, key: d.Key()})
				}
			}
		}
	}
	return out
}

// maxTargets bounds the values of one match that are looked up.
const maxTargets = 256

// named are all values that go with what matched when it is left out: Coraza leaves out by name, whatever the value is, and
// of arguments wherever they are.
func named(r *request.Request, d types.MatchData) []request.Value {
	switch d.Variable() {
	case variables.Args, variables.ArgsGet, variables.ArgsPost, variables.ArgsNames, variables.ArgsGetNames, variables.ArgsPostNames:
		return append(arguments(r, "get", d.Key()), arguments(r, "post", d.Key())...)
	case variables.RequestHeaders, variables.RequestHeadersNames:
		return r.At(fleet.Point{{"header", d.Key()}})
	case variables.RequestCookies, variables.RequestCookiesNames:
		return fold(r.At(fleet.Point{{"header", "COOKIE"}, {"cookie_all"}}), d.Key())
	}
	return values(r, d)
}

// collections are those in which a rule may have seen what is in v: ARGS is made of the two others.
func collections(v variables.RuleVariable) []variables.RuleVariable {
	switch v {
	case variables.Args, variables.ArgsGet, variables.ArgsPost:
		return []variables.RuleVariable{variables.Args, variables.ArgsGet, variables.ArgsPost}
	case variables.ArgsNames, variables.ArgsGetNames, variables.ArgsPostNames:
		return []variables.RuleVariable{variables.ArgsNames, variables.ArgsGetNames, variables.ArgsPostNames}
	}
	return []variables.RuleVariable{v}
}

// patch looks for virtual patches that stop what was found.
func (f *findings) patch(r *request.Request) {
	seen := map[fleet.RuleID]bool{}
	for _, e := range f.evidence(r) {
		id, message, ok := f.rules.Patched(e.kind, pointsOfFound(e.values))
		if !ok || seen[id] || e.experimental {
			continue
		}
		seen[id] = true
		f.patches = append(f.patches, evidence{
			kind: fleet.AttackVPatch, rule: fleet.MatchedRule{ID: string(id), Message: message, Severity: "critical"}, values: e.values,
		})
	}
}

func pointsOf(values []request.Value) []fleet.Point {
	var out []fleet.Point
	for _, v := range values {
		out = append(out, v.Point)
	}
	return out
}

func pointsOfFound(values []found) []fleet.Point {
	var out []fleet.Point
	for _, v := range values {
		out = append(out, v.point)
	}
	return out
}
