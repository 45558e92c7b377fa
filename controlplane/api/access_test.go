package api_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/edgefleet/edgefleet/controlplane/client"
	"github.com/edgefleet/edgefleet/controlplane/command"
	"github.com/edgefleet/edgefleet/fleet"
)

// scopePath is where the objects of a scope are.
func scopePath(tenant fleet.TenantID, rest string) string {
	if tenant == "" {
		return "/v1/" + rest
	}
	return "/v1/tenants/" + string(tenant) + "/" + rest
}

// person makes a user with a token that only they know.
func (f *fixture) person(name string, tenant fleet.TenantID, roles ...fleet.RoleName) (token string) {
	f.t.Helper()
	f.op().call("POST", scopePath(tenant, "users"), client.UserCreate{ID: name, Roles: roles}).want(201)
	var first, own client.TokenCreated
	f.op().call("POST", scopePath(tenant, "tokens"), client.TokenCreate{User: name}).want(201).into(&first)
	f.at(0, first.Secret).call("POST", "/v1/whoami/rotate", client.TokenRotate{}).want(201).into(&own)
	f.at(0, first.Secret).call("GET", "/v1/whoami", nil).want(401) // it had its place taken
	return own.Secret
}

// Every operation is called by every role, of the vendor, of the tenant and of another tenant: what happens is what the
// declared scope, permission and duty say.
func TestEveryRoleOnEveryOperation(t *testing.T) {
	f := open(t, 1)
	f.tenant("red", fleet.SecurityEdge)
	f.tenant("blue", fleet.SecurityEdge)
	_, d := spec(t)
	calls := 0
	for _, tenant := range []fleet.TenantID{"", "red", "blue"} {
		for _, role := range fleet.BuiltinRoles() {
			token := f.person(strings.ReplaceAll(string(role), "_", "-"), tenant, role)
			builtin, _ := fleet.BuiltinPermissions(role)
			may, party := builtin.InScope(tenant), fleet.Vendor
			if tenant != "" {
				party = fleet.Client
			}
			a := f.at(0, token).with("If-Match", `"999999"`) // nothing is at that revision
			for path, methods := range d.Paths {
				for method, o := range methods {
					if o.ID == "event-tail" { // which does not end; see the tests of tails
						continue
					}
					want := 200
					switch {
					case o.Scope == "nothing":
						continue
					case strings.Contains(o.Scope, "certificate"), o.Scope == "an operator token" && tenant != "":
						want = 403
					case strings.Contains(path, "{tenant}") && tenant == "blue" && o.Scope != "an operator token":
						want = 404
					case !may.Has(fleet.Permission(o.Permission)), fleet.Authorize(fleet.DutyID(o.Duty), fleet.SecurityEdge, party) != nil:
						want = 403
					}
					var body any
					if o.RequestBody != nil {
						body = "{" // nothing is changed: who may call gets to hear that it is no JSON
					}
					got := a.call(strings.ToUpper(method), filled(path), body)
					calls++
					if want == 403 && got.status != 403 || want == 404 && got.status != 404 || want == 200 && (got.status == 401 || got.status == 403) {
						t.Errorf("%s of %q: %s: got %d %s, want %d", role, tenant, o.ID, got.status, got.body, want)
					}
				}
			}
		}
	}
	if calls < 500 {
		t.Errorf("only %d calls", calls)
	}
}

func filled(path string) string {
	path = strings.NewReplacer("{tenant}", "red", "{host}", "zz.example.com", "{digest}", "sha256:"+strings.Repeat("0", 64)).Replace(path)
	for {
		from, rest, ok := strings.Cut(path, "{")
		if !ok {
			return path
		}
		_, rest, _ = strings.Cut(rest, "}")
		path = from + "zz" + rest
	}
}

