package api

import (
	"cmp"
	"context"
	"math"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/edgefleet/edgefleet/controlplane/client"
	"github.com/edgefleet/edgefleet/controlplane/command"
	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/fleet/request"
	"github.com/edgefleet/edgefleet/fleet/rules"
)

func (a *API) registerRules() {
	a.registerRuleSets()
	handle(a, op("rule-list", http.MethodGet, "/v1/tenants/{tenant}/rules", "A tenant's rules", tenantOwn, fleet.PermRulesRead, fleet.DutyRules), a.ruleList)
	handle(a, op("rule-create", http.MethodPost, "/v1/tenants/{tenant}/rules", "Add a rule; it is compiled as the nodes will compile it", tenantOwn, fleet.PermRulesWrite, fleet.DutyRules).changes(command.TypeRulePut), a.ruleCreate)
	handle(a, op("rule-test", http.MethodPost, "/v1/tenants/{tenant}/rules/test", "Which rules a request would match", tenantOwn, fleet.PermRulesRead, fleet.DutyRules).answering(http.StatusOK), a.ruleTest)
	handle(a, op("rule-show", http.MethodGet, "/v1/tenants/{tenant}/rules/{id}", "A rule", tenantOwn, fleet.PermRulesRead, fleet.DutyRules), a.ruleShow)
	handle(a, op("rule-delete", http.MethodDelete, "/v1/tenants/{tenant}/rules/{id}", "Delete a rule", tenantOwn, fleet.PermRulesWrite, fleet.DutyRules).changes(command.TypeRuleDelete).withRevision(), a.ruleDelete)
	handle(a, op("ruleset-status", http.MethodGet, "/v1/tenants/{tenant}/ruleset/status", "Convergence receipt: which nodes run what was committed", tenantOwn, fleet.PermRulesRead, fleet.DutyRules), a.rulesetStatus)
}

func (a *API) ruleList(_ context.Context, in *TenantList) (*Body[client.Page[client.RuleView]], error) {
	var views []client.RuleView
	for _, r := range a.view().RulesAfter(in.tenant(), in.Cursor, in.Limit+1) {
		views = append(views, a.ruleView(r))
	}
	return page(views, in.Limit, func(r client.RuleView) string { return string(r.ID) }), nil
}

func (a *API) ruleView(r fleet.Rule) client.RuleView {
	return client.RuleView{Rule: r, Expired: r.Spec.Expired(a.o.Now())}
}

// TenantObjectRead names an object of a tenant to read.
type TenantObjectRead struct {
	TenantObject
	ReadQuery
}

func (a *API) ruleShow(_ context.Context, in *TenantObjectRead) (*Body[client.RuleView], error) {
	r, ok := a.view().Rule(fleet.RuleID(in.ID))
	if !ok || r.Tenant != in.tenant() {
		return nil, fleet.NewError(fleet.ErrNotFound, "rule", "rule %s does not exist", in.ID)
	}
	return &Body[client.RuleView]{Body: a.ruleView(r)}, nil
}

// RuleCreateInput adds a rule.
type RuleCreateInput struct {
	TenantPath
	Body client.RuleCreate
}

func (a *API) ruleCreate(ctx context.Context, in *RuleCreateInput) (*Body[fleet.Rule], error) {
	id := orDefault(in.Body.ID, fleet.RuleID(newID("rule")))
	if err := a.admit(in.tenant(), id, in.Body.Spec); err != nil {
		return nil, err
	}
	r, err := propose[fleet.Rule](ctx, a, command.RulePut{Put: command.Put{Create: true}, ID: id, Tenant: in.tenant(), Spec: in.Body.Spec})
	return &Body[fleet.Rule]{Body: r}, err
}

// admit compiles a rule by itself, so that an error names its field, and the tenant's rules with it as nodes will.
func (a *API) admit(tenant fleet.TenantID, id fleet.RuleID, spec fleet.RuleSpec) error {
	if err := rules.Validate(spec); err != nil {
		return err
	}
	if spec.Expired(a.o.Now()) {
		return fleet.Invalid("expires_at", "the rule would have ended at %s already", spec.ExpiresAt.UTC().Format(time.RFC3339))
	}
	bundle := []fleet.BundleRule{{ID: id, Spec: spec}}
	for _, r := range a.view().RulesOf(tenant) {
		if r.ID != id {
			bundle = append(bundle, fleet.BundleRule{ID: r.ID, Spec: r.Spec})
		}
	}
	slices.Reverse(bundle) // the new one last: what goes beyond a limit is its
	_, err := rules.Admit(bundle)
	return err
}

