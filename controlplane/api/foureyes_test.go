package api_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/edgefleet/edgefleet/controlplane/client"
	"github.com/edgefleet/edgefleet/controlplane/command"
	"github.com/edgefleet/edgefleet/fleet"
)

// fourEyes is a fixture with two administrators, who have to agree.
func fourEyes(t *testing.T) (f *fixture, alice, bob string) {
	t.Helper()
	f = open(t, 2)
	alice, bob = f.person("alice", "", "administrator"), f.person("bob", "", "administrator")
	f.op().call("PATCH", "/v1/access", map[string]any{"four_eyes": true}).want(200)
	return f, alice, bob
}

func (f *fixture) held(a answer) fleet.Approval {
	f.t.Helper()
	var ap fleet.Approval
	a.want(202).into(&ap)
	if ap.State != fleet.ApprovalPending || ap.ID == "" {
		f.t.Errorf("held as %+v", ap)
	}
	return ap
}

func TestTheRiskyActs(t *testing.T) {
	raw, _ := spec(t)
	want := []string{"access-update", "cluster-member-remove", "kek-rotate", "operator-role-create", "operator-user-create", "operator-user-enable", "operator-user-update", "snapshot-restore"}
	var got []string
	_, d := spec(t)
	for _, methods := range d.Paths {
		for _, o := range methods {
			if o.FourEyes {
				got = append(got, o.ID)
				if _, ok := o.Responses["202"]; !ok {
					t.Errorf("%s does not say that it may wait", o.ID)
				}
			}
		}
	}
	slices.Sort(got)
	if diff := cmp.Diff(want, got); diff != "" || len(raw) == 0 {
		t.Error(diff)
	}
}

func TestARiskyActNeedsAnotherPerson(t *testing.T) {
	f, alice, bob := fourEyes(t)
	f.propose(command.MemberPut{Member: fleet.Member{ID: "m9", API: "192.0.2.9:1"}})
	before := len(f.audit())
	ap := f.held(f.at(1, alice).with("Edgefleet-Reason", "it burnt").call("DELETE", "/v1/cluster/members/m9", nil))
	if _, there := f.members[0].state.Read().Member("m9"); !there {
		t.Fatal("it was done at once")
	}
	path := "/v1/approvals/" + string(ap.ID)
	var second client.TokenCreated
	f.at(0, alice).call("POST", "/v1/tokens", client.TokenCreate{User: "alice"}).want(201).into(&second)
	var bobs client.TokenCreated // which alice knows: she made it
	f.at(0, alice).call("POST", "/v1/tokens", client.TokenCreate{User: "bob"}).want(201).into(&bobs)
	var rotated client.TokenCreated
	f.at(0, bobs.Secret).call("POST", "/v1/whoami/rotate", client.TokenRotate{}).want(201).into(&rotated)
	analyst := f.person("ann", "", "analyst")
	for name, token := range map[string]string{
		"herself": alice, "herself by another token": second.Secret, "another's token that she made": rotated.Secret,
		"a service token": f.operator, "who may not approve": analyst,
	} {
		if got := f.at(0, token).call("POST", path+"/approve", nil); got.status != 403 {
			t.Errorf("approved by %s: %d %s", name, got.status, got.body)
		}
	}
	var done fleet.Approval
	f.at(1, bob).call("POST", path+"/approve", nil).want(200).into(&done)
	if _, there := f.members[0].state.Read().Member("m9"); there || done.State != fleet.ApprovalExecuted || done.Approver != "bob" {
		t.Errorf("approved, and it is %+v", done)
	}
	f.at(0, bob).call("POST", path+"/approve", nil).want(409)
	f.at(0, bob).call("POST", path+"/deny", nil).want(409)
	var removed []fleet.AuditEntry
	for _, e := range f.audit()[before:] {
		if e.Operation == "member_retire" {
			removed = append(removed, e)
		}
	}
	if len(removed) != 1 || removed[0].User != "alice" || removed[0].ApprovedBy != "bob" || removed[0].Reason != "it burnt" {
		t.Errorf("the audit log says %+v", removed)
	}
}

