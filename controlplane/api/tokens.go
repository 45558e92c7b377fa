package api

import (
	"context"
	"net/http"
	"time"

	"github.com/edgefleet/edgefleet/controlplane/client"
	"github.com/edgefleet/edgefleet/controlplane/command"
	"github.com/edgefleet/edgefleet/fleet"
)

func (a *API) registerTokens() {
	read, write := fleet.PermTokensRead, fleet.PermTokensWrite
	handle(a, op("token-list", http.MethodGet, "/v1/tenants/{tenant}/tokens", "A tenant's API tokens", tenantOwn, read, fleet.DutyConsole), a.tokenList)
	handle(a, op("token-create", http.MethodPost, "/v1/tenants/{tenant}/tokens", "Make an API token of a tenant or of one of its users", tenantOwn, write, fleet.DutyConsole).changes(command.TypeTokenIssue), a.tokenCreate)
	handle(a, op("token-delete", http.MethodDelete, "/v1/tenants/{tenant}/tokens/{id}", "Revoke an API token of a tenant on every member at once", tenantOwn, write, fleet.DutyConsole).changes(command.TypeTokenDelete), a.tokenDelete)
	handle(a, op("operator-token-list", http.MethodGet, "/v1/tokens", "All API tokens", operators, read, fleet.DutyConsole), a.operatorTokenList)
	handle(a, op("operator-token-create", http.MethodPost, "/v1/tokens", "Make an operator token, or one of a user of the vendor", operators, write, fleet.DutyConsole).changes(command.TypeTokenIssue), a.operatorTokenCreate)
	handle(a, op("operator-token-delete", http.MethodDelete, "/v1/tokens/{id}", "Revoke any API token on every member at once", operators, write, fleet.DutyConsole).changes(command.TypeTokenDelete), a.operatorTokenDelete)
}

func (a *API) tokenList(_ context.Context, in *TenantUserQuery) (*Body[client.Page[fleet.Token]], error) {
	return a.tokens(in.tenant(), in.UserQuery)
}

func (a *API) operatorTokenList(_ context.Context, in *UserQuery) (*Body[client.Page[fleet.Token]], error) {
	return a.tokens("", *in)
}

func (a *API) tokens(t fleet.TenantID, q UserQuery) (*Body[client.Page[fleet.Token]], error) {
	since, idle, err := q.since(a.o.Now())
	if err != nil {
		return nil, err
	}
	var out []fleet.Token
	for _, rec := range a.view().TokensAfter(t, q.Cursor, q.Limit+1, func(t fleet.Token) bool { return !idle || t.Idle(since) }) {
		out = append(out, rec.Token)
	}
	return page(out, q.Limit, func(t fleet.Token) string { return string(t.ID) }), nil
}

// TokenCreateInput makes a tenant's token.
type TokenCreateInput struct {
	TenantPath
	Body client.TokenCreate
}

func (a *API) tokenCreate(ctx context.Context, in *TokenCreateInput) (*Body[client.TokenCreated], error) {
	return a.createToken(ctx, fleet.Token{Role: fleet.RoleTenant, Tenant: in.tenant()}, in.Body)
}

func (a *API) operatorTokenCreate(ctx context.Context, in *Input[client.TokenCreate]) (*Body[client.TokenCreated], error) {
	return a.createToken(ctx, fleet.Token{Role: fleet.RoleOperator}, in.Body)
}

// createToken makes a token that may nothing that its maker may not.
func (a *API) createToken(ctx context.Context, t fleet.Token, in client.TokenCreate) (*Body[client.TokenCreated], error) {
	t.Comment, t.Permissions = in.Comment, sorted(in.Permissions)
	if in.User != "" {
		u, err := a.user(in.User, t.Tenant)
		if err != nil {
			return nil, err
		}
		t.Owner = u.ID
	}
	var err error
	if t.ExpiresAt, err = a.tokenEnd(in.TTL, t.Owner != ""); err != nil {
		return nil, err
	}
	c := callerOf(ctx)
	if t.MadeBy = c.token.MadeBy; c.token.Own() {
		t.MadeBy = c.token.Owner
	}
	if err := a.requireAll(ctx, "a token with these permissions", a.permissions(t)); err != nil {
		return nil, err
	}
	return a.issue(ctx, command.TokenIssue{}, t)
}

