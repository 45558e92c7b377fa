package api_test

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/edgefleet/edgefleet/controlplane/client"
	"github.com/edgefleet/edgefleet/fleet"
)

// call checks that each of these is a complete problem.
func TestEveryErrorIsAProblem(t *testing.T) {
	f := open(t, 1)
	red := f.tenant("red", "")
	op, nobody := f.op(), f.at(0, "")
	host := `{"name":"api.example.com","origins":[{"url":"https://203.0.113.9"}]}`
	op.call("POST", "/v1/tenants/red/hosts", host).want(201)
	for name, test := range map[string]struct {
		answer answer
		status int
		kind   string
		field  string
	}{
		"no token":                   {nobody.call("GET", "/v1/whoami", nil), 401, "unauthenticated", "token"},
		"no token and a bad body":    {nobody.call("POST", "/v1/tenants", `{`), 401, "unauthenticated", "token"},
		"an unknown token":           {f.at(0, "eft1.tok-1.secret").call("GET", "/v1/whoami", nil), 401, "unauthenticated", "token"},
		"a wrong secret":             {f.at(0, red+"x").call("GET", "/v1/whoami", nil), 401, "unauthenticated", "token"},
		"an empty secret":            {f.at(0, red[:strings.LastIndex(red, ".")+1]).call("GET", "/v1/whoami", nil), 401, "unauthenticated", "token"},
		"no token but basic auth":    {nobody.with("Authorization", "Basic eA==").call("GET", "/v1/whoami", nil), 401, "unauthenticated", "token"},
		"a tenant's token":           {f.at(0, red).call("GET", "/v1/nodes", nil), 403, "denied", ""},
		"before a bad body":          {f.at(0, red).call("POST", "/v1/tenants", `{"nope":1}`), 403, "denied", ""},
		"another tenant":             {f.at(0, red).call("GET", "/v1/tenants/blue/hosts", nil), 404, "not_found", "tenant"},
		"an object that is not":      {op.call("GET", "/v1/nodes/n1", nil), 404, "not_found", "node"},
		"a path that is not":         {op.call("GET", "/v1/nothing", nil), 404, "not_found", "path"},
		"outside of the API":         {nobody.call("GET", "/", nil), 404, "not_found", "path"},
		"a path with a slash more":   {op.call("GET", "/v1/nodes/", nil), 404, "not_found", "path"},
		"a path to be cleaned":       {op.call("GET", "/v1//nodes", nil), 404, "not_found", "path"},
		"a path with dots":           {op.call("GET", "/v1/tenants/../nodes", nil), 404, "not_found", "path"},
		"a wrong method":             {op.call("PUT", "/v1/nodes", nil), 405, "not_found", "method"},
		"a made-up method":           {op.call("BREW", "/v1/nodes", nil), 405, "not_found", "method"},
		"what exists":                {op.call("POST", "/v1/tenants", `{"id":"red"}`), 409, "conflict", ""},
		"too long a body":            {op.call("POST", "/v1/tenants", `{"id":"`+strings.Repeat("x", 1<<20)+`"}`), 413, "too_large", "body"},
		"too long without a length":  {op.call("POST", "/v1/tenants", io.MultiReader(strings.NewReader(strings.Repeat("x", 1<<20+1)))), 413, "too_large", "body"},
		"another content type":       {op.with("Content-Type", "text/plain").call("POST", "/v1/tenants", strings.NewReader("id=x")), 415, "invalid", "body"},
		"a form":                     {op.with("Content-Type", "application/x-www-form-urlencoded").call("POST", "/v1/tenants", strings.NewReader("id=x")), 415, "invalid", "body"},
		"no body":                    {op.call("POST", "/v1/tenants", nil), 400, "invalid", ""},
		"half of a body":             {op.call("POST", "/v1/tenants", `{"id":`), 400, "invalid", "body"},
		"a body and more":            {op.call("POST", "/v1/tenants", `{"id":"x"}{"id":"y"}`), 400, "invalid", "body"},
		"a name twice":               {op.call("POST", "/v1/tenants", `{"id":"x","id":"y"}`), 400, "invalid", "body"},
		"a name twice, cased":        {op.call("POST", "/v1/tenants", `{"id":"x","ID":"y"}`), 400, "invalid", "body"},
		"a name twice, deep":         {op.call("POST", "/v1/tenants/red/hosts", `{"name":"x.example.com","origins":[{"url":"https://a.example"},{"url":"https://b.example","url":"https://c.example"}]}`), 400, "invalid", "body"},
		"a nest of lists":            {op.call("POST", "/v1/tenants", strings.Repeat("[", 1000)), 400, "invalid", "body"},
		"an unknown field":           {op.call("POST", "/v1/tenants", `{"id":"x","admin":true}`), 422, "invalid", "body.admin"},
		"an unknown field, deep":     {op.call("POST", "/v1/tenants/red/hosts", `{"name":"x.example.com","origins":[{"url":"https://a.example","x":1}]}`), 422, "invalid", "body.origins[0].x"},
		"a missing field":            {op.call("POST", "/v1/tenants/red/hosts", `{"origins":[]}`), 422, "invalid", "body"},
		"a wrong type":               {op.call("POST", "/v1/tenants", `{"id":7}`), 422, "invalid", "body.id"},
		"a bad value":                {op.call("POST", "/v1/tenants", `{"id":"Not An Id"}`), 422, "invalid", "tenant"},
		"an unknown query parameter": {op.call("GET", "/v1/tenants?admin=1", nil), 422, "invalid", "query.admin"},
		"a limit over the limit":     {op.call("GET", "/v1/tenants?limit=101", nil), 422, "invalid", "query.limit"},
		"a limit below 1":            {op.call("GET", "/v1/tenants?limit=0", nil), 422, "invalid", "query.limit"},
		"a consistency that is none": {op.call("GET", "/v1/tenants?consistency=maybe", nil), 422, "invalid", "query.consistency"},
	} {
		a := test.answer
		if a.status != test.status || a.Kind != test.kind || a.Field != test.field {
			t.Errorf("%s: got %d %s %q (%s), want %d %s %q", name, a.status, a.Kind, a.Field, a.Detail, test.status, test.kind, test.field)
		}
		if test.status == 401 && a.header.Get("WWW-Authenticate") == "" {
			t.Errorf("%s: no WWW-Authenticate", name)
		}
	}
	if allow := op.call("PUT", "/v1/nodes", nil).header.Get("Allow"); !strings.Contains(allow, "GET") {
		t.Errorf("Allow is %q", allow)
	}
}