// The important ones again, written by hand.
func TestWhatRolesMayDo(t *testing.T) {
	f := open(t, 1)
	f.tenant("red", "")
	tokens := map[string]string{}
	for _, tenant := range []fleet.TenantID{"", "red"} {
		for _, role := range fleet.BuiltinRoles() {
			tokens[string(role)+"@"+string(tenant)] = f.person(strings.ReplaceAll(string(role), "_", "-"), tenant, role)
		}
	}
	host := `{"name":"%s.example.com","origins":[{"url":"https://203.0.113.9"}]}`
	for i, test := range []struct {
		who, method, path, body string
		status                  int
	}{
		{"administrator@", "POST", "/v1/tenants", `{"id":"t%d"}`, 201},
		{"analyst@", "POST", "/v1/tenants", `{"id":"t%d"}`, 403},
		{"administrator@red", "POST", "/v1/tenants", `{"id":"t%d"}`, 403},
		{"administrator@red", "POST", "/v1/tenants/red/hosts", host, 201},
		{"analyst@red", "POST", "/v1/tenants/red/hosts", host, 201},
		{"analyst@", "POST", "/v1/tenants/red/hosts", host, 201},
		{"read_only@red", "POST", "/v1/tenants/red/hosts", host, 403},
		{"api_developer@red", "POST", "/v1/tenants/red/hosts", host, 403},
		{"api_developer@red", "GET", "/v1/tenants/red/hosts", "", 200},
		{"api_developer@red", "GET", "/v1/tenants/red/events", "", 403},
		{"read_only@red", "GET", "/v1/tenants/red/events", "", 200},
		{"deploy@red", "GET", "/v1/tenants/red/events", "", 403},
		{"deploy@", "POST", "/v1/join-tokens", `{"kind":"node"}`, 201},
		{"deploy@", "POST", "/v1/join-tokens", `{"kind":"member"}`, 403},
		{"administrator@", "POST", "/v1/join-tokens", `{"kind":"member"}`, 201},
		{"deploy@red", "POST", "/v1/join-tokens", `{"kind":"node"}`, 403},
		{"analyst@", "POST", "/v1/tokens", `{}`, 403},
		{"analyst@", "DELETE", "/v1/users/deploy", "", 403},
		{"analyst@", "GET", "/v1/audit", "", 200},
		{"deploy@", "GET", "/v1/audit", "", 403},
		{"administrator@red", "POST", "/v1/tenants/red/users/deploy/disable", "", 200},
		{"administrator@", "POST", "/v1/tenants/red/users/analyst/disable", "", 403}, // the client removes its people
		{"read_only@", "GET", "/v1/whoami", "", 200},
	} {
		var body any
		if test.body != "" {
			body = test.body
			if strings.Contains(test.body, "%") {
				body = strings.NewReplacer("%s", fmt.Sprint("h", i), "%d", fmt.Sprint(i)).Replace(test.body)
			}
		}
		if got := f.at(0, tokens[test.who]).call(test.method, test.path, body); got.status != test.status {
			t.Errorf("%s: %s %s: got %d %s, want %d", test.who, test.method, test.path, got.status, got.body, test.status)
		}
	}
}

func TestNobodyGivesWhatTheyDoNotHave(t *testing.T) {
	f := open(t, 1)
	f.tenant("red", "")
	var manager client.TokenCreated
	// May manage people and tokens, but not hosts.
	limited := []fleet.Permission{fleet.PermUsersRead, fleet.PermUsersWrite, fleet.PermTokensRead, fleet.PermTokensWrite}
	f.op().call("POST", "/v1/tenants/red/roles", client.RoleCreate{Name: "manager", Permissions: limited}).want(201)
	f.op().call("POST", "/v1/tenants/red/users", client.UserCreate{ID: "mia", Roles: []fleet.RoleName{"manager"}}).want(201)
	f.op().call("POST", "/v1/tenants/red/users", client.UserCreate{ID: "adam", Roles: []fleet.RoleName{"administrator"}}).want(201)
	var adams client.TokenCreated
	f.op().call("POST", "/v1/tenants/red/tokens", client.TokenCreate{User: "adam"}).want(201).into(&adams)
	f.op().call("POST", "/v1/tenants/red/tokens", client.TokenCreate{User: "mia"}).want(201).into(&manager)
	mia := f.at(0, manager.Secret)
	for name, got := range map[string]answer{
		"a user with a stronger role":       mia.call("POST", "/v1/tenants/red/users", client.UserCreate{ID: "x", Roles: []fleet.RoleName{"analyst"}}),
		"herself a stronger role":           mia.call("PATCH", "/v1/tenants/red/users/mia", client.UserUpdate{Roles: &[]fleet.RoleName{"administrator"}}),
		"a role with more":                  mia.call("POST", "/v1/tenants/red/roles", client.RoleCreate{Name: "r", Permissions: []fleet.Permission{fleet.PermHostsWrite}}),
		"a service token that may all":      mia.call("POST", "/v1/tenants/red/tokens", client.TokenCreate{}),
		"a service token that may more":     mia.call("POST", "/v1/tenants/red/tokens", client.TokenCreate{Permissions: []fleet.Permission{fleet.PermHostsRead}}),
		"a token of an administrator":       mia.call("POST", "/v1/tenants/red/tokens", client.TokenCreate{User: "adam"}),
		"the end of an administrator":       mia.call("DELETE", "/v1/tenants/red/users/adam", nil),
		"the disabling of an administrator": mia.call("POST", "/v1/tenants/red/users/adam/disable", nil),
		"the end of a stronger token":       mia.call("DELETE", "/v1/tenants/red/tokens/"+string(adams.ID), nil),
		"a user of the vendor":              mia.call("POST", "/v1/users", client.UserCreate{ID: "x", Roles: []fleet.RoleName{"manager"}}),
	} {
		if got.status != 403 {
			t.Errorf("%s: got %d %s, want 403", name, got.status, got.body)
		}
	}
	mia.call("POST", "/v1/tenants/red/users", client.UserCreate{ID: "max", Roles: []fleet.RoleName{"manager"}}).want(201)

	// A narrowed token does not make a wider one, nor does its rotation.
	var narrow, rotated client.TokenCreated
	mia.call("POST", "/v1/tenants/red/tokens", client.TokenCreate{User: "mia", Permissions: []fleet.Permission{fleet.PermTokensWrite, fleet.PermHostsWrite}}).want(201).into(&narrow)
	var who client.Whoami
	f.at(0, narrow.Secret).call("GET", "/v1/whoami", nil).want(200).into(&who)
	if diff := cmp.Diff([]fleet.Permission{fleet.PermTokensWrite}, who.Permissions); diff != "" {
		t.Error(diff) // hosts:write is not mia's to narrow to
	}
	f.at(0, narrow.Secret).call("POST", "/v1/tenants/red/tokens", client.TokenCreate{User: "mia"}).want(403)
	f.at(0, narrow.Secret).call("POST", "/v1/whoami/rotate", client.TokenRotate{}).want(201).into(&rotated)
	f.at(0, rotated.Secret).call("GET", "/v1/tenants/red/users", nil).want(403)
	// A role that is taken away takes its permissions from tokens that exist.
	f.op().call("PATCH", "/v1/tenants/red/users/mia", client.UserUpdate{Roles: &[]fleet.RoleName{"read_only"}}).want(200)
	f.at(0, rotated.Secret).call("POST", "/v1/tenants/red/tokens", client.TokenCreate{User: "mia"}).want(403)
}