func (a *API) ruleDelete(ctx context.Context, in *TenantObject) (*Body[Empty], error) {
	_, err := propose[any](ctx, a, command.RuleDelete{ID: fleet.RuleID(in.ID), Tenant: in.tenant(), IfRevision: condition(ctx).IfRevision})
	return &Body[Empty]{}, err
}

// RuleTestInput tests rules.
type RuleTestInput struct {
	TenantPath
	Body client.RuleTest
}

func (a *API) ruleTest(_ context.Context, in *RuleTestInput) (*Body[client.Page[client.RuleMatch]], error) {
	u, err := url.Parse(in.Body.URL)
	if err != nil || u.Host == "" {
		return nil, fleet.Invalid("url", "%q is not an absolute URL such as https://api.example.com/?q=x", in.Body.URL)
	}
	var bundle []fleet.BundleRule
	if in.Body.Spec != nil {
		if err := rules.Validate(*in.Body.Spec); err != nil {
			return nil, err
		}
		bundle = []fleet.BundleRule{{ID: "tested", Spec: *in.Body.Spec}}
	} else {
		for _, r := range a.view().RulesOf(in.tenant()) {
			bundle = append(bundle, fleet.BundleRule{ID: r.ID, Spec: r.Spec})
		}
	}
	set, err := rules.Compile(bundle)
	if err != nil {
		return nil, err
	}
	req := request.Parse(request.Input{
		Method: orDefault(in.Body.Method, http.MethodGet), Scheme: u.Scheme, Proto: "HTTP/1.1", Host: u.Host,
		URI: u.RequestURI(), Header: http.Header(in.Body.Header), Body: []byte(in.Body.Body),
	}, request.Limits{})
	out := client.Page[client.RuleMatch]{Items: []client.RuleMatch{}}
	for _, m := range set.Evaluate(req, a.o.Now()).Matches {
		out.Items = append(out.Items, client.RuleMatch{Rule: m.Rule, AttackType: m.Type, Point: m.Point, Parameter: m.Parameter})
	}
	return &Body[client.Page[client.RuleMatch]]{Body: out}, nil
}

// RulesetStatusInput asks for a receipt.
type RulesetStatusInput struct {
	TenantPath
	Kind string `query:"kind" enum:"config,ruleset,certs" default:"ruleset" doc:"kind of head"`
	ReadQuery
}

func (a *API) rulesetStatus(_ context.Context, in *RulesetStatusInput) (*Body[client.RulesetStatus], error) {
	v := a.view()
	t, err := a.tenant(in.tenant())
	if err != nil {
		return nil, err
	}
	kind := fleet.HeadKind(in.Kind)
	h, ok := v.Head(t.Spec.Group, kind)
	if !ok {
		return nil, fleet.NewError(fleet.ErrNotFound, "head", "group %s has no %s yet", t.Spec.Group, kind)
	}
	s := client.RulesetStatus{Group: h.Group, Kind: kind, Version: h.Version, Root: h.Root, Committed: h.UpdatedAt}
	if a.o.Library != nil {
		// The head may not have caught up with a change that was just answered: derive what it should be.
		if err := a.o.Library.Refresh(v); err != nil {
			return nil, err
		}
		s.Pending = a.o.Library.Root(t.Spec.Group, kind) != h.Root
	}
	var took []float64
	for _, n := range v.NodesOf(t.Spec.Group) {
		s.Nodes++
		r, _ := n.Observed.Head(kind)
		if !s.Pending && n.Observed.State == fleet.NodeUp && r.Applied(h.Version) {
			s.Live++
			took = append(took, max(0, r.AppliedAt.Sub(h.UpdatedAt).Seconds()))
			continue
		}
		w := client.WaitingNode{Node: n.ID, State: n.Observed.State}
		if s.Pending {
			w.Reason = "the next version is being made"
		} else if r.Version == h.Version {
			w.Reason = r.Reason
		}
		s.Waiting = append(s.Waiting, w)
	}
	s.P50, s.P99 = percentile(took, 0.5), percentile(took, 0.99)
	return &Body[client.RulesetStatus]{Body: s}, nil
}

// percentile is the nearest-rank percentile; 0 without samples.
func percentile[T cmp.Ordered](samples []T, p float64) T {
	var zero T
	if len(samples) == 0 {
		return zero
	}
	sorted := slices.Sorted(slices.Values(samples))
	return sorted[max(0, int(math.Ceil(p*float64(len(sorted))))-1)]
}
