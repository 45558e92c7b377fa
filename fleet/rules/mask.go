package rules

import (
	"time"

	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/fleet/mask"
	"github.com/edgefleet/edgefleet/fleet/request"
)

// Mask says what of a request is hidden in all that leaves the node: the default pack, and the tenant's own rules that have
// not expired. A nil Set has the default pack.
func (s *Set) Mask(now time.Time) *mask.Set {
	if s == nil || s.mask == nil {
		return mask.Default()
	}
	return s.mask.At(now)
}

// when compiles the conditions of a mask as those of any rule.
func when(conditions []fleet.RuleCondition) (func(*request.Request) bool, error) {
	compiled := make([]condition, 0, len(conditions))
	for _, c := range conditions {
		one, err := compileCondition(c, new(budget)) // the rule itself was weighed
		if err != nil {
			return nil, err
		}
		compiled = append(compiled, one)
	}
	return func(r *request.Request) bool {
		for _, c := range compiled {
			if !c.holds(r) {
				return false
			}
		}
		return true
	}, nil
}
