package waf

import (
	"slices"
	"strconv"
	"strings"

	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/fleet/mask"
	"github.com/edgefleet/edgefleet/fleet/request"
	"github.com/edgefleet/edgefleet/fleet/rules"
)

// Bounds of one event, in entries and bytes.
const (
	maxRules     = 32
	maxPayloads  = 8
	maxPayload   = fleet.MaxPayloadBytes / maxPayloads
	maxPath      = 2 << 10
	maxName      = 256
	maxShortText = 32
)

// findings is what all rules together found.
type findings struct {
	// rules is what the tenant's rules say, own what they match.
	rules *rules.Found
	own   []rules.Match
	crs   inspection
	// patches are the virtual patches that stop what others found.
	patches []evidence
}

// decisive says that a rule of the tenant matched that is not experimental.
func (f findings) decisive() bool {
	return slices.ContainsFunc(f.own, func(m rules.Match) bool { return !m.Experimental })
}

// patched says that a virtual patch stops the request.
func (f findings) patched() bool {
	return len(f.patches) > 0 || slices.ContainsFunc(f.own, func(m rules.Match) bool { return m.Patch })
}

// evidence is one match under one attack type.
type evidence struct {
	kind   fleet.AttackType
	rule   fleet.MatchedRule
	values []found
	// experimental evidence is reported and decides nothing.
	experimental bool
}

// found is a value that matched; excerpt is the part of it, if known.
type found struct {
	point                fleet.Point
	name, value, excerpt string
}

func (f findings) evidence(r *request.Request) []evidence {
	var all []evidence
	for _, m := range f.own {
		severity := "critical"
		if m.Experimental {
			severity = "notice"
		}
		all = append(all, evidence{
			kind: m.Type, rule: fleet.MatchedRule{ID: string(m.Rule), Message: m.Message, Severity: severity},
			values: []found{{point: m.Point, name: m.Parameter, value: m.Value, excerpt: m.Payload}}, experimental: m.Experimental,
		})
	}
	for _, m := range f.crs.matches {
		e := evidence{kind: attackType(m.Rule()), rule: fleet.MatchedRule{
			ID: strconv.Itoa(m.Rule().ID()), Message: staticMessage(m.Rule()), Severity: m.Rule().Severity().String(),
		}}
		for _, v := range locate(r, m) {
			e.values = append(e.values, found{point: v.Point, name: v.Name, value: v.Value})
		}
		all = append(all, e)
	}
	return append(all, f.patches...)
}

// describe makes one masked event for each attack type, in the order of fleet.AttackTypes.
func describe(in Input, f findings, blocked bool, masks *mask.Set) []fleet.Event {
	all := f.evidence(in.Request)
	if len(all) == 0 {
		return nil
	}
	w := writer{m: masks.Apply(in.Request), excerpts: map[string]string{}}
	req := in.Request.Input()
	common := fleet.Event{
		Tenant: in.Tenant, Host: in.Host, Mode: in.Mode, Score: f.crs.score, Status: fleet.Monitored, MaskedPoints: w.m.Points(),
		Method: clip(w.m.String(req.Method), maxShortText), Protocol: clip(w.m.String(req.Proto), maxShortText),
		Path: clip(w.m.Path(path(in.Request)), maxPath), ClientIP: in.ClientAddr.Addr().Unmap().String(), ClientPort: in.ClientAddr.Port(),
	}
	if blocked {
		common.Status = fleet.Blocked
	}
	var events []fleet.Event
	for _, kind := range fleet.AttackTypes {
		event := common
		event.Type = kind
		best := 0
		for _, e := range all {
			if e.kind == kind {
				w.add(&event, e, &best)
			}
		}
		if len(event.Rules) > 0 {
			events = append(events, event)
		}
	}
	return events
}

func path(r *request.Request) string {
	for _, v := range r.At(fleet.Point{{"path"}}) {
		return v.Raw
	}
	return ""
}

// writer puts evidence into events; it masks a value once, whole, and shortens it afterwards.
type writer struct {
	m        *mask.Masker
	excerpts map[string]string
}

// add puts e into event. The event names the most specific point of all its evidence; best is how specific that is.
func (w writer) add(event *fleet.Event, e evidence, best *int) {
	if len(event.Rules) < maxRules && !slices.Contains(event.Rules, e.rule) {
		event.Rules = append(event.Rules, e.rule)
	}
	for _, v := range e.values {
		if rank := specific(v.point); rank > *best {
			*best = rank
			event.Point = clip(w.m.String(request.PointString(v.point)), maxName)
			event.Parameter = clip(w.m.String(v.name), maxName)
		}
		payload := w.payload(v)
		if payload != "" && len(event.Payloads) < maxPayloads && !slices.Contains(event.Payloads, payload) {
			event.Payloads = append(event.Payloads, payload)
		}
	}
}

// specific ranks points: a parameter says more than the target that it is a part of.
func specific(p fleet.Point) int {
	switch {
	case p[0][0] == "uri":
		return 1
	case len(p) == 1 && len(p[0]) == 1:
		return 2
	}
	return 3
}

// before is how much of a value is shown before the part that matched.
const before = 64

func (w writer) payload(v found) string {
	key := request.PointString(v.point) + "\x00" + v.value
	masked, known := w.excerpts[key]
	if !known {
		masked = w.m.Excerpt(v.point, v.value)
		w.excerpts[key] = masked
	}
	if i := strings.Index(masked, v.excerpt); i > before {
		masked = masked[i-before:]
	}
	return clip(masked, maxPayload)
}

// clip shortens masked text to at most n bytes of valid UTF-8.
func clip(s string, n int) string {
	return strings.ToValidUTF8(s[:min(len(s), n)], "")
}
