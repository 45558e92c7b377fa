package api_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/edgefleet/edgefleet/controlplane/client"
	"github.com/edgefleet/edgefleet/fleet"
)

// takesNoCondition lists changes of objects that need no If-Match: they end an identity, which must work whatever
// changed meanwhile, and twice. Roles never change.
var takesNoCondition = []string{"user-delete", "operator-user-delete", "role-delete", "operator-role-delete", "token-delete", "operator-token-delete", "node-revoke", "cluster-member-remove"}

func TestEveryChangeOfAnObjectNeedsTheRevisionThatWasRead(t *testing.T) {
	_, d := spec(t)
	for path, methods := range d.Paths {
		for method, op := range methods {
			held := slices.ContainsFunc(op.Parameters, func(p parameter) bool { return p.Name == "If-Match" && p.In == "header" })
			want := slices.Contains([]string{"put", "patch", "delete"}, method) && !slices.Contains(takesNoCondition, op.ID)
			if held != want {
				t.Errorf("%s %s: If-Match %t, want %t", method, path, held, want)
			}
			for _, status := range []string{"412", "428"} {
				if _, ok := op.Responses[status]; ok != held {
					t.Errorf("%s %s: status %s %t, want %t", method, path, status, ok, held)
				}
			}
		}
	}
	for path, tagged := range map[string]bool{
		"/v1/tenants/{tenant}": true, "/v1/tenants/{tenant}/hosts/{host}": true, "/v1/nodes/{id}": true, "/v1/tenants/{tenant}/rules/{id}": true,
		"/v1/groups/{name}": true, "/v1/tenants": false, "/v1/whoami": false,
	} {
		if _, ok := d.Paths[path]["get"].Responses["200"].Headers["ETag"]; ok != tagged {
			t.Errorf("%s: ETag described %t, want %t", path, ok, tagged)
		}
	}
}

func TestAChangeIsMadeAtTheRevisionThatWasRead(t *testing.T) {
	f := open(t, 1)
	red := f.at(0, f.tenant("red", ""))
	f.node("n1", 1)
	red.call("POST", "/v1/tenants/red/hosts", client.HostCreate{Name: "a.example.com", Origins: []fleet.Origin{{URL: "https://203.0.113.9"}}}).want(201)
	op := f.op()
	op.call("POST", "/v1/tenants/red/rules", client.RuleCreate{ID: "r1", Spec: fleet.RuleSpec{Kind: fleet.RuleRegex, Pattern: "x", AttackType: fleet.AttackCustom}}).want(201)
	op.with("If-None-Match", "*").call("PUT", "/v1/groups/g1", `{"form":"hybrid"}`).want(200)
	for _, test := range []struct{ method, path, body string }{
		{"PATCH", "/v1/tenants/red", `{"name":"new"}`},
		{"PATCH", "/v1/tenants/red/hosts/a.example.com", `{"mode":"off"}`},
		{"PATCH", "/v1/nodes/n1", `{"cordoned":true}`},
		{"PUT", "/v1/groups/g1", `{"form":"security_edge"}`},
		{"PUT", "/v1/tenants/red/rules/r1", `{"spec":{"kind":"mode","mode":"block"}}`},
		{"DELETE", "/v1/tenants/red/rules/r1", ""},
		{"DELETE", "/v1/tenants/red/hosts/a.example.com", ""},
		{"DELETE", "/v1/tenants/red", ""},
	} {
		what := test.method + " " + test.path
		read := op.call("GET", test.path, nil).want(200)
		tag := read.header.Get("ETag")
		var object fleet.Meta
		read.into(&object)
		if tag != fmt.Sprintf(`"%d"`, object.Revision) || object.Revision == 0 {
			t.Errorf("%s: ETag %s of revision %d", what, tag, object.Revision)
		}
		if p := op.without("If-Match").call(test.method, test.path, test.body).want(428); p.Kind != "precondition_required" || p.Field != "If-Match" {
			t.Errorf("%s: %s", what, p.body)
		}
		for _, bad := range []string{"17", `W/"17"`, `"17","18"`, `"x"`, `"0"`, `"-1"`, `"`} {
			if p := op.with("If-Match", bad).call(test.method, test.path, test.body).want(422); p.Field != "If-Match" {
				t.Errorf("%s: %s", what, p.body)
			}
		}
		if p := op.with("If-Match", `"1"`).call(test.method, test.path, test.body).want(412); p.Kind != "changed" || !strings.Contains(p.Detail, "read it again") {
			t.Errorf("%s: %s", what, p.body)
		}
		if diff := cmp.Diff(string(read.body), string(op.call("GET", test.path, nil).body)); diff != "" {
			t.Errorf("%s: a refused change changed: %s", what, diff)
		}
		done := op.with("If-Match", tag).call(test.method, test.path, test.body).want(200)
		if test.method == "DELETE" {
			f.letGo()
			op.call("GET", test.path, nil).want(404)
			continue
		}
		if now := done.header.Get("ETag"); now == "" || now == tag {
			t.Errorf("%s: ETag %s after the change of %s", what, now, tag)
		}
		op.with("If-Match", tag).call(test.method, test.path, test.body).want(412)
		op.with("If-Match", "*").call(test.method, test.path, test.body).want(200)
	}
}

func TestAPutMakesOrChangesAsItWasAsked(t *testing.T) {
	f := open(t, 1)
	op := f.op()
	const path, body = "/v1/groups/eu", `{"form":"hybrid"}`
	op.with("If-Match", "*").call("PUT", path, body).want(404)
	op.call("PUT", path, body).want(428)
	op.with("If-None-Match", `"1"`).call("PUT", path, body).want(422)
	op.with("If-None-Match", "*").with("If-Match", "*").call("PUT", path, body).want(422)
	made := op.with("If-None-Match", "*").call("PUT", path, body).want(200)
	if p := op.with("If-None-Match", "*").call("PUT", path, body).want(409); !strings.Contains(p.Detail, "exists already") {
		t.Errorf("got %s", p.body)
	}
	op.with("If-Match", made.header.Get("ETag")).call("PUT", path, `{"form":"on_premise"}`).want(200)
	op.with("If-Match", "*").call("PUT", path, body).want(403) // its nodes are the client's now
}

// With If-Match: * two changes of different fields do not undo each other.
func TestAnyRevisionMeansTheOneThatIsThere(t *testing.T) {
	f := open(t, 1)
	f.tenant("red", "")
	const writers = 8
	done := make(chan answer, 2*writers)
	for i := range writers {
		go func() { done <- f.op().call(http.MethodPatch, "/v1/tenants/red", fmt.Sprintf(`{"name":"n%d"}`, i)) }()
		go func() {
			done <- f.op().call(http.MethodPatch, "/v1/tenants/red", fmt.Sprintf(`{"allowed_origins":["10.%d.0.0/16"]}`, i))
		}()
	}
	for range 2 * writers {
		(<-done).want(200)
	}
	var tn fleet.Tenant
	f.op().call("GET", "/v1/tenants/red", nil).want(200).into(&tn)
	if tn.Spec.Name == "red" || tn.Spec.Name == "" || len(tn.Spec.AllowedOrigins) != 1 {
		t.Errorf("a change is lost: %+v", tn.Spec)
	}
}
