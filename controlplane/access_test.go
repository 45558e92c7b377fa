package controlplane_test

import (
	"errors"
	"net/http"
	"net/url"
	"testing"

	"github.com/edgefleet/edgefleet/controlplane/client"
	"github.com/edgefleet/edgefleet/fleet"
)

// person makes a user of the vendor with a token that only they know.
func person(t *testing.T, c *cluster, name string, roles ...fleet.RoleName) *client.Client {
	t.Helper()
	op := c.client()
	if _, err := client.Post[fleet.User](t.Context(), op, "/v1/users", client.UserCreate{ID: name, Roles: roles}); err != nil {
		t.Fatal(err)
	}
	first, err := client.Post[client.TokenCreated](t.Context(), op, "/v1/tokens", client.TokenCreate{User: name})
	if err != nil {
		t.Fatal(err)
	}
	own, err := client.Post[client.TokenCreated](t.Context(), c.client(first.Secret), "/v1/whoami/rotate", client.TokenRotate{})
	if err != nil {
		t.Fatal(err)
	}
	return c.client(own.Secret)
}

func TestADisabledUserIsRefusedByEveryMemberOnceTheAnswerIsThere(t *testing.T) {
	if testing.Short() {
		t.Skip("starts three members")
	}
	t.Parallel()
	c := start(t, 3)
	op := c.client()
	who, err := client.Get[client.Whoami](t.Context(), op, "/v1/whoami", nil)
	if err != nil || who.Token.Owner != fleet.OwnerUser || len(who.Permissions) != len(fleet.Permissions()) {
		t.Errorf("the first operator token: %+v, %v", who, err)
	}
	for range 3 { // it holds every time, not only when the others happen to be quick; more would be too many failures a minute
		made, err := client.Post[fleet.User](t.Context(), op, "/v1/users", client.UserCreate{ID: "alice", Roles: []fleet.RoleName{fleet.RoleAnalyst}})
		if err != nil {
			t.Fatal(err)
		}
		tok, err := client.Post[client.TokenCreated](t.Context(), op, "/v1/tokens", client.TokenCreate{User: "alice"})
		if err != nil {
			t.Fatal(err)
		}
		var at []*client.Client
		for i := range c.members {
			at = append(at, c.must(client.New(client.Options{Addrs: []string{c.members[i].config.APIListen}, CACert: c.cacert, Token: tok.Secret})))
			c.await("the member knows the token itself", func() bool {
				return at[i].Do(t.Context(), http.MethodGet, "/v1/whoami", url.Values{"consistency": {"stale"}}, nil, nil) == nil
			})
		}
		var ended client.UserEnded
		if err := op.Do(t.Context(), http.MethodPost, "/v1/users/alice/disable", nil, nil, &ended); err != nil {
			t.Fatal(err)
		}
		if len(ended.Confirmed) != 3 || len(ended.Unconfirmed) != 0 || ended.ID != made.ID {
			t.Errorf("confirmed by %v, not by %v", ended.Confirmed, ended.Unconfirmed)
		}
		for i, cl := range at {
			for _, q := range []url.Values{nil, {"consistency": {"stale"}}} {
				if err := cl.Do(t.Context(), http.MethodGet, "/v1/whoami", q, nil, nil); !errors.Is(err, fleet.ErrUnauthenticated) {
					t.Errorf("member %d, %v: %v", i+1, q, err)
				}
			}
		}
		if err := op.Do(t.Context(), http.MethodDelete, "/v1/users/alice", nil, nil, nil); err != nil {
			t.Fatal(err)
		}
	}
	t.Run("a member that does not answer is named", func(t *testing.T) {
		person(t, c, "bob", fleet.RoleAnalyst)
		lead := c.leader()
		gone := c.members[(lead+1)%3]
		gone.stop(t)
		var ended client.UserEnded
		if err := c.at(lead).Do(t.Context(), http.MethodPost, "/v1/users/bob/disable", nil, nil, &ended); err != nil {
			t.Fatal(err)
		}
		if len(ended.Unconfirmed) != 1 || ended.Unconfirmed[0] != gone.config.Member {
			t.Errorf("not confirmed by %v", ended.Unconfirmed)
		}
	})
	t.Run("two people remove a member, in the name of both", func(t *testing.T) {
		// The one that is gone: it takes its place in the configuration with it.
		lead := c.leader()
		gone := c.members[(lead+1)%3].config.Member
		carol := person(t, c, "carol", fleet.RoleAdministrator)
		on := true
		if err := op.Do(t.Context(), http.MethodPatch, "/v1/access", nil, client.AccessUpdate{FourEyes: &on}, nil, client.IfMatchAny()); err != nil {
			t.Fatal(err)
		}
		err := op.Do(t.Context(), http.MethodDelete, "/v1/cluster/members/"+string(gone), nil, nil, nil)
		var held *client.Held
		if !errors.As(err, &held) || !errors.Is(err, fleet.ErrDenied) {
			t.Fatalf("the owner alone: %v", err)
		}
		done, err := client.Post[fleet.Approval](t.Context(), carol, "/v1/approvals/"+string(held.ID)+"/approve", nil)
		if err != nil || done.State != fleet.ApprovalExecuted {
			t.Fatalf("%+v, %v", done, err)
		}
		entries := 0
		for _, e := range auditLog(t, op) {
			if e.Object != "member/"+string(gone) || e.Operation != "member_retire" {
				continue
			}
			entries++
			if e.User != fleet.OwnerUser || e.ApprovedBy != "carol" {
				t.Errorf("the entry names %s and %s", e.User, e.ApprovedBy)
			}
		}
		if entries != 1 {
			t.Errorf("the removal has %d entries", entries)
		}
	})
}