func TestLivesOfTokens(t *testing.T) {
	f := open(t, 1)
	f.op().call("POST", "/v1/users", client.UserCreate{ID: "alice", Roles: []fleet.RoleName{"analyst"}}).want(201)
	for _, test := range []struct {
		in     client.TokenCreate
		status int
		life   time.Duration
	}{
		{client.TokenCreate{User: "alice"}, 201, fleet.DefaultTokenLife},
		{client.TokenCreate{User: "alice", TTL: "1h"}, 201, time.Hour},
		{client.TokenCreate{User: "alice", TTL: "8761h"}, 422, 0},
		{client.TokenCreate{User: "alice", TTL: "0s"}, 422, 0},
		{client.TokenCreate{User: "alice", TTL: "-1h"}, 422, 0},
		{client.TokenCreate{User: "alice", TTL: "x"}, 422, 0},
		{client.TokenCreate{User: "nobody"}, 404, 0},
		{client.TokenCreate{Permissions: []fleet.Permission{"root"}}, 422, 0},
		{client.TokenCreate{}, 201, 0},
		{client.TokenCreate{TTL: "87600h"}, 201, 87600 * time.Hour},
	} {
		var made client.TokenCreated
		if got := f.op().call("POST", "/v1/tokens", test.in); got.status != test.status {
			t.Errorf("%+v: %d %s", test.in, got.status, got.body)
		} else if test.status == 201 {
			got.into(&made)
			if got := made.ExpiresAt.Sub(made.CreatedAt); test.life == 0 != made.ExpiresAt.IsZero() || test.life != 0 && (got-test.life).Abs() > time.Minute {
				t.Errorf("%+v: it lives %s", test.in, got)
			}
		}
	}
	f.op().call("PATCH", "/v1/access", map[string]any{"max_token_days": 1}).want(200)
	f.op().call("POST", "/v1/tokens", client.TokenCreate{User: "alice", TTL: "25h"}).want(422)
	var made client.TokenCreated
	f.op().call("POST", "/v1/tokens", client.TokenCreate{User: "alice"}).want(201).into(&made)
	if made.ExpiresAt.Sub(made.CreatedAt) > 24*time.Hour {
		t.Errorf("it ends %s", made.ExpiresAt)
	}
}

