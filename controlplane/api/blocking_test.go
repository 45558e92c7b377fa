package api_test

import (
	"bytes"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/edgefleet/edgefleet/controlplane/client"
)

// index is the index of an answer.
func (a answer) index() uint64 {
	a.t.Helper()
	n, err := strconv.ParseUint(a.header.Get("Edgefleet-Index"), 10, 64)
	must(a.t, err)
	return n
}

// waits asks for what comes after index, in the background, and returns once the member waits with n reads.
func (a as) waits(i, n int, path string, index uint64) <-chan answer {
	a.f.t.Helper()
	got := make(chan answer, 1)
	sep := "?"
	if strings.Contains(path, "?") {
		sep = "&"
	}
	go func() { got <- a.call("GET", fmt.Sprintf("%s%sindex=%d&wait=1m", path, sep, index), nil) }()
	await(a.f.t, "the read waits", func() bool { return a.f.members[i].api.Waiting() == n })
	return got
}

func arrives(t *testing.T, what string, got <-chan answer) answer {
	t.Helper()
	select {
	case a := <-got:
		return a
	case <-time.After(patience / 4):
		t.Fatalf("%s: nothing came", what)
		return answer{}
	}
}

func (f *fixture) rename(tenant, name string) {
	f.t.Helper()
	f.op().call("PATCH", "/v1/tenants/"+tenant, client.TenantUpdate{Name: &name}).want(200)
}

func TestAReadWaitsForAChangeOfWhatItShows(t *testing.T) {
	for name, test := range map[string]struct {
		at, waitsAt int
		query       string
	}{
		"at the leader":                      {0, 0, ""},
		"through a follower":                 {1, 0, ""},
		"at a follower, of its own state":    {1, 1, "?consistency=stale"},
		"at the leader, of its state anyhow": {0, 0, "?consistency=stale"},
	} {
		t.Run(name, func(t *testing.T) {
			f := open(t, 2)
			red := f.tenant("red", "")
			f.tenant("blue", "")
			a := f.at(test.at, red)
			first := a.call("GET", "/v1/tenants/red", nil).want(200) // a stale answer may be from before blue
			one := a.waits(test.waitsAt, 1, "/v1/tenants/red"+test.query, first.index())
			list := f.at(test.at, f.operator).waits(test.waitsAt, 2, "/v1/tenants"+test.query, first.index())
			f.rename("blue", "Blue")
			if got := arrives(t, "the list", list).want(200); !bytes.Contains(got.body, []byte(`"Blue"`)) || got.index() <= first.index() {
				t.Errorf("list: index %d after %d: %s", got.index(), first.index(), got.body)
			}
			f.rename("red", "Red")
			got := arrives(t, "the object", one).want(200)
			if !bytes.Contains(got.body, []byte(`"Red"`)) || got.index() <= first.index() || got.header.Get("ETag") == "" {
				t.Errorf("object: index %d after %d, ETag %q: %s", got.index(), first.index(), got.header.Get("ETag"), got.body)
			}
			// What changed meanwhile is answered at once, and 0 always is.
			for _, index := range []uint64{0, first.index()} {
				if again := a.call("GET", fmt.Sprintf("/v1/tenants/red?index=%d&wait=5m", index), nil).want(200); !bytes.Contains(again.body, []byte(`"Red"`)) {
					t.Errorf("after %d: %s", index, again.body)
				}
			}
		})
	}
}

func TestAReadThatWaitedInVainShowsTheSameAgain(t *testing.T) {
	f := open(t, 1)
	red := f.tenant("red", "")
	f.tenant("blue", "")
	first := f.at(0, red).call("GET", "/v1/tenants/red", nil).want(200)
	began := time.Now()
	got := make(chan answer, 1)
	go func() {
		got <- f.at(0, red).call("GET", fmt.Sprintf("/v1/tenants/red?index=%d&wait=700ms", first.index()), nil)
	}()
	await(t, "the read waits", func() bool { return f.members[0].api.Waiting() == 1 })
	for i := range 5 { // of the same table, but not of what it shows
		f.rename("blue", fmt.Sprint("Blue ", i))
	}
	same := arrives(t, "the end of the wait", got).want(200)
	if took := time.Since(began); took < 700*time.Millisecond || !bytes.Equal(same.body, first.body) || same.index() <= first.index() {
		t.Errorf("after %s: index %d after %d: %s", took, same.index(), first.index(), same.body)
	}
}

func TestAMemberThatIsBehindCatchesUpBeforeItAnswersAReadThatWaits(t *testing.T) {
	f := open(t, 2)
	red := f.tenant("red", "")
	f.lag(1, true)
	f.rename("red", "Red")
	ahead := f.at(0, red).call("GET", "/v1/tenants/red", nil).want(200)
	f.lead("") // which stale reads do not need
	got := f.at(1, red).waits(1, 1, "/v1/tenants/red?consistency=stale", ahead.index()-1)
	f.lag(1, false)
	if a := arrives(t, "what it missed", got).want(200); !bytes.Equal(a.body, ahead.body) {
		t.Errorf("got %s, want %s", a.body, ahead.body)
	}
}

func TestAReadThatWaitsIsPassedOnWhenItsMemberDoesNotLeadAnyMore(t *testing.T) {
	f := open(t, 2)
	red := f.tenant("red", "")
	first := f.at(0, red).call("GET", "/v1/tenants/red", nil).want(200)
	got := f.at(0, red).waits(0, 1, "/v1/tenants/red", first.index())
	f.log.mu.Lock()
	f.log.leader = "m2"
	f.log.readIndex = func() (uint64, error) { // only m1 asks before it has passed the read on
		f.log.readIndex = nil
		return 0, errHandedOver
	}
	f.log.mu.Unlock()
	name := "Red"
	f.at(1, f.operator).call("PATCH", "/v1/tenants/red", client.TenantUpdate{Name: &name}).want(200)
	if a := arrives(t, "the change", got).want(200); !bytes.Contains(a.body, []byte(`"Red"`)) {
		t.Errorf("got %s", a.body)
	}
}

