package waf_test

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/edgefleet/edgefleet/edgenode/waf"
	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/fleet/request"
	"github.com/edgefleet/edgefleet/fleet/rules"
)

func TestAVirtualPatchBlocksWhereTheModeOnlyReports(t *testing.T) {
	typed := fleet.RuleSpec{Kind: fleet.RuleVPatch, AttackTypes: []fleet.AttackType{fleet.AttackSQLi}, Point: fleet.Point{{"get", "q"}}, Comment: "CVE of the shop"}
	for name, test := range map[string]struct {
		rule fleet.RuleSpec
		sent sent
		mode fleet.Mode
		want bool
	}{
		"an attack at its point":            {typed, sqli, fleet.ModeMonitoring, true},
		"in safe_blocking too":              {typed, sqli, fleet.ModeSafeBlocking, true},
		"nothing is analysed":               {typed, sqli, fleet.ModeOff, false},
		"an attack elsewhere":               {typed, sent{uri: "/?p=" + url.QueryEscape("' OR 1=1--")}, fleet.ModeMonitoring, false},
		"another attack":                    {typed, sent{uri: "/?q=" + url.QueryEscape("<script>alert(1)</script>")}, fleet.ModeMonitoring, false},
		"no attack":                         {typed, sent{uri: "/?q=shoes"}, fleet.ModeMonitoring, false},
		"any request with the parameter":    {fleet.RuleSpec{Kind: fleet.RuleVPatch, Point: fleet.Point{{"get", "debug"}}}, sent{uri: "/?debug=1"}, fleet.ModeMonitoring, true},
		"any request without the parameter": {fleet.RuleSpec{Kind: fleet.RuleVPatch, Point: fleet.Point{{"get", "debug"}}}, sent{uri: "/?q=1"}, fleet.ModeMonitoring, false},
	} {
		t.Run(name, func(t *testing.T) {
			in := test.sent.input(test.mode)
			in.Rules = ownRules(t, test.rule)
			d := newEngine(t).Judge(t.Context(), in)
			if d.Block != test.want || d.EngineError != nil || test.want != (d.Reason == rules.BlockedPatch) {
				t.Fatalf("%+v", d)
			}
			i := slices.Index(types(d), fleet.AttackVPatch)
			if test.want && (i < 0 || d.Events[i].Status != fleet.Blocked || d.Events[i].Rules[0].ID != "r1") || !test.want && i >= 0 {
				t.Errorf("events %+v", d.Events)
			}
		})
	}
}

func TestWhatIsDisabledDoesNotCount(t *testing.T) {
	disableSQLi := fleet.RuleSpec{Kind: fleet.RuleDisableAttackType, AttackTypes: []fleet.AttackType{fleet.AttackSQLi}}
	at := func(s fleet.RuleSpec, p ...[]string) fleet.RuleSpec {
		s.Point = p
		return s
	}
	query := url.QueryEscape("' OR 1=1--")
	d := newEngine(t).Judge(t.Context(), sqli.input(fleet.ModeBlock))
	if len(d.Events) != 1 {
		t.Fatalf("%+v", d)
	}
	var ids []string
	for _, r := range d.Events[0].Rules {
		ids = append(ids, r.ID)
	}
	for name, test := range map[string]struct {
		rule fleet.RuleSpec
		sent sent
		want bool
	}{
		"the type everywhere":       {disableSQLi, sqli, false},
		"the type at the point":     {at(disableSQLi, []string{"get", "q"}), sqli, false},
		"the type at another point": {at(disableSQLi, []string{"get", "p"}), sqli, true},
		"the type in the body":      {at(disableSQLi, []string{"post"}), sent{method: "POST", uri: "/", contentType: "application/json", body: `{"q":"' OR 1=1--"}`}, false},
		"two parameters, one of it": {at(disableSQLi, []string{"get", "q"}), sent{uri: "/?q=" + query + "&p=" + query}, true},
		"the same name in the body": {at(disableSQLi, []string{"get", "q"}), sent{method: "POST", uri: "/?q=" + query, contentType: form, body: "q=" + query}, true},
		"another type beside it":    {disableSQLi, sent{uri: "/?q=" + query + "&x=" + url.QueryEscape("<script>alert(1)</script>")}, true},
		"the rules by their ids":    {fleet.RuleSpec{Kind: fleet.RuleDisableRule, Rules: ids}, sqli, false},
		"one of the rules":          {fleet.RuleSpec{Kind: fleet.RuleDisableRule, Rules: []string{"911100"}}, sqli, true},
		"at another branch":         {fleet.RuleSpec{Kind: fleet.RuleDisableRule, Rules: ids, Conditions: []fleet.RuleCondition{{Type: "equal", Point: "path[0]", Value: "blog"}}}, sqli, true},
	} {
		t.Run(name, func(t *testing.T) {
			in := test.sent.input(fleet.ModeBlock)
			in.Rules = ownRules(t, test.rule)
			d := newEngine(t).Judge(t.Context(), in)
			if d.Block != test.want || d.EngineError != nil {
				t.Fatalf("block %t, want %t: %+v", d.Block, test.want, d)
			}
			if !test.want && len(d.Events) > 0 {
				t.Errorf("events %+v", d.Events)
			}
		})
	}
}

