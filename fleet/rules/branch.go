package rules

import (
	"cmp"
	"strings"
	"time"

	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/fleet/request"
)

// rank says how distinct a branch is; the package's documentation has the order.
type rank struct{ conditions, exact, patterns, length int }

func rankOf(conditions []fleet.RuleCondition) rank {
	r := rank{conditions: len(conditions)}
	for _, c := range conditions {
		switch {
		case c.Type == fleet.MatchRegex:
		case c.Point == "uri" && strings.Contains(c.Value, "*"):
			r.patterns++
		default:
			r.exact++
		}
		r.length += len(c.Value)
	}
	return r
}

// moreDistinct orders rules, the most distinct first.
func moreDistinct(a, b *rule) int {
	return cmp.Or(
		cmp.Compare(b.rank.conditions, a.rank.conditions),
		cmp.Compare(b.rank.exact, a.rank.exact),
		cmp.Compare(b.rank.patterns, a.rank.patterns),
		cmp.Compare(b.rank.length, a.rank.length),
		cmp.Compare(a.id, b.id),
	)
}

// applies says that all conditions of r hold.
func (r *rule) applies(req *request.Request) bool {
	for _, c := range r.conditions {
		if !c.holds(req) {
			return false
		}
	}
	return true
}

// first is the most distinct of list that applies.
func first(list []*rule, req *request.Request, now time.Time) *rule {
	for _, r := range list {
		if !r.expired(now) && r.applies(req) {
			return r
		}
	}
	return nil
}

// covers says that p is point or a part of what is there: a point without a point is everywhere.
func covers(point, p fleet.Point) bool {
	if len(p) < len(point) {
		return false
	}
	return len(point) == 0 || request.Matches(point, p[:len(point)])
}