// tokenEnd is when a token with that life ends; zero for a service token that does not say.
func (a *API) tokenEnd(ttl string, person bool) (time.Time, error) {
	life, most := time.Duration(0), a.view().Access().MaxTokenLife()
	if person {
		life = min(fleet.DefaultTokenLife, most)
	}
	if ttl != "" {
		d, err := time.ParseDuration(ttl)
		if err != nil || d < time.Minute || d > 3650*24*time.Hour || person && d > most {
			return time.Time{}, fleet.Invalid("ttl", "%q is not a duration from 1m to %s, such as 720h", ttl, most)
		}
		life = d
	}
	if life == 0 {
		return time.Time{}, nil
	}
	return a.o.Now().UTC().Add(life).Truncate(time.Second), nil
}

func (a *API) issue(ctx context.Context, b command.TokenIssue, t fleet.Token) (*Body[client.TokenCreated], error) {
	rec, text := NewToken(t)
	b.Token = rec
	made, err := propose[fleet.Token](ctx, a, b)
	if err != nil {
		return nil, err
	}
	if b.Replaces != "" {
		a.settle(ctx, made.Revision)
	}
	return &Body[client.TokenCreated]{Body: client.TokenCreated{Token: made, Secret: text}}, nil
}

func (a *API) tokenRotate(ctx context.Context, in *Input[client.TokenRotate]) (*Body[client.TokenCreated], error) {
	old := callerOf(ctx).token
	t := fleet.Token{Role: old.Role, Tenant: old.Tenant, Owner: old.Owner, Permissions: old.Permissions, Comment: old.Comment}
	ttl, life := in.Body.TTL, old.ExpiresAt.Sub(old.CreatedAt).Round(time.Minute)
	if ttl == "" && !old.ExpiresAt.IsZero() {
		ttl = min(life, a.view().Access().MaxTokenLife()).String()
	}
	var err error
	if t.ExpiresAt, err = a.tokenEnd(ttl, t.Owner != ""); err != nil {
		return nil, err
	}
	if !old.ExpiresAt.IsZero() && t.ExpiresAt.After(a.o.Now().Add(life)) { // who was let in for an hour does not stay for a year
		return nil, fleet.Invalid("ttl", "%q is longer than the %s for which the token was made: ask for a new token with that life", ttl, life)
	}
	return a.issue(ctx, command.TokenIssue{Replaces: old.ID, IntroducedBy: a.introducer(old)}, t)
}

// introducer is who made a person's first token, where it matters whether somebody could be two: while four eyes are on.
func (a *API) introducer(first fleet.Token) fleet.UserID {
	v := a.view()
	if u, _ := v.User(first.Owner); first.Owner == "" || first.Own() || u.Activated || !v.Access().FourEyes {
		return ""
	}
	return first.MadeBy
}

// NewToken gives t an id and a secret: the record to store and the text to show once.
func NewToken(t fleet.Token) (rec fleet.TokenRecord, text string) {
	secret, hash := newSecret()
	t.ID = fleet.TokenID(newID("tok"))
	return fleet.TokenRecord{Token: t, Hash: hash}, fleet.FormatToken(t.ID, secret)
}

// TenantObject names an object of a tenant by its id.
type TenantObject struct {
	TenantPath
	IDPath
}

func (a *API) tokenDelete(ctx context.Context, in *TenantObject) (*Body[client.Settled], error) {
	return a.deleteToken(ctx, command.TokenDelete{ID: fleet.TokenID(in.ID), Tenant: in.tenant()})
}

func (a *API) operatorTokenDelete(ctx context.Context, in *IDPath) (*Body[client.Settled], error) {
	return a.deleteToken(ctx, command.TokenDelete{ID: fleet.TokenID(in.ID)})
}

// deleteToken ends a token that may nothing that the caller may not.
func (a *API) deleteToken(ctx context.Context, b command.TokenDelete) (*Body[client.Settled], error) {
	v := a.view()
	if rec, ok := v.Token(b.ID); ok && (b.Tenant == "" || rec.Tenant == b.Tenant) {
		if err := a.requireAll(ctx, "revoking token "+string(b.ID), v.TokenPermissions(rec.Token)); err != nil {
			return nil, err
		}
	}
	if _, err := propose[any](ctx, a, b); err != nil {
		return nil, err
	}
	return &Body[client.Settled]{Body: a.settle(ctx, a.view().Index())}, nil
}