// Whatever is wrong with a token, the answer is the same.
func TestAllTokensThatAreNotAcceptedAreAnsweredAlike(t *testing.T) {
	f := open(t, 2)
	alice := f.person("alice", "", "analyst")
	bob := f.person("bob", "", "analyst")
	gone := f.person("gone", "", "analyst")
	f.op().call("POST", "/v1/users/bob/disable", nil).want(200)
	f.op().call("DELETE", "/v1/users/gone", nil).want(200)
	ended := fleet.Token{ID: "tok-ended", Role: fleet.RoleOperator, ExpiresAt: time.Now().Add(-time.Minute)}
	secret := strings.Repeat("s", 43)
	f.propose(command.TokenIssue{Token: fleet.TokenRecord{Token: ended, Hash: hash(secret)}})
	id := strings.Split(alice, ".")[1]
	for i := range f.members {
		first := ""
		for name, token := range map[string]string{
			"unknown": fleet.FormatToken("tok-x", secret), "a wrong secret": fleet.FormatToken(fleet.TokenID(id), secret),
			"mistyped": alice[:len(alice)-1] + "x", "ended": fleet.FormatToken("tok-ended", secret), "disabled": bob, "deleted": gone, "garbage": "x",
		} {
			got := f.at(i, token).call("GET", "/v1/whoami", nil).want(401)
			got.RequestID, got.TraceID = "", ""
			seen := fmt.Sprintf("%+v %s", got.Problem, got.header.Get("WWW-Authenticate"))
			if first == "" {
				first = seen
			}
			if seen != first {
				t.Errorf("m%d: %s: got %s, others get %s", i+1, name, seen, first)
			}
		}
		f.at(i, alice).call("GET", "/v1/whoami", nil).want(200)
	}
}

func TestAFollowerThatIsBehindDoesNotCountAFreshTokenAsAFailure(t *testing.T) {
	f := open(t, 2)
	f.lag(1, true)
	red := f.tenant("red", "")
	for range 30 { // more than an address may fail
		f.at(1, red).call("GET", "/v1/tenants/red", nil).want(200)
	}
	for range 20 {
		f.at(1, fleet.FormatToken("tok-x", strings.Repeat("s", 43))).call("GET", "/v1/whoami", nil).want(401)
	}
	for i := range f.members { // the leader counted it, and so did the follower that passed it on
		if got := f.at(i, red).call("GET", "/v1/tenants/red", nil).want(429); got.header.Get("Retry-After") == "" {
			t.Errorf("m%d: %v", i+1, got.header)
		}
	}
}

func TestDisablingAUserEndsItsTokensOnEveryMemberAtOnce(t *testing.T) {
	f := open(t, 3)
	f.tenant("red", "")
	for i := range f.members { // the streams end by themselves, not because they look now and then
		f.members[i].api.HurryTails(time.Hour, time.Hour)
	}
	carol := f.person("carol", "red", "analyst")
	adam := f.person("adam", "red", "administrator")
	var streams []<-chan string
	for i := range f.members {
		lines, _ := f.at(i, carol).stream("/v1/tenants/red/events:tail")
		next(t, lines)
		streams = append(streams, lines)
	}
	var ended client.UserEnded
	f.at(1, adam).call("POST", "/v1/tenants/red/users/carol/disable", nil).want(200).into(&ended)
	if diff := cmp.Diff(client.Settled{Confirmed: []fleet.MemberID{"m1", "m2", "m3"}, Unconfirmed: []fleet.MemberID{}}, ended.Settled); diff != "" {
		t.Error(diff)
	}
	for i := range f.members {
		for _, path := range []string{"/v1/whoami", "/v1/whoami?consistency=stale", "/v1/tenants/red/events"} {
			f.at(i, carol).call("GET", path, nil).want(401)
		}
		ends(t, streams[i])
	}
	// A member that is behind is named, and refuses the token where it asks the leader.
	f.at(0, adam).call("POST", "/v1/tenants/red/users/carol/enable", nil).want(200)
	f.at(2, carol).call("GET", "/v1/whoami?consistency=stale", nil).want(200)
	f.members[0].api.HurrySettling(200 * time.Millisecond)
	f.lag(2, true)
	f.at(0, adam).call("DELETE", "/v1/tenants/red/users/carol", nil).want(200).into(&ended.Settled)
	if diff := cmp.Diff([]fleet.MemberID{"m3"}, ended.Unconfirmed); diff != "" {
		t.Error(diff)
	}
	f.at(2, carol).call("GET", "/v1/whoami", nil).want(401)
	f.lag(2, false)
	f.at(2, carol).call("GET", "/v1/whoami?consistency=stale", nil).want(401)
}

