package fsm_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/edgefleet/edgefleet/controlplane/command"
	"github.com/edgefleet/edgefleet/controlplane/state"
	"github.com/edgefleet/edgefleet/fleet"
)

func user(id fleet.UserID, roles ...fleet.RoleName) command.UserPut {
	_, tenant := id.Split()
	return command.UserPut{Put: create, ID: id, Tenant: tenant, Spec: fleet.UserSpec{Roles: roles}}
}

func role(name fleet.RoleName, tenant fleet.TenantID, ps ...fleet.Permission) command.RolePut {
	return command.RolePut{Role: fleet.CustomRole{Key: fleet.RoleKey(name, tenant), Name: name, Tenant: tenant, Permissions: ps}}
}

// issue is a token of a user that madeBy made.
func issue(id fleet.TokenID, owner, madeBy fleet.UserID) command.TokenIssue {
	_, tenant := owner.Split()
	t := fleet.Token{ID: id, Role: fleet.RoleOperator, Tenant: tenant, Owner: owner, MadeBy: madeBy, ExpiresAt: noon.Add(time.Hour)}
	if tenant != "" {
		t.Role = fleet.RoleTenant
	}
	return command.TokenIssue{Token: fleet.TokenRecord{Token: t, Hash: secretHash}}
}

func rotate(old, id fleet.TokenID, owner fleet.UserID) command.TokenIssue {
	b := issue(id, owner, "")
	b.Replaces = old
	return b
}

func approval(id fleet.ApprovalID, by fleet.UserID) command.ApprovalPut {
	return command.ApprovalPut{Approval: fleet.Approval{
		ID: id, Operation: "cluster-member-remove", Method: "DELETE", Path: "/v1/cluster/members/m9", Requester: by, ExpiresAt: noon.Add(time.Hour),
	}}
}

func fourEyes(on bool) command.AccessPut {
	return command.AccessPut{Policy: fleet.AccessPolicy{FourEyes: on, MaxTokenDays: 365}}
}

func (d dice) access() command.Body {
	who := pick[fleet.UserID](d, "alice", "alice", "bob", "bob", "carol@acme", "dave@beta", "", "Bad")
	roles := pick(d, nil, []fleet.RoleName{fleet.RoleAdministrator}, []fleet.RoleName{fleet.RoleAdministrator}, []fleet.RoleName{fleet.RoleReadOnly, "custom"}, []fleet.RoleName{"nothing"})
	id := fleet.TokenID(fmt.Sprint("u", d.IntN(6)))
	switch d.IntN(11) {
	case 0, 1:
		return with(user(who, roles...), func(b *command.UserPut) { b.Put, b.Spec.Disabled = d.put(), d.IntN(4) == 0 })
	case 2:
		return command.UserDelete{ID: who, IfRevision: d.put().IfRevision}
	case 3:
		return role(pick[fleet.RoleName](d, "custom", "other", fleet.RoleAnalyst), d.tenant(), pick(d, fleet.PermHostsRead, fleet.PermClusterRead, "bad"))
	case 4:
		return command.RoleDelete{Key: fleet.RoleKey(pick[fleet.RoleName](d, "custom", "other"), d.tenant())}
	case 5:
		return issue(id, who, pick(d, who, "alice", ""))
	case 6:
		return with(rotate(fleet.TokenID(fmt.Sprint("u", d.IntN(6))), id, who), func(b *command.TokenIssue) {
			b.IntroducedBy = map[fleet.TokenID]fleet.UserID{"u1": "alice", "u2": "bob"}[id]
		})
	case 7:
		return command.TokensUsed{Uses: []command.TokenUse{{ID: id, At: noon.Add(time.Duration(d.IntN(100)) * time.Minute)}, {ID: d.token(), At: noon}}}
	case 8:
		return fourEyes(d.IntN(2) == 0)
	case 9:
		return approval(fleet.ApprovalID(fmt.Sprint("a", d.IntN(8))), who)
	}
	a := fleet.ApprovalID(fmt.Sprint("a", d.IntN(8)))
	return pick[command.Body](d, command.ApprovalDecide{ID: a, Approve: d.IntN(3) > 0, By: who}, command.ApprovalFinish{ID: a, Failed: d.IntN(2) == 0})
}

