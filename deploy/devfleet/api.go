package devfleet

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/netip"
	"net/url"
	"time"

	"github.com/edgefleet/edgefleet/controlplane/client"
	"github.com/edgefleet/edgefleet/fleet"
)

// apiTimeout is short: a member that was killed or paused must not hold up a step.
const apiTimeout = 5 * time.Second

// api is the public API as the story uses it.
type api struct {
	client *client.Client
	addrs  []string
	ca     []byte
}

// newAPI talks to members (host:port), in that order.
func newAPI(addrs []string, ca []byte, token string) (*api, error) {
	c, err := client.New(client.Options{Addrs: addrs, Token: token, CACert: ca, Timeout: apiTimeout})
	if err != nil {
		return nil, err
	}
	return &api{c, addrs, ca}, nil
}

func (a *api) cluster(ctx context.Context) (client.ClusterStatus, error) {
	return client.Get[client.ClusterStatus](ctx, a.client, "/v1/cluster", nil)
}

func (a *api) joinToken(ctx context.Context, kind fleet.JoinKind) (string, error) {
	t, err := again(ctx, func() (client.JoinTokenCreated, error) {
		return client.Post[client.JoinTokenCreated](ctx, a.client, "/v1/join-tokens", client.JoinTokenCreate{Kind: kind})
	})
	return t.Secret, err
}

func (a *api) nodes(ctx context.Context) ([]fleet.Node, error) {
	return client.All[fleet.Node](ctx, a.client, "/v1/nodes", nil)
}

// addTenant makes a tenant that may have origins on this machine, and returns a token of the tenant's own.
func (a *api) addTenant(ctx context.Context, id fleet.TenantID) (string, error) {
	in := client.TenantCreate{ID: id, Name: "Demo shop", Form: fleet.SecurityEdge, AllowedOrigins: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}
	if _, err := again(ctx, func() (fleet.Tenant, error) { return client.Post[fleet.Tenant](ctx, a.client, "/v1/tenants", in) }); err != nil && !errors.Is(err, fleet.ErrConflict) {
		return "", err
	}
	t, err := again(ctx, func() (client.TokenCreated, error) {
		return client.Post[client.TokenCreated](ctx, a.client, tenantPath(id, "tokens"), client.TokenCreate{Comment: "devfleet"})
	})
	return t.Secret, err
}

// again repeats a call while there is no leader: on a machine that is busy enough, the members elect a new one at any
// time. It is for calls that may take effect twice.
func again[T any](ctx context.Context, call func() (T, error)) (T, error) {
	for {
		v, err := call()
		if !errors.Is(err, fleet.ErrUnavailable) {
			return v, err
		}
		select {
		case <-ctx.Done():
			return v, err
		case <-time.After(200 * time.Millisecond):
		}
	}
}

func tenantPath(t fleet.TenantID, rest string) string { return "/v1/tenants/" + string(t) + "/" + rest }

func (a *api) addHost(ctx context.Context, t fleet.TenantID, name fleet.HostName, origin string) ([]fleet.Record, error) {
	in := client.HostCreate{Name: string(name), Origins: []fleet.Origin{{URL: origin}}, Mode: fleet.ModeBlock}
	h, err := again(ctx, func() (client.HostView, error) {
		return client.Post[client.HostView](ctx, a.client, tenantPath(t, "hosts"), in)
	})
	if errors.Is(err, fleet.ErrConflict) { // an attempt whose outcome was not known had made it
		h, err = a.host(ctx, t, name)
	}
	return h.Records, err
}

func (a *api) host(ctx context.Context, t fleet.TenantID, name fleet.HostName) (client.HostView, error) {
	return client.Get[client.HostView](ctx, a.client, tenantPath(t, "hosts/"+string(name)), nil)
}

func (a *api) setMode(ctx context.Context, t fleet.TenantID, name fleet.HostName, m fleet.Mode) error {
	_, err := again(ctx, func() (any, error) {
		return nil, a.client.Do(ctx, http.MethodPatch, tenantPath(t, "hosts/"+string(name)), nil, client.HostUpdate{Mode: &m}, nil, client.IfMatchAny())
	})
	return err
}

// addRule adds a rule that blocks requests in which pattern occurs.
func (a *api) addRule(ctx context.Context, t fleet.TenantID, pattern, comment string) error {
	spec := fleet.RuleSpec{Kind: fleet.RuleRegex, Pattern: pattern, AttackType: fleet.AttackCustom, Comment: comment}
	return a.client.Do(ctx, http.MethodPost, tenantPath(t, "rules"), nil, client.RuleCreate{Spec: spec}, nil)
}

func (a *api) rulesetStatus(ctx context.Context, t fleet.TenantID) (client.RulesetStatus, error) {
	return client.Get[client.RulesetStatus](ctx, a.client, tenantPath(t, "ruleset/status"), nil)
}

// events returns every event, each as the API wrote it.
func (a *api) events(ctx context.Context, t fleet.TenantID) ([]json.RawMessage, error) {
	return client.All[json.RawMessage](ctx, a.client, tenantPath(t, "events"), url.Values{"limit": {"100"}})
}