func TestWithoutALeaderCallersAreToldWhenToComeBack(t *testing.T) {
	f := open(t, 2)
	f.tenant("red", "")
	f.lead("")
	for _, call := range []struct{ method, path string }{{"GET", "/v1/tenants"}, {"POST", "/v1/tenants"}} {
		a := f.op().call(call.method, call.path, client.TenantCreate{ID: "x"}).want(503)
		if a.Kind != "unavailable" || a.header.Get("Retry-After") != "1" {
			t.Errorf("%s: %s, Retry-After %q", call.method, a.body, a.header.Get("Retry-After"))
		}
	}
	f.op().call("GET", "/v1/tenants?consistency=stale", nil).want(200)
	f.op().call("GET", "/v1/tenants/red/events", nil).want(200)
	f.op().call("GET", "/v1/cluster", nil).want(200)
	f.op().call("HEAD", "/v1/cluster", nil).want(200)

	f.lead("m1")
	f.log.mu.Lock()
	f.log.readIndex = func() (uint64, error) {
		return 0, fleet.NewError(fleet.ErrUnavailable, "", "leadership is not certain")
	}
	f.log.fail = fleet.NewError(fleet.ErrUnavailable, "", "leadership was lost")
	f.log.mu.Unlock()
	for _, method := range []string{"GET", "POST"} {
		if a := f.op().call(method, "/v1/tenants", client.TenantCreate{ID: "x"}).want(503); a.header.Get("Retry-After") != "1" {
			t.Errorf("%s: Retry-After %q", method, a.header.Get("Retry-After"))
		}
	}
	f.log.mu.Lock()
	f.log.fail = errors.New("secret-detail")
	f.log.mu.Unlock()
	a := f.op().call("POST", "/v1/tenants", client.TenantCreate{ID: "x"}).want(500)
	if strings.Contains(string(a.body), "secret-detail") || !strings.Contains(f.members[0].logs.String(), a.RequestID) {
		t.Errorf("an internal error shows %s", a.body)
	}
	must(t, f.members[0].server.Close())
	if a := f.at(1, f.operator).call("POST", "/v1/tenants", client.TenantCreate{ID: "x"}).want(503); a.header.Get("Retry-After") != "1" {
		t.Errorf("a leader that is gone: %s", a.body)
	}
}

