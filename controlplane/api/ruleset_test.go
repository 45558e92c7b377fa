package api_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/edgefleet/edgefleet/controlplane/client"
	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/fleet/rules"
	"github.com/edgefleet/edgefleet/fleet/sample"
)

func TestARequestIsExplained(t *testing.T) {
	f := open(t, 1)
	acme := f.at(0, f.tenant("acme", fleet.SecurityEdge))
	acme.call("POST", "/v1/tenants/acme/hosts", client.HostCreate{Name: "*.acme.example", Mode: fleet.ModeInherit, Origins: []fleet.Origin{{URL: "https://203.0.113.1"}}}).want(201)
	path := "/v1/tenants/acme/rules"
	location := []fleet.RuleCondition{{Type: fleet.MatchEqual, Point: "path[0]", Value: "admin"}}
	for id, s := range map[fleet.RuleID]fleet.RuleSpec{
		"all":    {Kind: fleet.RuleMode, Mode: fleet.ModeMonitoring},
		"admin":  {Kind: fleet.RuleMode, Mode: fleet.ModeBlock, Conditions: location},
		"detect": {Kind: fleet.RuleRegex, Pattern: "x[0-9]", AttackType: fleet.AttackSQLi},
		"fix":    {Kind: fleet.RuleDisableRule, Rules: []string{"detect"}, Point: fleet.Point{{"get", "text"}}},
		"stop":   {Kind: fleet.RuleVPatch, Point: fleet.Point{{"get", "stop"}}},
		"header": {Kind: fleet.RuleResponseHeader, Header: "X-A", Value: "b"},
		"mask":   {Kind: fleet.RuleSensitiveData, Point: fleet.Point{{"header", "X-NOTE"}}},
	} {
		acme.call("POST", path, client.RuleCreate{ID: id, Spec: s}).want(201)
	}
	for uri, want := range map[string]struct {
		mode    rules.Setting
		outcome rules.Outcome
		reason  rules.Reason
		fired   []fleet.RuleID
	}{
		"/?q=shoes":       {rules.Setting{Mode: "monitoring", Layer: "tenant", Rule: "all"}, "reported", "", nil},
		"/?q=x1":          {rules.Setting{Mode: "monitoring", Layer: "tenant", Rule: "all"}, "reported", "", []fleet.RuleID{"detect"}},
		"/?stop=":         {rules.Setting{Mode: "monitoring", Layer: "tenant", Rule: "all"}, "blocked", "virtual_patch", []fleet.RuleID{"stop"}},
		"/admin/?q=x1":    {rules.Setting{Mode: "block", Layer: "location", Rule: "admin"}, "blocked", "malicious", []fleet.RuleID{"detect"}},
		"/admin/?text=x1": {rules.Setting{Mode: "block", Layer: "location", Rule: "admin"}, "reported", "", []fleet.RuleID{"detect"}},
	} {
		var got client.RuleExplanation
		acme.call("POST", path+"/explain", client.RuleExplain{Request: sample.Request{Host: "www.acme.example", URI: uri, Header: http.Header{"Cookie": {"session=geheim77"}, "X-Note": {"ours"}}}}).want(200).into(&got)
		if got.Mode != want.mode || got.Outcome != want.outcome || got.Reason != want.reason || got.Host != "*.acme.example" || got.Note == "" {
			t.Errorf("%s: %+v", uri, got)
		}
		var fired []fleet.RuleID
		for _, m := range got.Matches {
			fired = append(fired, m.Rule)
			if (m.DisabledBy == "fix") != (uri == "/admin/?text=x1") {
				t.Errorf("%s: disabled by %q", uri, m.DisabledBy)
			}
		}
		if diff := cmp.Diff(want.fired, fired); diff != "" {
			t.Errorf("%s: %s", uri, diff)
		}
		masked := map[string]bool{}
		for _, p := range got.Points {
			masked[p.Point] = p.Masked
		}
		if !masked["header.COOKIE"] || !masked["header.X-NOTE"] || masked["path"] || len(got.Masks) == 0 {
			t.Errorf("%s: masked are %v", uri, masked)
		}
	}
	var got client.RuleExplanation
	acme.call("POST", path+"/explain", client.RuleExplain{Source: rules.SourceDeny, Request: sample.Request{Host: "www.acme.example"}}).want(200).into(&got)
	if got.Outcome != rules.OutcomeBlocked || got.Reason != rules.BlockedSource {
		t.Errorf("a denylisted client: %+v", got)
	}
	if p := acme.call("POST", path+"/explain", client.RuleExplain{Request: sample.Request{Host: "other.example"}}).want(404); p.Field != "host" {
		t.Errorf("another host: %s", p.body)
	}
	if p := acme.call("POST", path+"/explain", client.RuleExplain{}).want(422); p.Field != "host" {
		t.Errorf("no host: %s", p.body)
	}
}

