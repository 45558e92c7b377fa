package api_test

import (
	"crypto/rand"
	"io"
	"net/http"
	"net/http/httptrace"
	"strings"
	"testing"
	"time"

	"github.com/edgefleet/edgefleet/controlplane/api"
	"github.com/edgefleet/edgefleet/controlplane/client"
	"github.com/edgefleet/edgefleet/controlplane/command"
	"github.com/edgefleet/edgefleet/fleet"
)

// slowly calls with a body of which the end is still to come: finish sends that and returns the status. It returns when
// the member has begun to read the body, and a second request of the same caller is one too many then.
func (a as) slowly(method, path, body string) (finish func() int) {
	a.f.t.Helper()
	for _, m := range a.f.members {
		m.api.Limit(api.CallerLimits{Concurrency: 1})
	}
	rd, wr := io.Pipe()
	reads := make(chan struct{})
	ctx := httptrace.WithClientTrace(a.f.t.Context(), &httptrace.ClientTrace{Got100Continue: func() { close(reads) }})
	req, err := http.NewRequestWithContext(ctx, method, "https://"+a.addr+path, rd)
	must(a.f.t, err)
	req.Header.Set("Expect", "100-continue")
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer "+a.token)
	status := make(chan int, 1)
	go func() {
		res, err := a.http.Do(req)
		if err != nil {
			status <- 0
			return
		}
		_ = res.Body.Close()
		status <- res.StatusCode
	}()
	select {
	case <-reads:
	case early := <-status:
		a.f.t.Fatalf("answered with %d before its body was read", early)
	}
	_, err = io.WriteString(wr, body[:1])
	must(a.f.t, err)
	a.call("GET", "/v1/whoami", nil).want(429)
	return func() int {
		a.f.t.Helper()
		_, err := io.WriteString(wr, body[1:])
		must(a.f.t, err)
		must(a.f.t, wr.Close())
		return <-status
	}
}

func TestNothingIsChangedForATokenThatEndedMeanwhile(t *testing.T) {
	f := open(t, 1)
	var service client.TokenCreated
	f.op().call("POST", "/v1/tokens", client.TokenCreate{}).want(201).into(&service)
	alice := f.person("alice", "", "administrator")
	for name, test := range map[string]struct {
		token string
		end   func()
	}{
		"a service token that is revoked": {service.Secret, func() { f.op().call("DELETE", "/v1/tokens/"+string(service.ID), nil).want(200) }},
		"a person who is disabled":        {alice, func() { f.op().call("POST", "/v1/users/alice/disable", nil).want(200) }},
	} {
		t.Run(name, func(t *testing.T) {
			finish := f.at(0, test.token).slowly("POST", "/v1/tenants", `{"id":"late"}`)
			test.end()
			if status := finish(); status != 401 {
				t.Errorf("got %d", status)
			}
			f.op().call("GET", "/v1/tenants/late", nil).want(404)
		})
	}
}

func TestOnlyAReadThatCanWaitIsNotCountedAsUnderWay(t *testing.T) {
	f := open(t, 1)
	if status := f.op().slowly("POST", "/v1/tenants?index=1", `{"id":"a"}`)(); status != 422 {
		t.Errorf("got %d", status)
	}
}

func TestADownloadEndsWithItsToken(t *testing.T) {
	f := open(t, 1)
	value := make([]byte, 1<<20)
	for i := range 24 { // more than connections hold on their way
		_, _ = rand.Read(value)
		f.propose(command.EntryPut{Key: "k" + string(rune('a'+i)), Value: value})
	}
	var service client.TokenCreated
	f.op().call("POST", "/v1/tokens", client.TokenCreate{}).want(201).into(&service)
	a := f.at(0, service.Secret)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+a.addr+"/v1/cluster/snapshot", nil)
	must(t, err)
	req.Header.Set("Authorization", "Bearer "+a.token)
	res, err := a.http.Do(req)
	must(t, err)
	defer func() { _ = res.Body.Close() }()
	_, err = io.ReadFull(res.Body, make([]byte, 1024))
	must(t, err)
	f.op().call("DELETE", "/v1/tokens/"+string(service.ID), nil).want(200)
	if n, err := io.Copy(io.Discard, res.Body); err == nil {
		t.Errorf("it went on to its end, for %d bytes", n)
	}
}

func TestATokenIsNotReplacedByOneThatLivesLonger(t *testing.T) {
	f := open(t, 1)
	f.op().call("POST", "/v1/users", client.UserCreate{ID: "alice", Roles: []fleet.RoleName{"analyst"}}).want(201)
	for _, who := range []string{"", "alice"} {
		var made, next client.TokenCreated
		f.op().call("POST", "/v1/tokens", client.TokenCreate{User: who, TTL: "2h"}).want(201).into(&made)
		for _, ttl := range []string{"2h1m", "720h"} {
			if got := f.at(0, made.Secret).call("POST", "/v1/whoami/rotate", client.TokenRotate{TTL: ttl}).want(422); got.Field != "ttl" {
				t.Errorf("%s of %q: %s", ttl, who, got.body)
			}
		}
		f.at(0, made.Secret).call("POST", "/v1/whoami/rotate", client.TokenRotate{TTL: "2h"}).want(201).into(&next)
		f.at(0, next.Secret).call("POST", "/v1/whoami/rotate", client.TokenRotate{TTL: "1h"}).want(201).into(&made)
		if life := made.ExpiresAt.Sub(made.CreatedAt); life > time.Hour {
			t.Errorf("the token of %q lives %s", who, life)
		}
		f.at(0, made.Secret).call("POST", "/v1/whoami/rotate", client.TokenRotate{TTL: "2h"}).want(422)
	}
	var endless, made client.TokenCreated
	f.op().call("POST", "/v1/tokens", client.TokenCreate{}).want(201).into(&endless)
	f.at(0, endless.Secret).call("POST", "/v1/whoami/rotate", client.TokenRotate{TTL: "2h"}).want(201).into(&made)
	f.at(0, made.Secret).call("POST", "/v1/whoami/rotate", client.TokenRotate{TTL: "3h"}).want(422)
}

func TestTheSameRequestWaitsForASecondPersonOnce(t *testing.T) {
	f, alice, bob := fourEyes(t)
	ask := func(who, role string) fleet.ApprovalID {
		t.Helper()
		return f.held(f.at(1, who).call("POST", "/v1/users", `{"id":"eve","roles":["`+role+`"]}`)).ID
	}
	first := ask(alice, "administrator")
	if again := ask(alice, "administrator"); again != first {
		t.Errorf("it waits as %s and as %s", first, again)
	}
	if other := ask(bob, "administrator"); other == first {
		t.Error("another person's request is taken for it")
	}
	if status, body := f.at(0, alice).restore(strings.NewReader("x"), "sha-256=:x:", f.statement(2)); status != 422 {
		t.Errorf("an upload of which nobody could approve the digest: %d %s", status, body)
	}
}