func TestALocationHasAModeOfItsOwn(t *testing.T) {
	set := ownRules(t, fleet.RuleSpec{Kind: fleet.RuleMode, Mode: fleet.ModeOff, Conditions: []fleet.RuleCondition{{Type: "equal", Point: "path[0]", Value: "legacy"}}},
		fleet.RuleSpec{Kind: fleet.RuleMode, Mode: fleet.ModeBlock})
	for _, test := range []struct {
		uri   string
		host  fleet.Mode
		want  rules.Setting
		block bool
	}{
		{"/?q=", fleet.ModeMonitoring, rules.Setting{Mode: "monitoring", Layer: "host"}, false},
		{"/?q=", fleet.ModeInherit, rules.Setting{Mode: "block", Layer: "tenant", Rule: "r2"}, true},
		{"/legacy/?q=", fleet.ModeBlock, rules.Setting{Mode: "off", Layer: "location", Rule: "r1"}, false},
	} {
		in := sent{uri: test.uri + url.QueryEscape("' OR 1=1--")}.input(test.host)
		in.Rules = set
		d := newEngine(t).Judge(t.Context(), in)
		if d.Mode != test.want || d.Block != test.block {
			t.Errorf("%s: %+v", test.uri, d)
		}
		if len(d.Events) > 0 && d.Events[0].Mode != test.want.Mode {
			t.Errorf("the event has the mode %s", d.Events[0].Mode)
		}
	}
}

func TestTheFailPolicyIsAppliedAndCounted(t *testing.T) {
	closed := fleet.FailPolicy{OverLimit: fleet.FailClose, ConfigNotLoaded: fleet.FailClose, EngineError: fleet.FailClose}
	large := sent{method: "POST", uri: "/", contentType: form, body: "a=b"}.input(fleet.ModeBlock)
	raw := large.Request.Input()
	raw.Truncated = true
	large.Request = request.Parse(raw, request.Limits{})
	missing := sent{uri: "/"}.input(fleet.ModeBlock)
	missing.RulesMissing = true
	broken := sent{uri: "/?q=x1"}.input(fleet.ModeBlock)
	broken.Rules = ownRules(t, fleet.RuleSpec{Kind: fleet.RuleRegex, Pattern: "x1", AttackType: fleet.AttackCustom, Experimental: true})
	broken.Request = nil // what no caller does: rules and engine dereference it
	for cause, in := range map[fleet.FailCause]waf.Input{fleet.FailOverLimit: large, fleet.FailConfigNotLoaded: missing, fleet.FailEngineError: broken} {
		in.Tenant = "policy"
		for _, test := range []struct {
			mode   fleet.Mode
			policy fleet.FailPolicy
			want   bool
		}{{fleet.ModeBlock, closed, true}, {fleet.ModeBlock, fleet.FailPolicy{}, false}, {fleet.ModeMonitoring, closed, false}} {
			in.Mode, in.FailPolicy = test.mode, test.policy
			d := newEngine(t).Judge(t.Context(), in)
			if d.Block != test.want || d.Malicious || test.want && (d.Reason != rules.BlockedFailure || d.Cause != cause) || !slices.Contains(d.Failed, cause) {
				t.Errorf("%s in %s: %+v", cause, test.mode, d)
			}
		}
		shown := httptest.NewRecorder()
		telemetry.Handler().ServeHTTP(shown, httptest.NewRequest(http.MethodGet, "/metrics", http.NoBody))
		for outcome, n := range map[string]string{"passed": "2", "refused": "1"} {
			if want := `edgefleet_waf_fail_policy_total{cause="` + string(cause) + `",outcome="` + outcome + `",tenant="policy"} ` + n; !strings.Contains(shown.Body.String(), want) {
				t.Errorf("no %s", want)
			}
		}
	}
	shown := httptest.NewRecorder()
	telemetry.Handler().ServeHTTP(shown, httptest.NewRequest(http.MethodGet, "/metrics", http.NoBody))
	if want := `edgefleet_waf_rule_panics_total{rule="r1",tenant="policy"} 3`; !strings.Contains(shown.Body.String(), want) {
		t.Errorf("no %s", want)
	}
	if diff := telemetry.Undeclared(); len(diff) > 0 {
		t.Error(diff)
	}
}
