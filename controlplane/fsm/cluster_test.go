package fsm_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/edgefleet/edgefleet/controlplane/command"
	"github.com/edgefleet/edgefleet/controlplane/state"
	"github.com/edgefleet/edgefleet/fleet"
)

func TestClusterInit(t *testing.T) {
	w := empty()
	for name, tc := range map[string]struct {
		change func(*command.ClusterInit)
		says   string
	}{
		"no cluster id":               {func(b *command.ClusterInit) { b.Cluster.ID = "" }, "cluster"},
		"no zone":                     {func(b *command.ClusterInit) { b.Cluster.Zone = "" }, "host name"},
		"no member":                   {func(b *command.ClusterInit) { b.Member.ID = "" }, "member"},
		"no token":                    {func(b *command.ClusterInit) { b.Token.ID = "" }, "token"},
		"a token without a hash":      {func(b *command.ClusterInit) { b.Token.Hash = nil }, "hash"},
		"a first token of a tenant's": {func(b *command.ClusterInit) { b.Token.Role, b.Token.Tenant = fleet.RoleTenant, "acme" }, "operator"},
	} {
		r := w.apply(t, with(clusterInit(), tc.change))
		if !errors.Is(r.Err, fleet.ErrInvalid) || !strings.Contains(r.Err.Message, tc.says) {
			t.Errorf("%s: %v", name, r.Err)
		}
	}
	if _, ok := w.state.Read().Cluster(); ok || len(w.audit(t)) != 0 {
		t.Fatal("a refused init left something")
	}
	w.must(t, with(clusterInit(), func(b *command.ClusterInit) { b.Cluster.Incarnation = 9 }))
	v := w.state.Read()
	c, _ := v.Cluster()
	_, member := v.Member("m1")
	_, group := v.Group(fleet.DefaultGroup)
	token, _ := v.Token("op1")
	if c.Incarnation != 1 || !member || !group || token.Revision != w.index || len(c.Secrets) != 2 {
		t.Errorf("%+v %v %v %+v", c, member, group, token)
	}
	if es := w.audit(t); len(es) != 1 || es[0].Object != "cluster/c1" || holdsSecret(t, es[0]) {
		t.Errorf("%+v", es)
	}
	if r := w.apply(t, clusterInit()); !errors.Is(r.Err, fleet.ErrConflict) {
		t.Errorf("a second init: %v", r.Err)
	}
}

