package devfleet

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/edgefleet/edgefleet/fleet"
)

// api is the public API as the story uses it. It goes from member to member until one answers; a write whose
// outcome is unknown may therefore be made twice.
type api struct {
	client *http.Client
	bases  []string
	token  string
	// next is the index of the member that answered last: it is asked first.
	next *atomic.Int64
}

// newAPI talks to members (host:port) that present certificates of the API's own CA.
func newAPI(members []string, ca *x509.CertPool, token string) *api {
	a := &api{token: token, next: &atomic.Int64{}, client: &http.Client{
		Timeout:   3 * time.Second,
		Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: ca, MinVersion: tls.VersionTLS13}},
	}}
	for _, m := range members {
		a.bases = append(a.bases, "https://"+m)
	}
	return a
}

// as is the same API with another token.
func (a *api) as(token string) *api {
	b := *a
	b.token = token
	return &b
}

func (a *api) call(ctx context.Context, method, path string, in, out any) error {
	var body []byte
	if in != nil {
		var err error
		if body, err = json.Marshal(in); err != nil {
			return fmt.Errorf("encode request: %w", err)
		}
	}
	var errs []error
	first := int(a.next.Load())
	for i := range a.bases {
		n := (first + i) % len(a.bases)
		err := a.once(ctx, method, a.bases[n]+path, body, out)
		if err == nil {
			a.next.Store(int64(n))
			return nil
		}
		errs = append(errs, err)
		// An answer that another member would give too ends the round.
		if e, ok := errors.AsType[*fleet.Error](err); ok && !errors.Is(e, fleet.ErrUnavailable) && !errors.Is(e, fleet.ErrTimeout) {
			break
		}
	}
	return errors.Join(errs...)
}

func (a *api) once(ctx context.Context, method, url string, body []byte, out any) error {
	req, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("make request: %w", err)
	}
	req.Header.Set("Authorization", "Bearer "+a.token)
	if len(body) > 0 {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := a.client.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	if err := decodeAnswer(resp, out); err != nil {
		return fmt.Errorf("%s %s: %w", method, url, err)
	}
	return nil
}

// clusterStatus is what the story reads of the cluster.
type clusterStatus struct {
	Leader  fleet.MemberID `json:"leader"`
	Members []fleet.Member `json:"members"`
}

func (a *api) cluster(ctx context.Context) (c clusterStatus, err error) {
	return c, a.call(ctx, http.MethodGet, "/v1/cluster", nil, &c)
}

type tokenAnswer struct {
	Token string `json:"token"`
}

func (a *api) joinToken(ctx context.Context, kind fleet.JoinKind) (string, error) {
	in := map[string]any{"kind": kind}
	if kind == fleet.JoinNode {
		in["group"], in["region"] = fleet.DefaultGroup, fleet.DefaultRegion
	}
	var out tokenAnswer
	return out.Token, a.call(ctx, http.MethodPost, "/v1/join-tokens", in, &out)
}

func (a *api) nodes(ctx context.Context) ([]fleet.Node, error) {
	var out struct {
		Nodes []fleet.Node `json:"nodes"`
	}
	return out.Nodes, a.call(ctx, http.MethodGet, "/v1/nodes", nil, &out)
}

// addTenant makes a tenant that may have origins on this machine, and returns a token of the tenant's own.
func (a *api) addTenant(ctx context.Context, id fleet.TenantID) (string, error) {
	in := map[string]any{"id": id, "name": "Demo shop", "form": fleet.SecurityEdge, "allowed_origins": []string{"127.0.0.0/8"}}
	if err := a.call(ctx, http.MethodPost, "/v1/tenants", in, nil); err != nil {
		return "", err
	}
	var out tokenAnswer
	return out.Token, a.call(ctx, http.MethodPost, "/v1/tenants/"+string(id)+"/tokens", map[string]any{"comment": "devfleet"}, &out)
}

type hostAnswer struct {
	fleet.Host
	Records []fleet.Record `json:"records"`
}

func (a *api) addHost(ctx context.Context, t fleet.TenantID, name fleet.HostName, origin string) ([]fleet.Record, error) {
	in := map[string]any{"name": name, "origins": []fleet.Origin{{URL: origin}}, "mode": fleet.ModeBlock}
	var out hostAnswer
	return out.Records, a.call(ctx, http.MethodPost, "/v1/tenants/"+string(t)+"/hosts", in, &out)
}

func (a *api) host(ctx context.Context, t fleet.TenantID, name fleet.HostName) (fleet.Host, error) {
	var out hostAnswer
	return out.Host, a.call(ctx, http.MethodGet, "/v1/tenants/"+string(t)+"/hosts/"+string(name), nil, &out)
}

func (a *api) setMode(ctx context.Context, t fleet.TenantID, name fleet.HostName, m fleet.Mode) error {
	return a.call(ctx, http.MethodPatch, "/v1/tenants/"+string(t)+"/hosts/"+string(name), map[string]any{"mode": m}, nil)
}

// addRule adds a rule that blocks requests in which pattern occurs.
func (a *api) addRule(ctx context.Context, t fleet.TenantID, pattern, comment string) error {
	spec := fleet.RuleSpec{Kind: fleet.RuleRegex, Pattern: pattern, AttackType: fleet.AttackCustom, Comment: comment}
	return a.call(ctx, http.MethodPost, "/v1/tenants/"+string(t)+"/rules", map[string]any{"spec": spec}, nil)
}

// receipt says on how many nodes the newest rule set is live.
type receipt struct {
	Live  int `json:"live"`
	Nodes int `json:"nodes"`
}

func (a *api) rulesetStatus(ctx context.Context, t fleet.TenantID) (r receipt, err error) {
	return r, a.call(ctx, http.MethodGet, "/v1/tenants/"+string(t)+"/ruleset/status", nil, &r)
}

// events returns the newest events, each as the API wrote it.
func (a *api) events(ctx context.Context, t fleet.TenantID) ([]json.RawMessage, error) {
	var out struct {
		Events []json.RawMessage `json:"events"`
	}
	return out.Events, a.call(ctx, http.MethodGet, "/v1/tenants/"+string(t)+"/events?limit="+strconv.Itoa(100), nil, &out)
}
