package api_test

import (
	"encoding/json"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/edgefleet/edgefleet/controlplane/client"
	"github.com/edgefleet/edgefleet/fleet"
)

// checkReplay repeats a request that was answered with first and wants that answer again, without its secret, and
// nothing done.
func checkReplay(t *testing.T, what string, f *fixture, repeat func() answer, first answer) {
	t.Helper()
	before := f.members[0].state.Read()
	again := repeat()
	if again.status != first.status || again.header.Get("Idempotency-Replayed") != "true" || first.header.Get("Idempotency-Replayed") != "" {
		t.Errorf("%s: %d, replayed %q; then %d, replayed %q: %s", what, first.status, first.header.Get("Idempotency-Replayed"), again.status, again.header.Get("Idempotency-Replayed"), again.body)
		return
	}
	if a, b := first.header.Get("ETag"), again.header.Get("ETag"); a != b {
		t.Errorf("%s: ETag %s, then %s", what, a, b)
	}
	var want, got map[string]any
	first.into(&want)
	again.into(&got)
	if _, secret := want["token"]; secret {
		if note, _ := got["note"].(string); !strings.Contains(note, "shown once") || got["token"] != nil {
			t.Errorf("%s: the secret is not just noted: %s", what, again.body)
		}
		delete(want, "token")
		delete(got, "note")
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s: %s", what, diff)
	}
	after := f.members[0].state.Read()
	if before.AuditHead() != after.AuditHead() {
		t.Errorf("%s: it was done again", what)
	}
}

// takesNoKey lists changes that a key cannot cover: they do more than one command, or end the token that would repeat them.
var takesNoKey = []string{"cluster-transfer-leader", "approval-approve", "token-rotate", "snapshot-restore"}

func TestEveryChangeByPeopleTakesAnIdempotencyKey(t *testing.T) {
	_, d := spec(t)
	for path, methods := range d.Paths {
		for method, op := range methods {
			want := op.Audit != "" && strings.Contains(op.Scope, "token") && !slices.Contains(takesNoKey, op.ID)
			if op.takes("Idempotency-Key") != want {
				t.Errorf("%s %s: key %t, want %t", method, path, !want, want)
			}
		}
	}
}

func TestAKeyIsForOneRequestOfOneCaller(t *testing.T) {
	f := open(t, 1)
	red, blue := f.at(0, f.tenant("red", "")), f.at(0, f.tenant("blue", ""))
	rule := client.RuleCreate{Spec: fleet.RuleSpec{Kind: fleet.RuleRegex, Pattern: "x+", AttackType: fleet.AttackCustom}}
	var first, second fleet.Rule
	red.with("Idempotency-Key", `"k-1"`).call("POST", "/v1/tenants/red/rules", rule).want(201).into(&first)
	red.with("Idempotency-Key", "k-1").call("POST", "/v1/tenants/red/rules", rule).want(201).into(&second)
	if first.ID != second.ID {
		t.Errorf("the key with and without quotes made %s and %s", first.ID, second.ID)
	}
	// The next token of the same tenant goes on where the first left off.
	var made client.TokenCreated
	red.call("POST", "/v1/tenants/red/tokens", client.TokenCreate{}).want(201).into(&made)
	f.at(0, made.Secret).with("Idempotency-Key", "k-1").call("POST", "/v1/tenants/red/rules", rule).want(201).into(&second)
	if first.ID != second.ID {
		t.Errorf("another token of the tenant made %s", second.ID)
	}
	other := rule
	other.Spec.Pattern = "y+"
	for what, a := range map[string]answer{
		"another body":   red.with("Idempotency-Key", "k-1").call("POST", "/v1/tenants/red/rules", other),
		"another path":   red.with("Idempotency-Key", "k-1").call("DELETE", "/v1/tenants/red/rules/"+string(first.ID), nil),
		"another method": red.with("Idempotency-Key", "k-1").call("DELETE", "/v1/tenants/red/rules/x", nil),
	} {
		if a.status != 422 || a.Kind != "key_reused" || a.Field != "Idempotency-Key" || !strings.Contains(a.Detail, `"k-1"`) {
			t.Errorf("%s: %d %s", what, a.status, a.body)
		}
	}
	// Others' keys are not in the way.
	blue.with("Idempotency-Key", "k-1").call("POST", "/v1/tenants/blue/rules", rule).want(201)
	f.op().with("Idempotency-Key", "k-1").call("POST", "/v1/tenants/red/rules", other).want(201)
	for _, bad := range []string{"", `""`, "a b", strings.Repeat("k", 129), "ä", `a\b`} {
		if a := red.with("Idempotency-Key", bad).call("POST", "/v1/tenants/red/rules", rule).want(422); a.Field != "Idempotency-Key" || a.Kind != "invalid" {
			t.Errorf("%q: %s", bad, a.body)
		}
	}
	red.with("Idempotency-Key", "k-2").with("Idempotency-Key", "k-3").call("POST", "/v1/tenants/red/rules", rule).want(422)
}

