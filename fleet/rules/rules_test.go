package rules_test

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/fleet/request"
	"github.com/edgefleet/edgefleet/fleet/rules"
)

var noon = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

func parse(uri, body string) *request.Request {
	h := http.Header{"User-Agent": {"evil-bot/1.0"}, "Cookie": {"SID=a"}}
	if body != "" {
		h.Set("Content-Type", "application/json")
	}
	return request.Parse(request.Input{Method: "GET", Scheme: "https", Proto: "HTTP/1.1", Host: "Shop.Example.com", URI: uri, Header: h, Body: []byte(body)}, request.Limits{})
}

func spec(pattern string, point fleet.Point, conditions ...fleet.RuleCondition) fleet.RuleSpec {
	return fleet.RuleSpec{Kind: fleet.RuleRegex, Pattern: pattern, Point: point, AttackType: fleet.AttackCustom, Conditions: conditions}
}

func evaluate(t *testing.T, s fleet.RuleSpec, r *request.Request) []rules.Match {
	t.Helper()
	set, err := rules.Compile([]fleet.BundleRule{{ID: "r1", Spec: s}})
	if err != nil {
		t.Fatal(err)
	}
	return set.Evaluate(r, noon).Matches
}

func TestConditionsRestrictARule(t *testing.T) {
	const uri = "/api/v1/Users/list.php?q=attack&q=two"
	for _, test := range []struct {
		c    fleet.RuleCondition
		want bool
	}{
		{fleet.RuleCondition{Type: "equal", Point: "host", Value: "SHOP.example.com"}, true},
		{fleet.RuleCondition{Type: "regex", Point: "host", Value: `^SHOP\.`}, true},
		{fleet.RuleCondition{Type: "equal", Point: "host", Value: "example.com"}, false},
		{fleet.RuleCondition{Type: "equal", Point: "method", Value: "get"}, false},
		{fleet.RuleCondition{Type: "iequal", Point: "method", Value: "get"}, true},
		{fleet.RuleCondition{Type: "equal", Point: "uri", Value: "/api/v1/Users/list.php"}, true},
		{fleet.RuleCondition{Type: "equal", Point: "uri", Value: "/api/v1/users/list.php"}, false},
		{fleet.RuleCondition{Type: "equal", Point: "uri", Value: "/api/*/Users/list.php"}, true},
		{fleet.RuleCondition{Type: "equal", Point: "uri", Value: "/api/*/list.php"}, false},
		{fleet.RuleCondition{Type: "equal", Point: "uri", Value: "/api/**/list.php"}, true},
		{fleet.RuleCondition{Type: "equal", Point: "uri", Value: "/api/**"}, true},
		{fleet.RuleCondition{Type: "equal", Point: "uri", Value: "/**/api/v1/Users/*.php"}, true},
		{fleet.RuleCondition{Type: "iequal", Point: "uri", Value: "/API/v1/users/*"}, true},
		{fleet.RuleCondition{Type: "regex", Point: "uri", Value: `q=attack`}, true},
		{fleet.RuleCondition{Type: "equal", Point: "path[1]", Value: "v1"}, true},
		{fleet.RuleCondition{Type: "equal", Point: "action_ext", Value: "php"}, true},
		{fleet.RuleCondition{Type: "equal", Point: "query[q]", Value: "two"}, true},
		{fleet.RuleCondition{Type: "absent", Point: "query[x]"}, true},
		{fleet.RuleCondition{Type: "absent", Point: "query[q]"}, false},
		{fleet.RuleCondition{Type: "regex", Point: "header[user-agent]", Value: "^evil"}, true},
		{fleet.RuleCondition{Type: "equal", Point: "instance", Value: ""}, false},
	} {
		t.Run(fmt.Sprintf("%s %s %s", test.c.Point, test.c.Type, test.c.Value), func(t *testing.T) {
			if got := len(evaluate(t, spec("attack", nil, test.c), parse(uri, ""))) == 1; got != test.want {
				t.Errorf("matched %v, want %v", got, test.want)
			}
		})
	}
}

func TestAllConditionsMustHold(t *testing.T) {
	yes := fleet.RuleCondition{Type: "equal", Point: "method", Value: "GET"}
	no := fleet.RuleCondition{Type: "equal", Point: "scheme", Value: "http"}
	if got := evaluate(t, spec("attack", nil, yes, no), parse("/?q=attack", "")); len(got) > 0 {
		t.Errorf("matched although one condition does not hold: %v", got)
	}
}