func TestFailedAuthenticationsAreSlowedDown(t *testing.T) {
	f := open(t, 1)
	var last answer
	for range 21 {
		last = f.at(0, "eft1.tok-0.guess").call("GET", "/v1/whoami", nil)
	}
	if s := last.header.Get("Retry-After"); last.status != 429 || last.Kind != "rate_limited" || s == "" || s == "0" {
		t.Errorf("got %d %s, Retry-After %q", last.status, last.Kind, s)
	}
	// Join tokens count too, and are refused alike.
	f.at(0, "").call("POST", "/v1/edge/enrol", enrolment(t, "efn1.a.b.c")).want(429)
}

func TestAPanicCostsItsRequestOnly(t *testing.T) {
	f := open(t, 1)
	f.log.mu.Lock()
	f.log.readIndex = func() (uint64, error) { panic("boom") }
	f.log.mu.Unlock()
	a := f.op().call("GET", "/v1/tenants", nil).want(500)
	if a.Kind != "internal" || strings.Contains(string(a.body), "boom") {
		t.Errorf("got %s", a.body)
	}
	logs := f.members[0].logs.String()
	if !strings.Contains(logs, "request panicked") || !strings.Contains(logs, a.RequestID) || !strings.Contains(logs, "boom") {
		t.Errorf("the log does not say it: %s", logs)
	}
	f.op().call("GET", "/v1/cluster", nil).want(200)
}

func TestLogsHoldNoSecrets(t *testing.T) {
	f := open(t, 2)
	red := f.tenant("red", "")
	f.at(1, red).call("GET", "/v1/tenants/red/hosts", nil).want(200)
	f.at(1, red+"x").call("GET", "/v1/tenants/red/hosts?cursor=querytext", nil).want(401)
	f.op().call("POST", "/v1/tenants", `{"id":"bodytext"}`).want(201)
	for _, m := range f.members {
		logs := m.logs.String()
		if !strings.Contains(logs, "level=DEBUG") || !strings.Contains(logs, "path=/v1/tenants/red/hosts") {
			t.Errorf("%s has no access log: %s", m.id, logs)
		}
		for _, secret := range []string{f.operator[strings.LastIndex(f.operator, ".")+1:], red[strings.LastIndex(red, ".")+1:], "querytext", "bodytext"} {
			if strings.Contains(logs, secret) {
				t.Errorf("%s logs %q", m.id, secret)
			}
		}
	}
}

func TestABodyThatDoesNotEndIsGivenUp(t *testing.T) {
	f := open(t, 2)
	for i := range f.members { // the follower gives it up, too, before it passes it on
		f.members[i].api.HurryBodies(100 * time.Millisecond)
		tc := f.tls(nil)
		tc.NextProtos = []string{"http/1.1"}
		conn, err := tls.Dial("tcp", f.members[i].addr, tc)
		must(t, err)
		defer func() { _ = conn.Close() }()
		_, err = fmt.Fprintf(conn, "POST /v1/tenants HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{", f.operator)
		must(t, err)
		res, err := http.ReadResponse(bufio.NewReader(conn), nil)
		must(t, err)
		body, err := io.ReadAll(res.Body)
		must(t, err)
		must(t, res.Body.Close())
		a := answer{t: t, status: res.StatusCode, header: res.Header, body: body}
		a.checkProblem("a slow body")
		if a.want(408).Kind != "timeout" {
			t.Errorf("got %s", body)
		}
	}
}