func TestWhatIsRiskyAndWhatIsNot(t *testing.T) {
	f, alice, bob := fourEyes(t)
	a := f.at(0, alice)
	f.held(a.call("PATCH", "/v1/access", map[string]any{"four_eyes": false}))
	f.held(a.call("POST", "/v1/users", client.UserCreate{ID: "eve", Roles: []fleet.RoleName{"administrator"}}))
	f.held(a.call("POST", "/v1/roles", client.RoleCreate{Name: "r", Permissions: []fleet.Permission{fleet.PermApprovalsDecide}}))
	a.call("POST", "/v1/users", client.UserCreate{ID: "carl", Roles: []fleet.RoleName{"analyst"}}).want(201)
	promote := f.held(a.call("PATCH", "/v1/users/carl", client.UserUpdate{Roles: &[]fleet.RoleName{"administrator"}}))
	a.call("PATCH", "/v1/users/carl", map[string]any{"name": "Carl"}).want(200)
	a.call("POST", "/v1/users", `{"id":"x"`).want(400) // what is no request waits for nobody
	// Somebody who left is out at once, and does not come back alone.
	a.call("POST", "/v1/users/bob/disable", nil).want(200)
	f.at(0, bob).call("GET", "/v1/whoami", nil).want(401)
	f.held(a.call("POST", "/v1/users/bob/enable", nil))
	a.call("POST", "/v1/approvals/"+string(promote.ID)+"/deny", nil).want(200) // her own: taken back
	// Programs ask for nothing risky, nor does a token that somebody else knows.
	f.op().call("PATCH", "/v1/access", map[string]any{"four_eyes": false}).want(403)
	var known client.TokenCreated
	f.op().call("POST", "/v1/tokens", client.TokenCreate{User: "alice"}).want(201).into(&known)
	f.at(0, known.Secret).call("PATCH", "/v1/access", map[string]any{"four_eyes": false}).want(403)
	var p client.Page[fleet.Approval]
	a.call("GET", "/v1/approvals", nil).want(200).into(&p)
	if len(p.Items) != 5 {
		t.Errorf("%d requests wait", len(p.Items))
	}
}

func TestAnApprovalThatFailsSaysWhy(t *testing.T) {
	f, alice, bob := fourEyes(t)
	ap := f.held(f.at(0, alice).call("DELETE", "/v1/cluster/members/m9", nil))
	var done fleet.Approval
	f.at(0, bob).call("POST", "/v1/approvals/"+string(ap.ID)+"/approve", nil).want(200).into(&done)
	if done.State != fleet.ApprovalFailed || !strings.Contains(done.Detail, "member m9 does not exist") {
		t.Errorf("got %+v", done)
	}
	// Nothing is carried out for who may not ask for it any more.
	for _, gone := range []func(){
		func() {
			f.at(0, bob).call("PATCH", "/v1/users/alice", client.UserUpdate{Roles: &[]fleet.RoleName{"analyst"}}).want(200)
		},
		func() { f.at(0, bob).call("POST", "/v1/users/alice/disable", nil).want(200) },
	} {
		f.propose(command.MemberPut{Member: fleet.Member{ID: "m9", API: "192.0.2.9:1"}})
		f.propose(command.UserPut{ID: "alice", Spec: fleet.UserSpec{Roles: []fleet.RoleName{"administrator"}}})
		ap := f.held(f.at(0, alice).call("DELETE", "/v1/cluster/members/m9", nil))
		gone()
		f.at(0, bob).call("POST", "/v1/approvals/"+string(ap.ID)+"/approve", nil).want(200).into(&done)
		if _, there := f.members[0].state.Read().Member("m9"); !there || done.State != fleet.ApprovalFailed {
			t.Errorf("got %+v", done)
		}
	}
	f.op().call("POST", "/v1/approvals/ap-x/approve", nil).want(404)
	f.op().call("GET", "/v1/approvals/ap-x", nil).want(404)
}

