package rules_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/fleet/rules"
)

func modeRule(id fleet.RuleID, mode fleet.Mode, conditions ...fleet.RuleCondition) fleet.BundleRule {
	return fleet.BundleRule{ID: id, Spec: fleet.RuleSpec{Kind: fleet.RuleMode, Mode: mode, Conditions: conditions}}
}

func is(point, value string) fleet.RuleCondition {
	return fleet.RuleCondition{Type: fleet.MatchEqual, Point: point, Value: value}
}

func like(point, value string) fleet.RuleCondition {
	return fleet.RuleCondition{Type: fleet.MatchRegex, Point: point, Value: value}
}

func compile(t testing.TB, bundle ...fleet.BundleRule) *rules.Set {
	t.Helper()
	s, err := rules.Compile(bundle)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// The rule named win decides, whichever of the two comes first in the bundle.
func TestTheMostDistinctBranchDecides(t *testing.T) {
	const uri = "/shop/cart/pay?step=2"
	for name, test := range map[string]struct{ win, lose []fleet.RuleCondition }{
		"a child over its parent": {
			win:  []fleet.RuleCondition{is("host", "shop.example.com"), is("uri", "/shop/cart/pay")},
			lose: []fleet.RuleCondition{is("host", "shop.example.com")},
		},
		"distinct over inherited, although the parent is exact": {
			win:  []fleet.RuleCondition{like("host", `example\.com$`), like("uri", "^/shop")},
			lose: []fleet.RuleCondition{is("host", "shop.example.com")},
		},
		"exact over regex": {
			win:  []fleet.RuleCondition{is("uri", "/shop/cart/pay")},
			lose: []fleet.RuleCondition{like("uri", "^/shop/cart/pay.*and-much-that-is-optional-here)?"[:16])},
		},
		"exact over a URI pattern": {
			win:  []fleet.RuleCondition{is("uri", "/shop/cart/pay")},
			lose: []fleet.RuleCondition{is("uri", "/shop/**/cart/*/**/**")},
		},
		"a URI pattern over regex": {
			win:  []fleet.RuleCondition{is("uri", "/**")},
			lose: []fleet.RuleCondition{like("uri", "^/shop/cart/pay")},
		},
		"the longer of two patterns": {
			win:  []fleet.RuleCondition{is("uri", "/shop/**")},
			lose: []fleet.RuleCondition{is("uri", "/**")},
		},
		"an absent parameter is exact": {
			win:  []fleet.RuleCondition{{Type: fleet.MatchAbsent, Point: "query[x]"}},
			lose: []fleet.RuleCondition{like("uri", "^/shop/cart/pay")},
		},
	} {
		t.Run(name, func(t *testing.T) {
			req := parse(uri, "")
			for _, ids := range [][2]fleet.RuleID{{"a", "b"}, {"b", "a"}} {
				s := compile(t, modeRule(ids[0], fleet.ModeBlock, test.win...), modeRule(ids[1], fleet.ModeOff, test.lose...))
				if got := s.Mode(fleet.ModeMonitoring, "", req, noon); got != (rules.Setting{Mode: fleet.ModeBlock, Layer: rules.LayerLocation, Rule: ids[0]}) {
					t.Errorf("got %+v, want rule %s", got, ids[0])
				}
			}
		})
	}
	// Alike in all: the first id.
	s := compile(t, modeRule("b", fleet.ModeOff, is("path[0]", "shop")), modeRule("a", fleet.ModeBlock, is("path[1]", "cart")))
	if got := s.Mode(fleet.ModeMonitoring, "", parse(uri, ""), noon); got.Rule != "a" {
		t.Errorf("got %+v, want the first id", got)
	}
}

func TestARuleWithoutConditionsSetsTheTenantsMode(t *testing.T) {
	s := compile(t, modeRule("all", fleet.ModeBlock), modeRule("pay", fleet.ModeOff, is("path[0]", "pay")))
	for _, test := range []struct {
		uri  string
		host fleet.Mode
		want rules.Setting
	}{
		{"/", fleet.ModeInherit, rules.Setting{Mode: "block", Layer: "tenant", Rule: "all"}},
		{"/", fleet.ModeMonitoring, rules.Setting{Mode: "monitoring", Layer: "host"}},
		{"/pay/x", fleet.ModeMonitoring, rules.Setting{Mode: "off", Layer: "location", Rule: "pay"}},
		{"/pay/x", fleet.ModeInherit, rules.Setting{Mode: "off", Layer: "location", Rule: "pay"}},
	} {
		if diff := cmp.Diff(test.want, s.Mode(test.host, "", parse(test.uri, ""), noon)); diff != "" {
			t.Errorf("%s of %s: %s", test.uri, test.host, diff)
		}
	}
	var none *rules.Set
	if got := none.Mode(fleet.ModeInherit, "", parse("/", ""), noon); got != (rules.Setting{Mode: "monitoring", Layer: "default"}) || none.SetsModes() {
		t.Errorf("without rules: %+v", got)
	}
}

func TestRulesThatAddApplyInEveryBranch(t *testing.T) {
	s := compile(t,
		fleet.BundleRule{ID: "parent", Spec: spec("x1", nil)},
		fleet.BundleRule{ID: "child", Spec: spec("x1", nil, is("path[0]", "a"))},
		fleet.BundleRule{ID: "pointed", Spec: spec("x1", fleet.Point{{"get", "q"}}, is("host", "shop.example.com"))},
		fleet.BundleRule{ID: "other", Spec: spec("x1", nil, is("path[0]", "b"))},
	)
	var got []fleet.RuleID
	for _, m := range s.Evaluate(parse("/a/?q=x1", ""), noon).Matches {
		got = append(got, m.Rule)
	}
	if diff := cmp.Diff([]fleet.RuleID{"parent", "child", "pointed"}, got); diff != "" {
		t.Error(diff)
	}
}

func TestHeadersAndPagesAreThoseOfTheMostDistinctBranch(t *testing.T) {
	header := func(id fleet.RuleID, name, value string, conditions ...fleet.RuleCondition) fleet.BundleRule {
		return fleet.BundleRule{ID: id, Spec: fleet.RuleSpec{Kind: fleet.RuleResponseHeader, Header: name, Value: value, Conditions: conditions}}
	}
	page := func(id fleet.RuleID, body string, conditions ...fleet.RuleCondition) fleet.BundleRule {
		return fleet.BundleRule{ID: id, Spec: fleet.RuleSpec{Kind: fleet.RuleBlockPage, Page: &fleet.BlockPage{ContentType: "text/html", Body: body}, Conditions: conditions}}
	}
	s := compile(t,
		header("h1", "X-Frame-Options", "SAMEORIGIN"), header("h2", "x-frame-options", "DENY", is("path[0]", "admin")), header("h3", "X-Team", "web"),
		page("p1", "all"), page("p2", "admin", is("path[0]", "admin")),
	)
	for uri, want := range map[string]struct {
		headers [][2]string
		page    string
	}{
		"/":        {[][2]string{{"X-Frame-Options", "SAMEORIGIN"}, {"X-Team", "web"}}, "all"},
		"/admin/x": {[][2]string{{"X-Frame-Options", "DENY"}, {"X-Team", "web"}}, "admin"},
	} {
		req := parse(uri, "")
		if diff := cmp.Diff(want.headers, s.Headers(req, noon)); diff != "" {
			t.Errorf("%s: %s", uri, diff)
		}
		if p := s.Page(req, noon); p == nil || p.Body != want.page {
			t.Errorf("%s: page %+v, want %s", uri, p, want.page)
		}
	}
}

func TestARuleIsNotAppliedFromItsEndOn(t *testing.T) {
	end := noon.Add(time.Hour)
	expiring := func(s fleet.RuleSpec) fleet.RuleSpec {
		s.ExpiresAt = end
		return s
	}
	s := compile(t,
		fleet.BundleRule{ID: "detector", Spec: expiring(spec("x1", nil))},
		fleet.BundleRule{ID: "stays", Spec: spec("x1", nil)},
		fleet.BundleRule{ID: "patch", Spec: expiring(fleet.RuleSpec{Kind: fleet.RuleVPatch, Point: fleet.Point{{"get", "q"}}})},
		fleet.BundleRule{ID: "types", Spec: expiring(fleet.RuleSpec{Kind: fleet.RuleVPatch, AttackTypes: []fleet.AttackType{fleet.AttackSQLi}})},
		fleet.BundleRule{ID: "disable", Spec: expiring(fleet.RuleSpec{Kind: fleet.RuleDisableRule, Rules: []string{"stays"}})},
		fleet.BundleRule{ID: "mode", Spec: expiring(modeRule("", fleet.ModeBlock).Spec)},
		fleet.BundleRule{ID: "header", Spec: expiring(fleet.RuleSpec{Kind: fleet.RuleResponseHeader, Header: "X-A", Value: "b"})},
		fleet.BundleRule{ID: "page", Spec: expiring(fleet.RuleSpec{Kind: fleet.RuleBlockPage, Page: &fleet.BlockPage{ContentType: "text/html", Body: "b"}})},
	)
	req := parse("/?q=x1", "")
	type outcome struct {
		Matches []fleet.RuleID
		Patched bool
		Mode    fleet.Mode
		Headers int
		Page    bool
	}
	at := func(now time.Time) outcome {
		f := s.Evaluate(req, now)
		o := outcome{Mode: s.Mode(fleet.ModeInherit, "", req, now).Mode, Headers: len(s.Headers(req, now)), Page: s.Page(req, now) != nil}
		_, _, o.Patched = f.Patched(fleet.AttackSQLi, nil)
		for _, m := range f.Matches {
			o.Matches = append(o.Matches, m.Rule)
		}
		return o
	}
	if diff := cmp.Diff(outcome{[]fleet.RuleID{"detector", "patch"}, true, "block", 1, true}, at(end.Add(-1))); diff != "" {
		t.Errorf("before: %s", diff)
	}
	if diff := cmp.Diff(outcome{[]fleet.RuleID{"stays"}, false, "monitoring", 0, false}, at(end)); diff != "" {
		t.Errorf("from then on: %s", diff)
	}
}
