// Package rules compiles the rules of one tenant, evaluates them over a parsed request, and decides.
//
// The control plane validates a rule with the same compilation that nodes run, so that what was accepted also loads, and
// explains a request with the same decision. It judges the request alone: what the managed rules find, and masking, are
// the caller's, and so a Match holds what the client really sent. It has no state between requests, no clock (callers pass
// the time by which rules expire) and no I/O. A rule that panics is fenced: the others are evaluated, and Found names it.
//
// # Branches
//
// The conditions of a rule say at which branch of the tenant's requests it applies. A branch with more conditions inherits
// from those whose conditions all hold there too. Rules that add (regex, vpatch, disable_attack_type, disable_rule,
// sensitive_data) apply together, whatever their branch. Of rules that say one thing (mode, block_page, and
// set_response_header of one name), the most distinct one whose conditions hold decides, in this order:
//
//  1. the one with more conditions: distinct over inherited;
//  2. the one with more conditions that compare exactly (equal and iequal without *, absent): exact over regex;
//  3. the one with more URI patterns (equal and iequal with *), which say more than regular expressions;
//  4. the one whose conditions' values are longer together;
//  5. the one whose id comes first.
package rules

import (
	"fmt"
	"regexp"
	"slices"
	"time"

	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/fleet/mask"
	"github.com/edgefleet/edgefleet/fleet/request"
)

// Set is the compiled rules of one tenant. It is immutable and safe for concurrent use; a nil Set is that of a tenant
// without rules.
type Set struct {
	// Rules that add, in the order of the bundle.
	detectors, patches, disables []*rule
	// Rules that say one thing, the most distinct first.
	modes, pages, headers []*rule
	masks                 []fleet.BundleRule
	mask                  *mask.Set
}

type rule struct {
	id         fleet.RuleID
	spec       fleet.RuleSpec
	message    string
	conditions []condition
	rank       rank
	point      fleet.Point
	// find is where a value matches the pattern; nil without a pattern.
	find func(string) []int
	// needles are in lower case: one of them is in every text that matches. None: it is not known what is.
	needles [][]byte
	// least is how many bytes a text that matches has at least.
	least int
}

// expired says that the rule is not applied any more.
func (r *rule) expired(now time.Time) bool { return r.spec.Expired(now) }

// Validate compiles spec as a node does. The error names the field.
func Validate(spec fleet.RuleSpec) error {
	_, _, err := compile(fleet.BundleRule{ID: "rule", Spec: spec})
	return err
}

// Compile compiles the rules of a tenant's bundle, all or nothing. The error names the rule.
func Compile(bundle []fleet.BundleRule) (*Set, error) { return compileWithin(bundle, hard) }

// Admit compiles as Compile does, and holds the rules against what a tenant may have: it is what is asked before a rule
// is accepted. Nodes allow twice as much, so that rules which were accepted at one time never keep a bundle from loading.
func Admit(bundle []fleet.BundleRule) (*Set, error) { return compileWithin(bundle, admitted) }

func compileWithin(bundle []fleet.BundleRule, most budget) (*Set, error) {
	if len(bundle) > fleet.MaxRulesPerTenant {
		return nil, fleet.NewError(fleet.ErrTooLarge, "rules", "%d rules; the limit for one tenant is %d", len(bundle), fleet.MaxRulesPerTenant)
	}
	s := &Set{}
	seen := make(map[fleet.RuleID]bool, len(bundle))
	var used budget
	for _, b := range bundle {
		if seen[b.ID] {
			return nil, fleet.Invalid("rules", "rule %q occurs twice in the bundle", b.ID)
		}
		seen[b.ID] = true
		r, cost, err := compile(b)
		if err == nil {
			used = used.plus(cost)
			err = used.within(most)
		}
		if err != nil {
			return nil, fmt.Errorf("rule %q: %w", b.ID, err)
		}
		s.add(r)
	}
	for _, list := range [][]*rule{s.modes, s.pages, s.headers} {
		slices.SortFunc(list, moreDistinct)
	}
	var err error
	if s.mask, err = mask.Compile(s.masks, when); err != nil {
		return nil, err
	}
	return s, nil
}

func (s *Set) add(r *rule) {
	switch r.spec.Kind {
	case fleet.RuleRegex:
		s.detectors = append(s.detectors, r)
	case fleet.RuleVPatch:
		s.patches = append(s.patches, r)
	case fleet.RuleDisableAttackType, fleet.RuleDisableRule:
		s.disables = append(s.disables, r)
	case fleet.RuleMode:
		s.modes = append(s.modes, r)
	case fleet.RuleResponseHeader:
		s.headers = append(s.headers, r)
	case fleet.RuleBlockPage:
		s.pages = append(s.pages, r)
	case fleet.RuleSensitiveData:
		s.masks = append(s.masks, fleet.BundleRule{ID: r.id, Spec: r.spec})
	}
}

// Masks are the rules of kind sensitive_data; Mask is made of them.
func (s *Set) Masks() []fleet.BundleRule {
	if s == nil {
		return nil
	}
	return s.masks
}

func compile(b fleet.BundleRule) (*rule, budget, error) {
	var cost budget
	// The bundle belongs to one tenant that is not repeated in its rules.
	if err := (fleet.Rule{ID: b.ID, Tenant: "bundle", Spec: b.Spec}).Validate(); err != nil {
		return nil, cost, err
	}
	r := &rule{id: b.ID, spec: b.Spec, message: b.Spec.Comment, point: request.Canonical(b.Spec.Point), rank: rankOf(b.Spec.Conditions)}
	if r.message == "" {
		r.message = "rule " + string(b.ID)
	}
	if len(b.Spec.Point) > 0 {
		if err := request.ValidatePoint(b.Spec.Point); err != nil {
			return nil, cost, err
		}
	}
	if b.Spec.Kind == fleet.RuleSensitiveData {
		if err := mask.Validate(b.Spec); err != nil {
			return nil, cost, err
		}
	}
	if b.Spec.Pattern != "" {
		if err := r.compilePattern(&cost); err != nil {
			return nil, cost, err
		}
	}
	if b.Spec.Page != nil {
		if err := checkPage(*b.Spec.Page); err != nil {
			return nil, cost, err
		}
		cost.pages++
	}
	for i, c := range b.Spec.Conditions {
		compiled, err := compileCondition(c, &cost)
		if err != nil {
			return nil, cost, fmt.Errorf("condition %d: %w", i+1, err)
		}
		r.conditions = append(r.conditions, compiled)
	}
	return r, cost, nil
}

func (r *rule) compilePattern(cost *budget) error {
	parsed, err := measure("pattern", r.spec.Pattern, cost)
	if err != nil {
		return err
	}
	re, err := regexp.Compile(r.spec.Pattern)
	if err != nil {
		return fleet.Invalid("pattern", "the pattern %q is not an RE2 regular expression: %v", r.spec.Pattern, err)
	}
	r.find, r.needles, r.least = re.FindStringIndex, needles(parsed), least(parsed)
	return nil
}