func TestUsersRolesAndTheirTokens(t *testing.T) {
	disabled := func(id fleet.UserID, roles ...fleet.RoleName) command.UserPut {
		return with(user(id, roles...), func(b *command.UserPut) { b.Create, b.Spec.Disabled = false, true })
	}
	alice := []command.Body{user("alice", fleet.RoleAdministrator)}
	carol := []command.Body{user("carol@acme", fleet.RoleAnalyst)}
	// From here on, only alice's own token is left to manage access with.
	onlyAlice := []command.Body{alice[0], issue("u1", "alice", "alice"), command.TokenDelete{ID: "op1"}}
	run(t, []testCase{
		{name: "a user is made", when: user("alice", fleet.RoleAdministrator), object: "user/alice"},
		{name: "a tenant's user is made", when: carol[0], object: "user/carol@acme", of: "acme"},
		{name: "a user is not made twice", given: alice, when: alice[0], refused: fleet.ErrConflict},
		{name: "a user of an unknown tenant is refused", when: user("carol@gamma"), refused: fleet.ErrNotFound},
		{name: "a user whose id is of another tenant is refused", when: with(user("carol@acme"), func(b *command.UserPut) { b.Tenant = "beta" }), refused: fleet.ErrInvalid},
		{name: "a user whose id hides the tenant is refused", when: with(user("carol@acme"), func(b *command.UserPut) { b.Tenant = "" }), refused: fleet.ErrInvalid},
		{name: "a user with an unknown role is refused", when: user("alice", "root"), refused: fleet.ErrNotFound, says: "root"},
		{name: "a user with a role of another scope is refused", given: []command.Body{role("r", "beta", fleet.PermHostsRead)}, when: user("carol@acme", "r"), refused: fleet.ErrNotFound, unsaid: "beta"},
		{name: "a user with a role twice is refused", when: user("alice", fleet.RoleAnalyst, fleet.RoleAnalyst), refused: fleet.ErrInvalid},
		{name: "a user with a bad e-mail address is refused", when: with(user("alice"), func(b *command.UserPut) { b.Spec.Email = "Alice <a@example.com>" }), refused: fleet.ErrInvalid},
		{name: "a user that changed meanwhile is not overwritten", given: alice, when: with(alice[0].(command.UserPut), func(b *command.UserPut) { b.Put = command.Put{IfRevision: 1} }), refused: fleet.ErrConflict}, //nolint:forcetypeassert // made above
		{name: "a user is deleted with the tokens", given: append(carol, issue("u1", "carol@acme", "")), when: command.UserDelete{ID: "carol@acme"}, object: "user/carol@acme", of: "acme", then: func(t *testing.T, v *state.View) {
			if _, there := v.Token("u1"); there {
				t.Error("the token is still there")
			}
			if _, there := v.Token("ta"); !there {
				t.Error("a token of nobody went along")
			}
		}},
		{name: "a tenant is deleted with its users and roles", given: []command.Body{carol[0], role("r", "acme", fleet.PermHostsRead), command.HostDelete{Name: "a.example.com", Tenant: "acme"}}, when: command.TenantDelete{ID: "acme"}, object: "tenant/acme", of: "acme", then: func(t *testing.T, v *state.View) {
			if len(v.UsersOf("acme"))+len(v.RolesOf("acme")) > 0 {
				t.Error("users or roles are left")
			}
		}},
		{name: "the last administrator is not disabled", given: onlyAlice, when: disabled("alice", fleet.RoleAdministrator), refused: fleet.ErrConflict, says: "last administrator"},
		{name: "the last administrator is not deleted", given: onlyAlice, when: command.UserDelete{ID: "alice"}, refused: fleet.ErrConflict},
		{name: "the last administrator stays one", given: onlyAlice, when: with(user("alice", fleet.RoleAnalyst), func(b *command.UserPut) { b.Create = false }), refused: fleet.ErrConflict},
		{name: "the last administrator's token stays", given: onlyAlice, when: command.TokenDelete{ID: "u1"}, refused: fleet.ErrConflict},
		{name: "an operator token that may not manage access is no other way in", given: append([]command.Body{with(operatorToken("op2"), func(b *command.TokenPut) { b.Token.Permissions = []fleet.Permission{fleet.PermHostsRead} })}, onlyAlice...), when: disabled("alice", fleet.RoleAdministrator), refused: fleet.ErrConflict},

		{name: "a role is made", when: role("r", "acme", fleet.PermHostsRead, fleet.PermRulesRead), object: "role/r@acme", of: "acme"},
		{name: "a role with the name of a built-in one is refused", when: role("administrator", "acme", fleet.PermHostsRead), refused: fleet.ErrConflict},
		{name: "a role without permissions is refused", when: role("r", ""), refused: fleet.ErrInvalid},
		{name: "a role with an unknown permission is refused", when: role("r", "", "hosts:*"), refused: fleet.ErrInvalid},
		{name: "a role with every token's permission is refused", when: role("r", "", fleet.PermSelf), refused: fleet.ErrInvalid},
		{name: "a tenant's role has nothing of the vendor's", when: role("r", "acme", fleet.PermClusterOperate), refused: fleet.ErrInvalid},
		{name: "a role that somebody has is not deleted", given: []command.Body{role("r", "", fleet.PermHostsRead), user("bob", "r")}, when: command.RoleDelete{Key: "r"}, refused: fleet.ErrConflict, says: "bob"},
		{name: "a built-in role is not deleted", when: command.RoleDelete{Key: "analyst"}, refused: fleet.ErrNotFound},

		{name: "a token of a person is made", given: carol, when: issue("u1", "carol@acme", "alice"), object: "token/u1", of: "acme"},
		{name: "a token of a person that does not end is refused", given: carol, when: with(issue("u1", "carol@acme", ""), func(b *command.TokenIssue) { b.Token.ExpiresAt = time.Time{} }), refused: fleet.ErrInvalid},
		{name: "a token of a disabled person is refused", given: append(carol, disabled("carol@acme")), when: issue("u1", "carol@acme", ""), refused: fleet.ErrConflict},
		{name: "a token of nobody known is refused", when: issue("u1", "eve", ""), refused: fleet.ErrNotFound},
		{name: "a tenant's person gets no operator token", given: carol, when: with(issue("u1", "carol@acme", ""), func(b *command.TokenIssue) { b.Token.Role, b.Token.Tenant = fleet.RoleOperator, "" }), refused: fleet.ErrInvalid},
		{name: "the vendor's person gets no tenant's token", given: alice, when: with(issue("u1", "alice", ""), func(b *command.TokenIssue) { b.Token.Role, b.Token.Tenant = fleet.RoleTenant, "acme" }), refused: fleet.ErrInvalid},
		{name: "somebody else's token is not rotated", given: append([]command.Body{user("bob"), issue("u1", "bob", "bob")}, alice...), when: rotate("u1", "u2", "alice"), refused: fleet.ErrNotFound},
		{name: "who made somebody's first token is kept when it becomes their own", given: append(alice, issue("u1", "alice", "bob")), when: with(rotate("u1", "u2", "alice"), func(b *command.TokenIssue) { b.IntroducedBy = "bob" }), object: "token/u2", then: func(t *testing.T, v *state.View) {
			if u, _ := v.User("alice"); u.IntroducedBy != "bob" || !u.Activated {
				t.Errorf("%+v", u)
			}
		}},
		{name: "a token is rotated once", given: append(alice, issue("u1", "alice", "bob"), rotate("u1", "u2", "alice")), when: rotate("u1", "u3", "alice"), refused: fleet.ErrNotFound},
		{name: "the use of tokens is no mutation", given: append(carol, issue("u1", "carol@acme", "")), when: command.TokensUsed{Uses: []command.TokenUse{{ID: "u1", At: noon.Add(time.Minute)}, {ID: "gone", At: noon}}}, entries: -1, then: func(t *testing.T, v *state.View) {
			tok, _ := v.Token("u1")
			u, _ := v.User("carol@acme")
			if !tok.LastUsedAt.Equal(noon.Add(time.Minute)) || !u.LastSeenAt.Equal(tok.LastUsedAt) {
				t.Error(tok.LastUsedAt, u.LastSeenAt)
			}
		}},
	})
}