func TestTheUseOfTokensIsWrittenDownTogether(t *testing.T) {
	f := open(t, 2)
	alice := f.person("alice", "", "analyst")
	idle := func(who string) int {
		var p client.Page[fleet.User]
		f.op().call("GET", "/v1/users?idle="+who, nil).want(200).into(&p)
		return len(p.Items)
	}
	if idle("1ns") != 1 || idle("1h") != 0 {
		t.Error("a user that was made a moment ago is idle for a nanosecond, not for an hour")
	}
	f.op().call("GET", "/v1/users?idle=soon", nil).want(422)
	f.at(1, alice).call("GET", "/v1/whoami?consistency=stale", nil).want(200) // m2 alone saw it
	before := len(f.audit())
	entries := f.entries()
	must(t, f.members[1].api.WriteUses(t.Context()))
	must(t, f.members[1].api.WriteUses(t.Context())) // nothing is new
	if got := f.entries() - entries; got != 1 || len(f.audit()) != before {
		t.Errorf("%d log entries, %d audit entries", got, len(f.audit())-before)
	}
	var u fleet.User
	f.op().call("GET", "/v1/users/alice", nil).want(200).into(&u)
	tok, _ := f.members[0].state.Read().Token(fleet.TokenID(strings.Split(alice, ".")[1]))
	if u.LastSeenAt.IsZero() || !u.LastSeenAt.Equal(tok.LastUsedAt) || u.Revision == 0 {
		t.Errorf("last seen %s, last used %s", u.LastSeenAt, tok.LastUsedAt)
	}
	f.at(0, alice).call("GET", "/v1/whoami", nil).want(200)
	must(t, f.members[0].api.WriteUses(t.Context())) // the leader's own: too soon after for another entry but for the operator's
	if got, _ := f.members[0].state.Read().Token(tok.ID); !got.LastUsedAt.Equal(tok.LastUsedAt) {
		t.Error("each use is written down")
	}
	carol := f.person("carol", "", "analyst") // nobody wrote down yet that it was used
	f.lead("")
	f.at(1, carol).call("GET", "/v1/whoami?consistency=stale", nil).want(200)
	if err := f.members[1].api.WriteUses(t.Context()); err == nil {
		t.Error("without a leader it was written down")
	}
}

func TestUsersOfTenantsAreIslands(t *testing.T) {
	f := open(t, 1)
	red, blue := f.tenant("red", ""), f.tenant("blue", "")
	for _, token := range []string{red, blue} { // the same name twice tells neither of the other
		tenant := map[string]string{red: "red", blue: "blue"}[token]
		f.at(0, token).call("POST", "/v1/tenants/"+tenant+"/users", client.UserCreate{ID: "alice", Roles: []fleet.RoleName{"analyst"}}).want(201)
	}
	f.at(0, red).call("POST", "/v1/tenants/red/roles", client.RoleCreate{Name: "r", Permissions: []fleet.Permission{"hosts:read"}}).want(201)
	f.at(0, blue).call("POST", "/v1/tenants/blue/users", client.UserCreate{ID: "bob", Roles: []fleet.RoleName{"r"}}).want(404)
	f.at(0, red).call("DELETE", "/v1/tenants/blue/users/alice", nil).want(404)
	f.at(0, red).call("GET", "/v1/tenants/red/users/alice@blue", nil).want(404)
	for _, id := range []string{"alice@blue", "a b", "", "Alice", strings.Repeat("a", 64)} {
		f.at(0, red).call("POST", "/v1/tenants/red/users", client.UserCreate{ID: id, Roles: []fleet.RoleName{}}).want(422)
	}
	var p client.Page[fleet.User]
	f.at(0, red).call("GET", "/v1/tenants/red/users", nil).want(200).into(&p)
	if len(p.Items) != 1 || p.Items[0].ID != "alice@red" {
		t.Errorf("red sees %+v", p.Items)
	}
	f.op().call("GET", "/v1/users", nil).want(200).into(&p)
	if len(p.Items) != 0 {
		t.Errorf("the vendor's users are %+v", p.Items)
	}
}

func TestAReasonIsKeptInTheAuditLog(t *testing.T) {
	f := open(t, 2)
	f.at(1, f.operator).with("Edgefleet-Reason", "ticket 7").call("POST", "/v1/users", client.UserCreate{ID: "alice", Roles: []fleet.RoleName{}}).want(201)
	entries := f.audit()
	if e := entries[len(entries)-1]; e.Reason != "ticket 7" {
		t.Errorf("got %+v", e)
	}
	f.op().with("Edgefleet-Reason", strings.Repeat("x", fleet.MaxCommentLength+1)).call(http.MethodPost, "/v1/users", client.UserCreate{ID: "bob"}).want(413)
}