func TestAReadThatWaitsEnds(t *testing.T) {
	start := func(t *testing.T) (f *fixture, red string, got <-chan answer) {
		t.Helper()
		f = open(t, 1)
		red = f.tenant("red", "")
		at := f.at(0, red).call("GET", "/v1/tenants/red", nil).want(200).index()
		return f, red, f.at(0, red).waits(0, 1, "/v1/tenants/red", at)
	}
	t.Run("with its token", func(t *testing.T) {
		f, red, got := start(t)
		f.op().call("DELETE", "/v1/tenants/red/tokens/"+strings.Split(red, ".")[1], nil).want(200)
		arrives(t, "the end", got).want(401)
	})
	t.Run("with what it shows", func(t *testing.T) {
		f, _, got := start(t)
		f.op().call("DELETE", "/v1/tenants/red", nil).want(200)
		if a := arrives(t, "the end", got); a.status != 404 && a.status != 401 { // the tenant's tokens end too
			t.Errorf("got %d %s", a.status, a.body)
		}
	})
	t.Run("with the member, at once, and with an answer", func(t *testing.T) {
		f, _, got := start(t)
		must(t, f.members[0].server.Shutdown(t.Context()))
		arrives(t, "the end", got).want(200)
	})
}

func TestTheReadsThatWaitAreCounted(t *testing.T) {
	f := open(t, 2)
	red, blue := f.tenant("red", ""), f.tenant("blue", "")
	at := f.at(0, red).call("GET", "/v1/tenants/red", nil).want(200).index()
	f.members[0].api.LimitWaiting(3, 2)
	path := "/v1/tenants/red?consistency=stale"
	first := f.at(0, red).waits(0, 1, path, at)
	second := f.at(0, red).waits(0, 2, path, at)
	full := fmt.Sprintf("?consistency=stale&index=%d", at)
	var another client.TokenCreated // is no way around it
	f.op().call("POST", "/v1/tenants/red/tokens", client.TokenCreate{}).want(201).into(&another)
	f.at(0, another.Secret).call("GET", "/v1/tenants/red"+full, nil).want(429)
	if got := f.at(0, red).call("GET", "/v1/tenants/red"+full, nil).want(429); got.header.Get("Retry-After") == "" || !strings.Contains(got.Detail, "of this caller") {
		t.Errorf("got %s", got.body)
	}
	third := f.at(0, blue).waits(0, 3, "/v1/tenants/blue?consistency=stale", at)
	if got := f.op().call("GET", "/v1/tenants"+full, nil).want(429); strings.Contains(got.Detail, "of this caller") {
		t.Errorf("got %s", got.body)
	}
	f.op().call("GET", "/v1/tenants", nil).want(200) // which does not wait
	f.rename("red", "Red")
	f.rename("blue", "Blue")
	for _, got := range []<-chan answer{first, second, third} {
		arrives(t, "the change", got).want(200)
	}
	await(t, "nothing waits", func() bool { return f.members[0].api.Waiting() == 0 })
}

func TestAWaitThatCannotBeIsRefused(t *testing.T) {
	f := open(t, 1)
	for path, field := range map[string]string{
		"/v1/tenants?index=x":                   "query.index",
		"/v1/tenants?index=-1":                  "query.index",
		"/v1/tenants?wait=1s":                   "query.index",
		"/v1/tenants?index=1&wait=6m":           "query.wait",
		"/v1/tenants?index=1&wait=0s":           "query.wait",
		"/v1/tenants?index=1&wait=long":         "query.wait",
		"/v1/whoami?index=1":                    "query.index",
		"/v1/cluster?index=1":                   "query.index",
		"/v1/tenants?index=1&wait=1s&unknown=1": "query.unknown",
	} {
		if got := f.op().call("GET", path, nil).want(http.StatusUnprocessableEntity); got.Field != field {
			t.Errorf("%s: field %q, want %q: %s", path, got.Field, field, got.body)
		}
	}
}

func TestReadsOfTheStateCanWait(t *testing.T) {
	_, d := spec(t)
	cannot := []string{"audit-export", "audit-key", "backup-status", "cert-budget", "cluster-checks", "cluster-members", "dns-checks", "dns-zone", "whoami", "snapshot-save"}
	for path, methods := range d.Paths {
		op, ok := methods["get"]
		if !ok {
			continue
		}
		has := func(name string) bool {
			return slices.ContainsFunc(op.Parameters, func(p parameter) bool { return p.In == "query" && p.Name == name })
		}
		if has("index") != has("consistency") && !slices.Contains(cannot, op.ID) || has("wait") != has("index") {
			t.Errorf("%s %s: index is described: %t, wait: %t", op.ID, path, has("index"), has("wait"))
		}
	}
	f := open(t, 1)
	f.tenant("red", "")
	for _, path := range []string{"/v1/tenants", "/v1/nodes", "/v1/groups", "/v1/users", "/v1/roles", "/v1/access", "/v1/approvals", "/v1/drills", "/v1/regions", "/v1/audit", "/v1/tokens", "/v1/cluster/incarnations", "/v1/tenants/red/hosts", "/v1/tenants/red/rules"} {
		if got := f.op().call("GET", path+"?index=0&wait=1s", nil).want(200); got.index() == 0 {
			t.Errorf("%s: index 0", path)
		}
	}
}