func TestATokenIsItsOwnersOwnOnlyIfNobodyElseKnewIt(t *testing.T) {
	own := func(w *world, id fleet.TokenID) bool {
		tok, ok := w.state.Read().Token(id)
		if !ok {
			t.Fatalf("there is no token %s", id)
		}
		return tok.Own()
	}
	w := city(t).must(t, user("alice", fleet.RoleAdministrator), user("bob"), issue("b1", "bob", "alice"), issue("b2", "bob", "alice"))
	if own(w, "b1") {
		t.Error("a token that alice made is bob's own")
	}
	w.must(t, rotate("b1", "b3", "bob"))
	if !own(w, "b3") {
		t.Error("the first rotation did not make the token bob's own")
	}
	w.must(t, rotate("b2", "b4", "bob"))
	if own(w, "b4") {
		t.Error("a second token that alice made became bob's own")
	}
	w.must(t, rotate("b3", "b5", "bob"), issue("a1", "alice", "alice"), issue("a2", "alice", "bob"), rotate("a2", "a3", "alice"))
	if !own(w, "b5") || own(w, "a3") || !own(w, "a1") {
		t.Error(own(w, "b5"), own(w, "a3"), own(w, "a1"))
	}
}

// ask feeds a command as a person's token would.
func (w *world) ask(t *testing.T, by fleet.UserID, tok fleet.TokenID, b command.Body, change ...func(*command.Header)) error {
	t.Helper()
	h := header(w.now)
	h.User, h.Name = by, "token/"+string(tok)
	for _, c := range change {
		c(&h)
	}
	entry, err := command.Encode(h, b)
	if err != nil {
		t.Fatal(err)
	}
	if r := w.feed(t, entry); r.Err != nil {
		return r.Err
	}
	return nil
}

