package rules_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/fleet/rules"
)

func TestAKindHasItsOwnFieldsOnly(t *testing.T) {
	page := &fleet.BlockPage{ContentType: "text/html", Body: "no"}
	sqli := []fleet.AttackType{fleet.AttackSQLi}
	for name, test := range map[string]struct {
		spec  fleet.RuleSpec
		field string
	}{
		"an unknown kind":                   {fleet.RuleSpec{Kind: "rewrite"}, "kind"},
		"a mode":                            {fleet.RuleSpec{Kind: "mode", Mode: "safe_blocking"}, ""},
		"a mode that is none":               {fleet.RuleSpec{Kind: "mode", Mode: "inherit"}, "mode"},
		"a mode that is missing":            {fleet.RuleSpec{Kind: "mode"}, "mode"},
		"a mode with a pattern":             {fleet.RuleSpec{Kind: "mode", Mode: "off", Pattern: "x"}, "pattern"},
		"a mode with a point":               {fleet.RuleSpec{Kind: "mode", Mode: "off", Point: fleet.Point{{"get", "q"}}}, "point"},
		"a detector with a mode":            {fleet.RuleSpec{Kind: "regex", Pattern: "x", AttackType: "sqli", Mode: "off"}, "mode"},
		"a detector without a type":         {fleet.RuleSpec{Kind: "regex", Pattern: "x"}, "attack_type"},
		"a patch of a type":                 {fleet.RuleSpec{Kind: "vpatch", AttackTypes: sqli}, ""},
		"a patch of a parameter":            {fleet.RuleSpec{Kind: "vpatch", Point: fleet.Point{{"get", "q"}}}, ""},
		"a patch of everything":             {fleet.RuleSpec{Kind: "vpatch"}, "point"},
		"a patch of a type and a pattern":   {fleet.RuleSpec{Kind: "vpatch", AttackTypes: sqli, Pattern: "x"}, "pattern"},
		"an experimental patch":             {fleet.RuleSpec{Kind: "vpatch", AttackTypes: sqli, Experimental: true}, "experimental"},
		"a patch of an unknown type":        {fleet.RuleSpec{Kind: "vpatch", AttackTypes: []fleet.AttackType{"sql"}}, "attack_types"},
		"a type twice":                      {fleet.RuleSpec{Kind: "disable_attack_type", AttackTypes: []fleet.AttackType{"sqli", "sqli"}}, "attack_types"},
		"a disabled type":                   {fleet.RuleSpec{Kind: "disable_attack_type", AttackTypes: sqli, Point: fleet.Point{{"post"}}}, ""},
		"a disabled rule":                   {fleet.RuleSpec{Kind: "disable_rule", Rules: []string{"942100", "rule-1"}}, ""},
		"no disabled rule":                  {fleet.RuleSpec{Kind: "disable_rule"}, "rules"},
		"a disabled rule without an id":     {fleet.RuleSpec{Kind: "disable_rule", Rules: []string{"a b"}}, "rules"},
		"sensitive data at a point":         {fleet.RuleSpec{Kind: "sensitive_data", Point: fleet.Point{{"get", "q"}}}, ""},
		"sensitive data by a pattern":       {fleet.RuleSpec{Kind: "sensitive_data", Pattern: `\d{16}`}, ""},
		"sensitive data nowhere":            {fleet.RuleSpec{Kind: "sensitive_data"}, "point"},
		"a header":                          {fleet.RuleSpec{Kind: "set_response_header", Header: "X-Frame-Options", Value: "DENY"}, ""},
		"a header of the edge":              {fleet.RuleSpec{Kind: "set_response_header", Header: "Content-length", Value: "0"}, "header"},
		"a header with a line break":        {fleet.RuleSpec{Kind: "set_response_header", Header: "X-A", Value: "b\r\nSet-Cookie: a=b"}, "value"},
		"a header with a bad name":          {fleet.RuleSpec{Kind: "set_response_header", Header: "X A", Value: "b"}, "header"},
		"a page":                            {fleet.RuleSpec{Kind: "block_page", Page: page}, ""},
		"a page of JSON":                    {fleet.RuleSpec{Kind: "block_page", Page: &fleet.BlockPage{ContentType: "application/json", Body: `{"id":"{{request_id}}"}`}}, ""},
		"a page of JSON that is none":       {fleet.RuleSpec{Kind: "block_page", Page: &fleet.BlockPage{ContentType: "application/json", Body: `{"id":{{request_id}}`}}, "page.body"},
		"a page of another type":            {fleet.RuleSpec{Kind: "block_page", Page: &fleet.BlockPage{ContentType: "text/plain", Body: "no"}}, "page.content_type"},
		"a page that says that all is well": {fleet.RuleSpec{Kind: "block_page", Page: &fleet.BlockPage{ContentType: "text/html", Status: 200, Body: "no"}}, "page.status"},
		"a page over the limit":             {fleet.RuleSpec{Kind: "block_page", Page: &fleet.BlockPage{ContentType: "text/html", Body: strings.Repeat("a", fleet.MaxBlockPageBytes+1)}}, "page.body"},
	} {
		t.Run(name, func(t *testing.T) {
			err := rules.Validate(test.spec)
			if test.field == "" {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			if err == nil || fleet.AsError(err).Field != test.field {
				t.Errorf("%v, want the field %s", err, test.field)
			}
		})
	}
}

func TestExpressionsOverTheBudgetAreRefused(t *testing.T) {
	for name, pattern := range map[string]string{
		"a repetition of repetitions": `((a{1,100}b){1,100}c){1,10}`, "a long class that is repeated": `[a-z0-9]{999}[a-z]{999}[a-z]{999}[a-z]{999}[a-z]{9}`,
		"in a condition too": "",
	} {
		s := spec(pattern, nil)
		if pattern == "" {
			s = spec("x", nil, like("uri", `((a{1,100}b){1,100}c){1,10}`))
		}
		if err := rules.Validate(s); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	// One rule is fine, many together are not; the error names the first that is too much.
	bundle := make([]fleet.BundleRule, 100)
	for i := range bundle {
		bundle[i] = fleet.BundleRule{ID: fleet.RuleID(fmt.Sprintf("r%d", i)), Spec: spec(`[a-z]{900}[0-9]{900}[a-f]{900}x`, nil)}
	}
	_, err := rules.Admit(bundle)
	if !errors.Is(err, fleet.ErrTooLarge) || !strings.Contains(err.Error(), `rule "r9`) || !strings.Contains(err.Error(), "instructions") {
		t.Errorf("admitted: %v", err)
	}
	if _, err := rules.Compile(bundle); err != nil {
		t.Errorf("a node loads what was accepted at one time: %v", err)
	}
}

func TestFindingsAreDisabledByTypeIDAndPoint(t *testing.T) {
	s := compile(t,
		fleet.BundleRule{ID: "type", Spec: fleet.RuleSpec{Kind: fleet.RuleDisableAttackType, AttackTypes: []fleet.AttackType{"sqli"}, Point: fleet.Point{{"post"}, {"json_doc"}}}},
		fleet.BundleRule{ID: "id", Spec: fleet.RuleSpec{Kind: fleet.RuleDisableRule, Rules: []string{"942100"}, Conditions: []fleet.RuleCondition{is("path[0]", "blog")}}},
		fleet.BundleRule{ID: "all", Spec: fleet.RuleSpec{Kind: fleet.RuleDisableAttackType, AttackTypes: []fleet.AttackType{"xss"}, Point: fleet.Point{{"get_all"}}}},
	)
	json, query, path := fleet.Point{{"post"}, {"json_doc"}, {"hash", "a"}}, fleet.Point{{"get", "q"}}, fleet.Point{{"path"}}
	for name, test := range map[string]struct {
		uri    string
		kind   fleet.AttackType
		id     string
		points []fleet.Point
		want   bool
	}{
		"a type at its point":           {"/", "sqli", "1", []fleet.Point{json}, true},
		"another type there":            {"/", "rce", "1", []fleet.Point{json}, false},
		"a type elsewhere":              {"/", "sqli", "1", []fleet.Point{query}, false},
		"there and elsewhere":           {"/", "sqli", "1", []fleet.Point{json, query}, false},
		"a type at no known point":      {"/", "sqli", "1", nil, false},
		"an id at its branch":           {"/blog/x", "rce", "942100", nil, true},
		"an id at its branch, anywhere": {"/blog/x", "rce", "942100", []fleet.Point{path}, true},
		"an id elsewhere":               {"/shop/x", "rce", "942100", nil, false},
		"any parameter":                 {"/", "xss", "1", []fleet.Point{query}, true},
		"a duplicate of a parameter":    {"/", "xss", "1", []fleet.Point{{{"get", "q"}, {"array", "0"}}}, true},
		"a parameter and the path":      {"/", "xss", "1", []fleet.Point{query, path}, false},
	} {
		if got := s.Evaluate(parse(test.uri, ""), noon).Disabled(test.kind, test.id, test.points); got != test.want {
			t.Errorf("%s: %t", name, got)
		}
	}
	own := compile(t, fleet.BundleRule{ID: "d1", Spec: spec("x1", nil)}, fleet.BundleRule{ID: "d2", Spec: fleet.RuleSpec{Kind: fleet.RuleDisableRule, Rules: []string{"d1"}, Point: fleet.Point{{"get", "text"}}}})
	for uri, want := range map[string]int{"/?text=x1": 0, "/?q=x1": 1} {
		if got := own.Evaluate(parse(uri, ""), noon).Matches; len(got) != want {
			t.Errorf("%s: %v", uri, got)
		}
	}
}

func TestAVirtualPatchStopsWhatItNames(t *testing.T) {
	patch := func(s fleet.RuleSpec) fleet.BundleRule {
		s.Kind = fleet.RuleVPatch
		return fleet.BundleRule{ID: "p", Spec: s}
	}
	for name, test := range map[string]struct {
		rule fleet.BundleRule
		uri  string
		want bool
	}{
		"a parameter that is there":     {patch(fleet.RuleSpec{Point: fleet.Point{{"get", "debug"}}}), "/?debug=", true},
		"a parameter that is not":       {patch(fleet.RuleSpec{Point: fleet.Point{{"get", "debug"}}}), "/?q=debug", false},
		"a pattern at a point":          {patch(fleet.RuleSpec{Point: fleet.Point{{"get", "id"}}, Pattern: `\D`}), "/?id=1a", true},
		"a pattern that does not match": {patch(fleet.RuleSpec{Point: fleet.Point{{"get", "id"}}, Pattern: `\D`}), "/?id=17", false},
		"a pattern anywhere":            {patch(fleet.RuleSpec{Pattern: `jndi:`}), "/a/jndi:x", true},
		"a location":                    {patch(fleet.RuleSpec{Conditions: []fleet.RuleCondition{is("uri", "/admin/**")}}), "/admin/x", true},
		"another location":              {patch(fleet.RuleSpec{Conditions: []fleet.RuleCondition{is("uri", "/admin/**")}}), "/shop", false},
	} {
		got := compile(t, test.rule).Evaluate(parse(test.uri, ""), noon).Matches
		if len(got) > 0 != test.want {
			t.Errorf("%s: %v", name, got)
			continue
		}
		if test.want && (!got[0].Patch || got[0].Type != fleet.AttackVPatch || got[0].Experimental) {
			t.Errorf("%s: %+v", name, got[0])
		}
	}
	typed := compile(t, patch(fleet.RuleSpec{AttackTypes: []fleet.AttackType{"sqli"}, Point: fleet.Point{{"get", "q"}}})).Evaluate(parse("/", ""), noon)
	for _, test := range []struct {
		kind  fleet.AttackType
		point fleet.Point
		want  bool
	}{{"sqli", fleet.Point{{"get", "q"}}, true}, {"sqli", fleet.Point{{"get", "q"}, {"percent"}}, true}, {"xss", fleet.Point{{"get", "q"}}, false}, {"sqli", fleet.Point{{"get", "p"}}, false}} {
		if _, _, ok := typed.Patched(test.kind, []fleet.Point{test.point}); ok != test.want {
			t.Errorf("%s at %v: %t", test.kind, test.point, ok)
		}
	}
}