func TestAMatchSaysWhereAndWhat(t *testing.T) {
	s := spec(`\$\{jndi:[a-z]+`, fleet.Point{{"post"}, {"json_doc"}, {"hash", "user"}})
	s.AttackType, s.Experimental = fleet.AttackRCE, true
	got := evaluate(t, s, parse("/", `{"user":"x ${jndi:ldap://h/a}","other":"${jndi:rmi}"}`))
	want := []rules.Match{{
		Rule: "r1", Type: fleet.AttackRCE, Experimental: true, Message: "rule r1", Parameter: "user",
		Point: fleet.Point{{"post"}, {"json_doc"}, {"hash", "user"}}, Value: "x ${jndi:ldap://h/a}", Payload: "${jndi:ldap",
	}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	s.Comment = "Log4Shell"
	if got := evaluate(t, s, parse("/", `{"user":"${jndi:x}"}`)); len(got) != 1 || got[0].Message != "Log4Shell" {
		t.Errorf("got %v, want the comment as message", got)
	}
}

func TestARuleWithoutAPointLooksAtPathArgumentsAndHeaders(t *testing.T) {
	for name, r := range map[string]*request.Request{
		"path": parse("/a/needle", ""), "argument": parse("/?a=needle", ""), "doubly encoded": parse("/?a=%256eeedle", ""),
		"json": parse("/", `{"a":["needle"]}`),
	} {
		if got := evaluate(t, spec("needle", nil), r); len(got) != 1 {
			t.Errorf("%s: %d matches, want 1", name, len(got))
		}
	}
	if got := evaluate(t, spec("evil-bot", nil), parse("/", "")); len(got) != 1 || got[0].Parameter != "USER-AGENT" {
		t.Errorf("header: %v", got)
	}
}

func TestBadRulesAreRefusedWithTheFieldAndTheReason(t *testing.T) {
	for name, test := range map[string]struct {
		spec  fleet.RuleSpec
		field string
		want  string
	}{
		"a pattern that is not RE2": {spec(`(?=a)`, nil), "pattern", "`(?=`"},
		"an unknown point":          {spec("a", fleet.Point{{"body"}}), "point", `"body"`},
		"an unknown condition":      {spec("a", nil, fleet.RuleCondition{Type: "equal", Point: "cookie"}), "conditions", "condition 1"},
		"an unknown condition type": {spec("a", nil, fleet.RuleCondition{Type: "like", Point: "host"}), "conditions", `"like"`},
		"a bad condition regex":     {spec("a", nil, fleet.RuleCondition{Type: "regex", Point: "uri", Value: "("}), "conditions", "missing closing"},
		"absent with a value":       {spec("a", nil, fleet.RuleCondition{Type: "absent", Point: "host", Value: "x"}), "conditions", "no value"},
		"an empty pattern":          {spec("", nil), "pattern", "0 bytes"},
		"an unknown attack type":    {fleet.RuleSpec{Kind: "regex", Pattern: "a", AttackType: "x"}, "attack_type", `"x"`},
	} {
		t.Run(name, func(t *testing.T) {
			err := rules.Validate(test.spec)
			if !errors.Is(err, fleet.ErrInvalid) || fleet.AsError(err).Field != test.field || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v (field %q), want field %q and %q", err, fleet.AsError(err).Field, test.field, test.want)
			}
			_, err = rules.Compile([]fleet.BundleRule{{ID: "good", Spec: spec("a", nil)}, {ID: "bad-one", Spec: test.spec}})
			if err == nil || !strings.Contains(err.Error(), `"bad-one"`) {
				t.Errorf("compile: %v, want the rule's id", err)
			}
		})
	}
}

func TestABundleOverTheLimitOrWithADuplicateIsRefused(t *testing.T) {
	bundle := make([]fleet.BundleRule, fleet.MaxRulesPerTenant+1)
	for i := range bundle {
		bundle[i] = fleet.BundleRule{ID: fleet.RuleID(fmt.Sprintf("r%d", i)), Spec: spec("a", nil)}
	}
	if _, err := rules.Compile(bundle); !errors.Is(err, fleet.ErrTooLarge) {
		t.Errorf("over the limit: %v", err)
	}
	if _, err := rules.Compile(bundle[1:]); err != nil {
		t.Errorf("at the limit: %v", err)
	}
	bundle[1] = bundle[0]
	if _, err := rules.Compile(bundle[:2]); !errors.Is(err, fleet.ErrInvalid) {
		t.Errorf("duplicate: %v", err)
	}
}

func TestANilSetMatchesNothing(t *testing.T) {
	var s *rules.Set
	if got := s.Evaluate(parse("/", ""), noon).Matches; got != nil {
		t.Errorf("got %v", got)
	}
}

func FuzzCompileAndEvaluate(f *testing.F) {
	f.Add("a+", "get", "q", "equal", "uri", "/a/**/b*", "/a/c/b?q=aaa")
	f.Add("(?i)x", "header_all", "", "regex", "host", "^shop", "/")
	f.Fuzz(func(_ *testing.T, pattern, element, arg, kind, attribute, value, uri string) {
		p := fleet.Point{{element}}
		if arg != "" {
			p = fleet.Point{{element, arg}}
		}
		s := spec(pattern, p, fleet.RuleCondition{Type: fleet.ConditionType(kind), Point: attribute, Value: value})
		set, err := rules.Compile([]fleet.BundleRule{{ID: "r", Spec: s}})
		if err != nil {
			return
		}
		set.Evaluate(parse(uri, ""), noon)
	})
}
