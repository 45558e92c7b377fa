package waf

import (
	"fmt"
	"regexp"

	"github.com/corazawaf/coraza/v3/types"
)

// exclusion says where rules of the core rule set do not count. Without only and except they are taken out.
type exclusion struct {
	rules []int
	// only is what a value must hold too, so that a match counts; except is what it must not hold. Both ignore case.
	only, except string
	reason       string
}

// excuse is a compiled exclusion.
type excuse struct{ only, except *regexp.Regexp }

// compileExcuses returns the exclusions by rule.
func compileExcuses(all []exclusion) (map[int]excuse, error) {
	excuses := map[int]excuse{}
	for _, x := range all {
		var e excuse
		for _, p := range []struct {
			text string
			to   **regexp.Regexp
		}{{x.only, &e.only}, {x.except, &e.except}} {
			if p.text == "" {
				continue
			}
			re, err := regexp.Compile("(?i)" + p.text)
			if err != nil {
				return nil, fmt.Errorf("exclusion of rules %v: %w", x.rules, err)
			}
			*p.to = re
		}
		for _, rule := range x.rules {
			if _, twice := excuses[rule]; twice {
				return nil, fmt.Errorf("rule %d has two exclusions", rule)
			}
			if x.only != "" || x.except != "" {
				excuses[rule] = e
			}
		}
	}
	return excuses, nil
}

// excused counts the values of m that its rule has matched by mistake. Each has added criticalScore.
func (e *Engine) excused(m types.MatchedRule) (excused, of int) {
	x, found := e.excuses[m.Rule().ID()]
	matched := m.MatchedDatas()
	if !found {
		return 0, len(matched)
	}
	for _, d := range matched {
		if v := d.Value(); x.only != nil && !x.only.MatchString(v) || x.except != nil && x.except.MatchString(v) {
			excused++
		}
	}
	return excused, len(matched)
}