// The effect of the first request must not make its repetition fail: the host is gone, and that is what was asked for.
func TestARepeatedRequestIsAnsweredAlthoughItsEffectIsThere(t *testing.T) {
	f := open(t, 2)
	red := f.at(0, f.tenant("red", ""))
	const path = "/v1/tenants/red/hosts/a.example.com"
	create := client.HostCreate{Name: "a.example.com", Origins: []fleet.Origin{{URL: "https://203.0.113.9"}}}
	made := red.with("Idempotency-Key", "make").call("POST", "/v1/tenants/red/hosts", create).want(201)
	tag := made.header.Get("ETag")
	change := red.with("Idempotency-Key", "change").with("If-Match", tag)
	change.call("PATCH", path, `{"mode":"off"}`).want(200)
	change.call("PATCH", path, `{"mode":"off"}`).want(200)
	red.with("If-Match", tag).call("PATCH", path, `{"mode":"off"}`).want(412) // which it would be without the key
	gone := red.with("Idempotency-Key", "gone")
	gone.call("DELETE", path, nil).want(200)
	f.lead("m2") // the key is in the state, so every member knows it
	follower := f.at(1, red.token)
	if a := follower.with("Idempotency-Key", "gone").call("DELETE", path, nil).want(200); a.header.Get("Idempotency-Replayed") != "true" {
		t.Error("not replayed by the next leader")
	}
	again := follower.with("Idempotency-Key", "make").call("POST", "/v1/tenants/red/hosts", create).want(201)
	if diff := cmp.Diff(string(made.body), string(again.body)); diff != "" {
		t.Error(diff)
	}
	f.letGo()
	if a := follower.call("GET", path, nil); a.status != 404 {
		t.Errorf("a repeated answer made the host again: %d", a.status)
	}
}

func TestARefusedRequestMayBeRepeatedDifferently(t *testing.T) {
	f := open(t, 1)
	op := f.op().with("Idempotency-Key", "k")
	op.call("POST", "/v1/tenants", `{"id":"red","group":"nowhere"}`).want(404)
	op.call("POST", "/v1/tenants", `{"id":"red"}`).want(201)
}

func TestConcurrentRequestsOfOneKeyMakeOneChange(t *testing.T) {
	f := open(t, 1)
	f.tenant("red", "")
	const n = 16
	answers := make(chan answer, n)
	for range n {
		go func() {
			answers <- f.op().with("Idempotency-Key", "same").call(http.MethodPost, "/v1/tenants/red/tokens", client.TokenCreate{Comment: "one"})
		}()
	}
	secrets, ids := map[string]bool{}, map[fleet.TokenID]bool{}
	for range n {
		var made client.TokenCreated
		(<-answers).want(201).into(&made)
		ids[made.ID] = true
		if made.Secret != "" {
			secrets[made.Secret] = true
		}
	}
	if len(ids) != 1 || len(secrets) != 1 {
		t.Errorf("%d tokens with %d secrets, want one of each", len(ids), len(secrets))
	}
	for s := range maps.Keys(secrets) {
		f.at(0, s).call("GET", "/v1/whoami", nil).want(200)
	}
}

func TestSecretsAreNotRememberedWithKeys(t *testing.T) {
	f := open(t, 1)
	f.tenant("red", "")
	var made client.TokenCreated
	f.op().with("Idempotency-Key", "k").call("POST", "/v1/tenants/red/tokens", client.TokenCreate{}).want(201).into(&made)
	o, ok := f.members[0].state.Read().Once("token/"+strings.Split(f.operator, ".")[1], "k")
	row, err := json.Marshal(o)
	must(t, err)
	if secret := strings.Split(made.Secret, ".")[2]; !ok || strings.Contains(string(row), secret) {
		t.Errorf("remembered: %t, %s", ok, row)
	}
}

func TestErrorsNameTheTraceOfTheCaller(t *testing.T) {
	f := open(t, 2)
	const traceID = "0af7651916cd43dd8448eb211c80319c"
	for i := range f.members { // answered by the leader, and by it through the other member
		a := f.at(i, f.operator).with("Traceparent", "00-"+traceID+"-b7ad6b7169203331-01").call("GET", "/v1/tenants/none", nil).want(404)
		if got := a.header.Values("Traceparent"); a.TraceID != traceID || len(got) != 1 || !strings.HasPrefix(got[0], "00-"+traceID+"-") || strings.Contains(got[0], "b7ad6b7169203331") {
			t.Errorf("member %d: trace %s, header %v", i+1, a.TraceID, got)
		}
	}
	a := f.op().with("Traceparent", "nonsense").call("GET", "/v1/tenants/none", nil).want(404)
	if len(a.TraceID) != 32 || a.TraceID == traceID {
		t.Errorf("a request without a trace has %q", a.TraceID)
	}
}