func TestARestoreIsApprovedByItsDigestAndCarriedOutOnce(t *testing.T) {
	f, alice, bob := fourEyes(t)
	f.op().call("POST", "/v1/tenants", client.TenantCreate{ID: "acme"}).want(201)
	file, _ := f.op().save()
	f.op().call("POST", "/v1/tenants", client.TenantCreate{ID: "late"}).want(201)
	if status, body := f.op().restore(bytes.NewReader(file), digestOf(file), f.statement(2)); status != 403 {
		t.Fatalf("a service token: %d %s", status, body)
	}
	ask := func() fleet.Approval {
		t.Helper()
		var ap fleet.Approval
		status, body := f.at(1, alice).restore(bytes.NewReader(file), digestOf(file), f.statement(2))
		if err := json.Unmarshal(body, &ap); status != 202 || err != nil || ap.State != fleet.ApprovalPending {
			t.Fatalf("%d %s", status, body)
		}
		return ap
	}
	ap := ask()
	if sum := sha256.Sum256(file); !strings.Contains(ap.Body, hex.EncodeToString(sum[:])) {
		t.Errorf("who approves does not see what: %s", ap.Body)
	}
	if again := ask(); again.ID != ap.ID {
		t.Error("the same request waits twice")
	}
	var done fleet.Approval
	f.at(0, bob).call("POST", "/v1/approvals/"+string(ap.ID)+"/approve", nil).want(200).into(&done)
	if done.State != fleet.ApprovalApproved {
		t.Fatalf("%+v", done)
	}
	f.op().call("GET", "/v1/tenants/late", nil).want(200) // nothing happens without the bytes
	other, _ := f.op().save()
	if status, body := f.at(0, alice).restore(bytes.NewReader(other), digestOf(other), f.statement(2)); status != 202 {
		t.Errorf("other bytes: %d %s", status, body)
	}
	if status, body := f.at(0, bob).restore(bytes.NewReader(file), digestOf(file), f.statement(2)); status != 202 {
		t.Errorf("another person: %d %s", status, body)
	}
	before := len(f.audit())
	if status, body := f.at(1, alice).restore(bytes.NewReader(file), digestOf(file), f.statement(2)); status != 201 {
		t.Fatalf("%d %s", status, body)
	}
	f.op().call("GET", "/v1/tenants/late", nil).want(404)
	f.op().call("GET", "/v1/approvals/"+string(ap.ID), nil).want(200).into(&done)
	if done.State != fleet.ApprovalExecuted {
		t.Errorf("carried out, and it is %+v", done)
	}
	last := f.audit()[before:]
	if len(last) == 0 || last[len(last)-1].User != "alice" || last[len(last)-1].ApprovedBy != "bob" {
		t.Errorf("the audit log says %+v", last)
	}
	// Once: the next restore of the same bytes needs another approval.
	if status, body := f.at(0, alice).restore(bytes.NewReader(file), digestOf(file), f.statement(3)); status != 202 {
		t.Errorf("again: %d %s", status, body)
	}
}

func TestNobodyIsTwoPeople(t *testing.T) {
	f, alice, bob := fourEyes(t)
	rotate := func(token string) string {
		var own client.TokenCreated
		f.at(0, token).call("POST", "/v1/whoami/rotate", client.TokenRotate{}).want(201).into(&own)
		return own.Secret
	}
	// Alice asks for an administrator, whom bob approves, and is the first to use their token.
	puppet := func(name string, by string) string {
		t.Helper()
		ap := f.held(f.at(0, alice).call("POST", "/v1/users", client.UserCreate{ID: name, Roles: []fleet.RoleName{"administrator"}}))
		f.at(0, bob).call("POST", "/v1/approvals/"+string(ap.ID)+"/approve", nil).want(200)
		var first client.TokenCreated
		f.at(0, by).call("POST", "/v1/tokens", client.TokenCreate{User: name}).want(201).into(&first)
		return rotate(first.Secret)
	}
	eve := puppet("eve", alice)
	mallory := puppet("mallory", eve)
	mia := puppet("mia", alice)
	zoe := puppet("zoe", bob)
	n := 0
	for name, test := range map[string]struct {
		asks, approves string
		status         int
	}{
		"who was introduced by who asks":           {alice, eve, 403},
		"who introduced who asks":                  {eve, alice, 403},
		"by way of a third":                        {alice, mallory, 403},
		"both were introduced by the same":         {mallory, mia, 403},
		"introduced by another":                    {eve, zoe, 200},
		"neither was introduced while it mattered": {alice, bob, 200},
	} {
		n++
		id := fleet.MemberID(fmt.Sprint("x", n))
		f.propose(command.MemberPut{Member: fleet.Member{ID: id, API: "192.0.2.9:1"}})
		ap := f.held(f.at(0, test.asks).call("DELETE", "/v1/cluster/members/"+string(id), nil))
		if got := f.at(0, test.approves).call("POST", "/v1/approvals/"+string(ap.ID)+"/approve", nil); got.status != test.status {
			t.Errorf("%s: got %d %s, want %d", name, got.status, got.body, test.status)
		}
		if _, there := f.members[0].state.Read().Member(id); there != (test.status == 403) {
			t.Errorf("%s: the member is there: %v", name, there)
		}
	}
}