func TestMembersAndJoinTokens(t *testing.T) {
	run(t, []testCase{
		{name: "a member's addresses are recorded", when: command.MemberPut{Member: fleet.Member{ID: "m1", API: "new"}}, object: "member/m1", then: func(t *testing.T, v *state.View) {
			if m, _ := v.Member("m1"); m.API != "new" || m.CreatedAt.IsZero() {
				t.Error(m)
			}
		}},
		{name: "a member announces itself anew after removal", given: []command.Body{command.MemberRemove{ID: "m1"}}, when: command.MemberPut{Member: fleet.Member{ID: "m1"}}, object: "member/m1"},
		{name: "a member without an id is refused", when: command.MemberPut{}, refused: fleet.ErrInvalid, says: "member"},
		{name: "a member is removed", when: command.MemberRemove{ID: "m1"}, object: "member/m1", then: func(t *testing.T, v *state.View) {
			if len(v.Members()) != 0 {
				t.Error(v.Members())
			}
		}},
		{name: "an unknown member cannot be removed", when: command.MemberRemove{ID: "m9"}, refused: fleet.ErrNotFound, says: "m9"},
		{name: "a member joins with its token", when: command.MemberJoin{Token: "jm", Member: fleet.Member{ID: "m2"}}, object: "member/m2", then: func(t *testing.T, v *state.View) {
			if j, _ := v.JoinToken("jm"); j.UsedBy != "m2" {
				t.Error(j.UsedBy)
			}
		}},
		{name: "a member without an id cannot join", when: command.MemberJoin{Token: "jm"}, refused: fleet.ErrInvalid},
		{name: "a member id that is taken cannot join", when: command.MemberJoin{Token: "jm", Member: fleet.Member{ID: "m1"}}, refused: fleet.ErrConflict, says: "choose another"},
		{name: "a node's token admits no member", when: command.MemberJoin{Token: "j2", Member: fleet.Member{ID: "m2"}}, refused: fleet.ErrDenied, says: "not known"},
		{name: "a member's token admits one member", given: []command.Body{command.MemberJoin{Token: "jm", Member: fleet.Member{ID: "m2"}}}, when: command.MemberJoin{Token: "jm", Member: fleet.Member{ID: "m3"}}, refused: fleet.ErrDenied, says: "used already"},
		{name: "a join token is made", when: joinToken("j9", fleet.JoinNode), object: "join_token/j9"},
		{name: "a join token of another kind is refused", when: joinToken("j9", "guest"), refused: fleet.ErrInvalid, says: "use node or member"},
		{name: "a join token without a group that exists is refused", when: with(joinToken("j9", fleet.JoinNode), func(b *command.JoinTokenPut) { b.Token.Group = "nowhere" }), refused: fleet.ErrNotFound, says: "nowhere"},
		{name: "a join token without a region is refused", when: with(joinToken("j9", fleet.JoinNode), func(b *command.JoinTokenPut) { b.Token.Region = "" }), refused: fleet.ErrInvalid, says: "region"},
		{name: "a join token without its hash is refused", when: with(joinToken("j9", fleet.JoinNode), func(b *command.JoinTokenPut) { b.Token.Hash = []byte("short") }), refused: fleet.ErrInvalid, says: "32 bytes"},
		{name: "a join token id is used once", when: joinToken("j1", fleet.JoinNode), refused: fleet.ErrConflict, says: "j1"},
		{name: "a join token without an id is refused", when: joinToken("", fleet.JoinNode), refused: fleet.ErrInvalid},
		{name: "a group is made", when: command.GroupPut{Put: create, Name: "third", Spec: fleet.GroupSpec{Form: fleet.OnPremise}}, object: "group/third"},
		{name: "a group of an unknown form is refused", when: command.GroupPut{Put: create, Name: "third", Spec: fleet.GroupSpec{Form: "cloud"}}, refused: fleet.ErrInvalid, says: "security_edge, hybrid or on_premise"},
		{name: "a group that exists is not made twice", when: command.GroupPut{Put: create, Name: "second", Spec: fleet.GroupSpec{Form: fleet.Hybrid}}, refused: fleet.ErrConflict, says: "exists already"},
		{name: "a group that does not exist is not changed", when: command.GroupPut{Name: "third", Spec: fleet.GroupSpec{Form: fleet.Hybrid}}, refused: fleet.ErrNotFound},
		{name: "a group is changed at its revision", when: command.GroupPut{Put: command.Put{IfRevision: 2}, Name: "second", Spec: fleet.GroupSpec{Form: fleet.SecurityEdge}}, object: "group/second"},
		{name: "a group is not changed at an older revision", when: command.GroupPut{Put: command.Put{IfRevision: 1}, Name: "second", Spec: fleet.GroupSpec{Form: fleet.SecurityEdge}}, refused: fleet.ErrConflict, says: "at revision 2, not 1"},
		{name: "an entry is stored without its value in the audit log", when: command.EntryPut{Key: "k", Value: secretBytes}, object: "entry/k"},
		{name: "an entry without a key is refused", when: command.EntryPut{Value: secretBytes}, refused: fleet.ErrInvalid},
		{name: "an entry with a long key is refused", when: command.EntryPut{Key: strings.Repeat("k", 513)}, refused: fleet.ErrInvalid},
		{name: "an entry is deleted with what is below it", given: []command.Body{command.EntryPut{Key: "acme/account/x"}, command.EntryPut{Key: "acme/accounts"}}, when: command.EntryDelete{Key: "acme/account"}, object: "entry/acme/account", then: func(t *testing.T, v *state.View) {
			if es := v.EntriesBelow(""); len(es) != 1 || es[0].Key != "acme/accounts" {
				t.Error(es)
			}
		}},
	})
}

func TestJoinTokensExpireByTheProposersClock(t *testing.T) {
	w := city(t)
	w.now = noon.Add(15*time.Minute - time.Nanosecond)
	w.must(t, enrol("j2", "n2", "198.51.100.2"))
	w.must(t, joinToken("j3", fleet.JoinNode))
	w.now = noon.Add(15 * time.Minute)
	for _, b := range []command.Body{enrol("j3", "n3", "198.51.100.3"), command.MemberJoin{Token: "jm", Member: fleet.Member{ID: "m2"}}} {
		if r := w.apply(t, b); !errors.Is(r.Err, fleet.ErrDenied) || !strings.Contains(r.Err.Message, "expired at 12:15:00") {
			t.Errorf("%s: %v", b.Type(), r.Err)
		}
	}
	if j, _ := w.state.Read().JoinToken("j3"); j.UsedBy != "" {
		t.Error("a refused newcomer consumed the token")
	}
}
