package rules

import (
	"fmt"
	"runtime"
	"runtime/debug"
	"slices"
	"time"

	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/fleet/request"
)

// MaxExcerpt bounds the excerpt of a match, in bytes.
const MaxExcerpt = 1 << 10

// Match is one rule that matched, with the excerpt that it matched. Neither Value nor Payload is masked.
type Match struct {
	Rule         fleet.RuleID
	Type         fleet.AttackType
	Experimental bool
	// Patch: a virtual patch, which blocks in milder modes too.
	Patch bool
	Point fleet.Point
	// Parameter is the name of the parameter or header at Point, if it has one.
	Parameter string
	// Value is the whole value at Point, Payload the part of it that the pattern matched.
	Value, Payload string
	// Message is the rule's own fixed text: its comment, or "rule <id>".
	Message string
}

// Failure is a rule that panicked. Its Err and Stack hold nothing of the request.
type Failure struct {
	Rule  fleet.RuleID
	Err   error
	Stack []byte
}

// Found is what a tenant's rules say of one request.
type Found struct {
	// Matches are those of detectors and virtual patches that need no finding of others, without what is disabled.
	Matches  []Match
	Failures []Failure

	disabled []disabled

	set *Set
	req *request.Request
	now time.Time
}

// disabled is a match that a rule took out.
type disabled struct {
	Match
	by fleet.RuleID
}

// Evaluate returns what the rules say of r at now: each rule once, in the order of the bundle.
func (s *Set) Evaluate(r *request.Request, now time.Time) *Found {
	f := &Found{set: s, req: r, now: now}
	if s == nil || len(s.detectors) == 0 && len(s.patches) == 0 {
		return f
	}
	h := newHaystack(r)
	defer h.free()
	for _, d := range s.detectors {
		m, ok := f.fence(d, func() (Match, bool) { return d.detect(r, now, h) })
		if !ok {
			continue
		}
		if by := f.disabledBy(m.Type, string(m.Rule), []fleet.Point{m.Point}); by != nil {
			f.disabled = append(f.disabled, disabled{m, by.id})
			continue
		}
		f.Matches = append(f.Matches, m)
	}
	for _, p := range s.patches {
		if len(p.spec.AttackTypes) > 0 {
			continue // see Patched
		}
		if m, ok := f.fence(p, func() (Match, bool) { return p.patch(r, now) }); ok {
			f.Matches = append(f.Matches, m)
		}
	}
	return f
}

// fence evaluates one rule. A panic costs that rule alone.
func (f *Found) fence(r *rule, evaluate func() (Match, bool)) (m Match, ok bool) {
	defer func() {
		if v := recover(); v != nil {
			f.Failures = append(f.Failures, Failure{Rule: r.id, Err: fmt.Errorf("rule %s panicked: %s", r.id, panicKind(v)), Stack: debug.Stack()})
			m, ok = Match{}, false
		}
	}()
	return evaluate()
}

// panicKind says what a panic was without its value, which may hold data of the request.
func panicKind(v any) string {
	if r, ok := v.(runtime.Error); ok {
		return r.Error()
	}
	return "panic"
}

func (r *rule) detect(req *request.Request, now time.Time, h *haystack) (Match, bool) {
	if r.expired(now) {
		return Match{}, false
	}
	if len(r.point) == 0 {
		if !h.has(r.needles) || !r.applies(req) {
			return Match{}, false
		}
		for i, v := range h.values {
			if len(v.Value) < r.least || !h.valueHas(i, r.needles) {
				continue
			}
			if at := r.find(v.Value); at != nil {
				return r.match(v, at), true
			}
		}
		return Match{}, false
	}
	if !r.applies(req) {
		return Match{}, false
	}
	for _, v := range req.At(r.point) {
		if at := r.find(v.Value); at != nil {
			return r.match(v, at), true
		}
	}
	return Match{}, false
}

// patch matches a virtual patch that stops requests by themselves, whatever else is found in them.
func (r *rule) patch(req *request.Request, now time.Time) (Match, bool) {
	if r.expired(now) || !r.applies(req) {
		return Match{}, false
	}
	if r.find == nil && len(r.point) == 0 {
		for _, v := range req.At(fleet.Point{{"path"}}) {
			return r.match(v, []int{0, len(v.Value)}), true
		}
		return Match{}, false
	}
	values := req.All()
	if len(r.point) > 0 {
		values = req.At(r.point)
	}
	for _, v := range values {
		if len(r.point) == 0 && !inspected(v.Point) {
			continue
		}
		at := []int{0, len(v.Value)}
		if r.find != nil {
			at = r.find(v.Value)
		}
		if at != nil {
			return r.match(v, at), true
		}
	}
	return Match{}, false
}

func (r *rule) match(v request.Value, at []int) Match {
	kind := r.spec.AttackType
	if r.spec.Kind == fleet.RuleVPatch {
		kind = fleet.AttackVPatch
	}
	return Match{
		Rule: r.id, Type: kind, Experimental: r.spec.Experimental, Patch: r.spec.Kind == fleet.RuleVPatch, Message: r.message,
		Point: v.Point, Parameter: v.Name, Value: v.Value, Payload: v.Value[at[0]:min(at[1], at[0]+MaxExcerpt)],
	}
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

// Disabled says that a finding is taken out: of attack type t, by the managed rule or detector id, all of it at points that
// the rules cover. A finding whose points are not known is disabled only by rules without a point.
func (f *Found) Disabled(t fleet.AttackType, id string, points []fleet.Point) bool {
	return f.disabledBy(t, id, points) != nil
}

func (f *Found) disabledBy(t fleet.AttackType, id string, points []fleet.Point) *rule {
	if f.set == nil {
		return nil
	}
	for _, r := range f.set.disables {
		named := slices.Contains(r.spec.AttackTypes, t) || slices.Contains(r.spec.Rules, id)
		if !named || r.expired(f.now) || len(r.point) > 0 && len(points) == 0 {
			continue
		}
		if !slices.ContainsFunc(points, func(p fleet.Point) bool { return !covers(r.point, p) }) && r.applies(f.req) {
			return r
		}
	}
	return nil
}

// Patched is the virtual patch that stops attacks of type t at one of points; ok is false if there is none.
func (f *Found) Patched(t fleet.AttackType, points []fleet.Point) (id fleet.RuleID, message string, ok bool) {
	if f.set == nil {
		return "", "", false
	}
	for _, r := range f.set.patches {
		if r.expired(f.now) || !slices.Contains(r.spec.AttackTypes, t) {
			continue
		}
		here := len(r.point) == 0 || slices.ContainsFunc(points, func(p fleet.Point) bool { return covers(r.point, p) })
		if here && r.applies(f.req) {
			return r.id, r.message, true
		}
	}
	return "", "", false
}

// Headers are the response headers that rules set for the request, by name; the most distinct rule of each name decides.
func (s *Set) Headers(req *request.Request, now time.Time) [][2]string {
	if s == nil || len(s.headers) == 0 {
		return nil
	}
	var out [][2]string
	for _, r := range s.headers {
		name := canonicalHeader(r.spec.Header)
		if r.expired(now) || slices.ContainsFunc(out, func(h [2]string) bool { return h[0] == name }) || !r.applies(req) {
			continue
		}
		out = append(out, [2]string{name, r.spec.Value})
	}
	return out
}

// Page is the block page for the request; nil if the tenant has none there.
func (s *Set) Page(req *request.Request, now time.Time) *fleet.BlockPage {
	if s == nil || len(s.pages) == 0 {
		return nil
	}
	if r := first(s.pages, req, now); r != nil {
		return r.spec.Page
	}
	return nil
}