func TestRulesAreImportedByTheAPI(t *testing.T) {
	f := open(t, 1)
	acme := f.at(0, f.tenant("acme", fleet.SecurityEdge))
	path := "/v1/tenants/acme/rules"
	entry := func(id fleet.RuleID, pattern string) client.RuleEntry {
		return client.RuleEntry{ID: id, RuleSpec: fleet.RuleSpec{Kind: fleet.RuleRegex, Pattern: pattern, AttackType: fleet.AttackCustom}}
	}
	acme.call("POST", path, client.RuleCreate{ID: "old", Spec: entry("", "old").RuleSpec}).want(201)
	acme.call("POST", path, client.RuleCreate{ID: "same", Spec: entry("", "same").RuleSpec}).want(201)
	list := []client.RuleEntry{entry("same", "same"), entry("old", "changed"), entry("new", "new")}
	imported := func(in client.RuleImport) client.RuleImported {
		t.Helper()
		var got client.RuleImported
		acme.call("POST", path+"/import", in).want(200).into(&got)
		return got
	}
	patterns := func() map[fleet.RuleID]string {
		t.Helper()
		var page client.Page[client.RuleView]
		acme.call("GET", path, nil).want(200).into(&page)
		out := map[fleet.RuleID]string{}
		for _, r := range page.Items {
			out[r.ID] = r.Spec.Pattern
		}
		return out
	}
	want := client.RuleImported{DryRun: true, Added: []fleet.RuleID{"new"}, Changed: []fleet.RuleID{"old"}, Deleted: []fleet.RuleID{}, Unchanged: 1}
	if diff := cmp.Diff(want, imported(client.RuleImport{Rules: list, DryRun: true})); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(map[fleet.RuleID]string{"old": "old", "same": "same"}, patterns()); diff != "" {
		t.Errorf("a dry run changed rules: %s", diff)
	}
	want.DryRun = false
	if diff := cmp.Diff(want, imported(client.RuleImport{Rules: list})); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(client.RuleImported{Added: []fleet.RuleID{}, Changed: []fleet.RuleID{}, Deleted: []fleet.RuleID{}, Unchanged: 3}, imported(client.RuleImport{Rules: list, Prune: true})); diff != "" {
		t.Errorf("again: %s", diff)
	}
	if got := imported(client.RuleImport{Rules: list[2:], Prune: true}); len(got.Deleted) != 2 {
		t.Errorf("pruned %+v", got)
	}
	if p := acme.call("POST", path+"/import", client.RuleImport{Rules: []client.RuleEntry{entry("good", "x"), entry("bad", "(")}}).want(422); !strings.Contains(p.Detail, `"bad"`) || p.Field != "pattern" {
		t.Errorf("a bad rule: %s", p.body)
	}
	if diff := cmp.Diff(map[fleet.RuleID]string{"new": "new"}, patterns()); diff != "" {
		t.Error(diff)
	}
}

func TestAFixSaysWhatItWouldHaveTakenOut(t *testing.T) {
	f := open(t, 1)
	acme := f.at(0, f.tenant("acme", fleet.SecurityEdge))
	event := func(seq uint64, age time.Duration, kind fleet.AttackType, path, point, id string) {
		e := fleet.Event{
			ID: fleet.NewEventID("n1", "b", seq), NodeID: "n1", Boot: "b", Seq: seq, Time: time.Now().Add(-age), Tenant: "acme", Host: "www.acme.example",
			Type: kind, Status: fleet.Blocked, Mode: fleet.ModeBlock, Method: "POST", Path: path, Point: point, Rules: []fleet.MatchedRule{{ID: id}}, ResponseStatus: 403,
		}
		must(t, f.members[0].events.Put(t.Context(), []fleet.Event{e}))
	}
	event(1, time.Hour, fleet.AttackXSS, "/blog/edit", "post.form_urlencoded.text", "941100")
	event(2, time.Hour, fleet.AttackXSS, "/shop", "get.q", "941100")
	event(3, time.Hour, fleet.AttackSQLi, "/blog/edit", "post.form_urlencoded.text", "942100")
	event(4, 8*24*time.Hour, fleet.AttackXSS, "/blog/edit", "post.form_urlencoded.text", "941100")
	for name, test := range map[string]struct {
		spec fleet.RuleSpec
		want int
	}{
		"the type":             {fleet.RuleSpec{Kind: fleet.RuleDisableAttackType, AttackTypes: []fleet.AttackType{fleet.AttackXSS}}, 2},
		"the type at a point":  {fleet.RuleSpec{Kind: fleet.RuleDisableAttackType, AttackTypes: []fleet.AttackType{fleet.AttackXSS}, Point: fleet.Point{{"post"}}}, 1},
		"at any parameter":     {fleet.RuleSpec{Kind: fleet.RuleDisableAttackType, AttackTypes: []fleet.AttackType{fleet.AttackXSS}, Point: fleet.Point{{"get_all"}}}, 1},
		"the rule":             {fleet.RuleSpec{Kind: fleet.RuleDisableRule, Rules: []string{"942100"}}, 1},
		"the rule at a branch": {fleet.RuleSpec{Kind: fleet.RuleDisableRule, Rules: []string{"942100", "941100"}, Conditions: []fleet.RuleCondition{{Type: "equal", Point: "path[0]", Value: "blog"}}}, 2},
		"another rule":         {fleet.RuleSpec{Kind: fleet.RuleDisableRule, Rules: []string{"1"}}, 0},
	} {
		var got client.RuleTouched
		acme.call("POST", "/v1/tenants/acme/rules/impact", client.RuleImpact{Spec: test.spec}).want(200).into(&got)
		if got.Events != 3 || got.Touched != test.want || got.Share != float64(test.want)/3 || len(got.Examples) != test.want || got.Partial {
			t.Errorf("%s: %+v", name, got)
		}
	}
	if p := acme.call("POST", "/v1/tenants/acme/rules/impact", client.RuleImpact{Spec: fleet.RuleSpec{Kind: fleet.RuleMode, Mode: fleet.ModeOff}}).want(422); p.Field != "kind" {
		t.Errorf("%s", p.body)
	}
}