func TestNothingIsAppliedForSomebodyWhoWasDisabledMeanwhile(t *testing.T) {
	w := city(t).must(t, user("alice", fleet.RoleAdministrator), issue("u1", "alice", "alice"), user("bob"), issue("u2", "bob", "bob"))
	if err := w.ask(t, "alice", "u1", tenant("gamma")); err != nil {
		t.Fatal(err)
	}
	for name, refused := range map[string]func() error{
		"by another's token": func() error { return w.ask(t, "alice", "u2", tenant("delta")) },
		"by no token":        func() error { return w.ask(t, "alice", "u9", tenant("delta")) },
		"by nobody known":    func() error { return w.ask(t, "eve", "u1", tenant("delta")) },
		"after the token's end": func() error {
			return w.ask(t, "alice", "u1", tenant("delta"), func(h *command.Header) { h.Time = noon.Add(time.Hour) })
		},
		"after the user was disabled": func() error {
			w.must(t, with(user("alice", fleet.RoleAdministrator), func(b *command.UserPut) { b.Create, b.Spec.Disabled = false, true }))
			return w.ask(t, "alice", "u1", tenant("delta"))
		},
	} {
		if err := refused(); !errors.Is(err, fleet.ErrUnauthenticated) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, ok := w.state.Read().Tenant("delta"); ok {
		t.Error("it was applied all the same")
	}
}

func TestFourEyesNeedTwo(t *testing.T) {
	two := []command.Body{user("alice", fleet.RoleAdministrator), issue("u1", "alice", "alice"), user("bob", fleet.RoleAdministrator)}
	run(t, []testCase{
		{name: "nobody", when: fourEyes(true), refused: fleet.ErrConflict, says: "0 of the vendor's users"},
		{name: "one whose token is known to who made it", given: append(two, issue("u2", "bob", "alice")), when: fourEyes(true), refused: fleet.ErrConflict, says: "1 of"},
		{name: "two", given: append(two, issue("u2", "bob", "bob")), when: fourEyes(true), object: "access"},
		{name: "a life of tokens that is none", when: with(fourEyes(false), func(b *command.AccessPut) { b.Policy.MaxTokenDays = 0 }), refused: fleet.ErrInvalid},
		{name: "a policy that changed meanwhile", given: []command.Body{fourEyes(false)}, when: with(fourEyes(false), func(b *command.AccessPut) { b.IfRevision = 1 }), refused: fleet.ErrConflict},
	})
}

func TestAnApprovalCountsOnce(t *testing.T) {
	given := []command.Body{approval("a1", "alice")}
	approve := command.ApprovalDecide{ID: "a1", Approve: true, By: "bob"}
	run(t, []testCase{
		{name: "a request is stored", when: approval("a1", "alice"), object: "approval/a1"},
		{name: "a request of nobody is refused", when: approval("a1", ""), refused: fleet.ErrInvalid},
		{name: "a request is stored once", given: given, when: given[0], refused: fleet.ErrConflict},
		{name: "another person approves", given: given, when: approve, object: "approval/a1"},
		{name: "who asked does not approve", given: given, when: with(approve, func(b *command.ApprovalDecide) { b.By = "alice" }), refused: fleet.ErrDenied},
		{name: "nobody does not approve", given: given, when: with(approve, func(b *command.ApprovalDecide) { b.By = "" }), refused: fleet.ErrDenied},
		{name: "who asked takes it back", given: given, when: command.ApprovalDecide{ID: "a1", By: "alice"}, object: "approval/a1"},
		{name: "it is decided once", given: append(given, approve), when: approve, refused: fleet.ErrConflict},
		{name: "an unknown one is not decided", when: approve, refused: fleet.ErrNotFound},
		{name: "a failure is recorded", given: append(given, approve), when: command.ApprovalFinish{ID: "a1", Failed: true, Detail: "x"}, object: "approval/a1"},
		{name: "what was not approved is not finished", given: given, when: command.ApprovalFinish{ID: "a1"}, refused: fleet.ErrConflict},
	})
	w := city(t).must(t, user("alice", fleet.RoleAdministrator), issue("u1", "alice", "alice"), given[0])
	carry := func(id fleet.TenantID, change ...func(*command.Header)) error {
		return w.ask(t, "alice", "u1", tenant(id), append([]func(*command.Header){func(h *command.Header) { h.Approval, h.ApprovedBy = "a1", "bob" }}, change...)...)
	}
	if err := carry("early"); !errors.Is(err, fleet.ErrConflict) {
		t.Errorf("before it was approved: %v", err)
	}
	w.must(t, approve)
	for name, change := range map[string]func(*command.Header){
		"by another approver": func(h *command.Header) { h.ApprovedBy = "carol" },
		"of another approval": func(h *command.Header) { h.Approval = "a2" },
	} {
		if err := carry("wrong", change); !errors.Is(err, fleet.ErrConflict) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := carry("acme"); !errors.Is(err, fleet.ErrConflict) { // it exists
		t.Error(err)
	}
	if a, _ := w.state.Read().Approval("a1"); a.State != fleet.ApprovalApproved {
		t.Errorf("a refused command used the approval up: %s", a.State)
	}
	if err := carry("gamma"); err != nil {
		t.Fatal(err)
	}
	es := w.audit(t)
	if e := es[len(es)-1]; e.User != "alice" || e.ApprovedBy != "bob" || e.Object != "tenant/gamma" {
		t.Errorf("the entry does not name both: %+v", e)
	}
	if err := carry("delta", func(h *command.Header) { h.RequestID = "again" }); !errors.Is(err, fleet.ErrConflict) {
		t.Errorf("a second time: %v", err)
	}
	if err := carry("delta"); err != nil {
		t.Errorf("a later step of the same request: %v", err)
	}
}

func TestOldApprovalsAreForgottenAndFewWait(t *testing.T) {
	w := city(t)
	for i := range fleet.MaxPendingApprovals {
		w.must(t, approval(fleet.ApprovalID(fmt.Sprint("p", i)), "alice"))
	}
	if r := w.apply(t, approval("more", "alice")); r.Err == nil || r.Err.Kind != "rate_limited" {
		t.Errorf("got %v", r.Err)
	}
	for i := range fleet.MaxPendingApprovals {
		w.must(t, command.ApprovalDecide{ID: fleet.ApprovalID(fmt.Sprint("p", i)), By: "bob"})
	}
	tx := w.state.Write()
	for i := len(w.state.Read().Approvals()); i < fleet.MaxApprovals+3; i++ {
		a := approval(fleet.ApprovalID(fmt.Sprint("q", i)), "alice").Approval
		a.State, a.Revision = fleet.ApprovalDenied, 1_000_000
		tx.PutApproval(a)
	}
	tx.Commit()
	w.must(t, approval("new", "alice"))
	v := w.state.Read()
	_, first := v.Approval("p0")
	_, last := v.Approval("new")
	if n := len(v.Approvals()); n != fleet.MaxApprovals || first || !last {
		t.Errorf("%d approvals, the first there: %v, the last: %v", n, first, last)
	}
}
