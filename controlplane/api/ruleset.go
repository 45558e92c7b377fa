package api

import (
	"context"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/edgefleet/edgefleet/controlplane/client"
	"github.com/edgefleet/edgefleet/controlplane/command"
	"github.com/edgefleet/edgefleet/controlplane/events"
	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/fleet/mask"
	"github.com/edgefleet/edgefleet/fleet/request"
	"github.com/edgefleet/edgefleet/fleet/rules"
)

func (a *API) registerRuleSets() {
	handle(a, op("rule-update", http.MethodPut, "/v1/tenants/{tenant}/rules/{id}", "Replace what a rule says; If-None-Match: * makes a new one", tenantOwn, fleet.PermRulesWrite, fleet.DutyRules).changes(command.TypeRulePut).withRevision(), a.ruleUpdate)
	handle(a, op("rule-explain", http.MethodPost, "/v1/tenants/{tenant}/rules/explain", "How a request is judged: mode, conditions, points, rules, masks, outcome", tenantOwn, fleet.PermRulesRead, fleet.DutyRules).answering(http.StatusOK), a.ruleExplain)
	handle(a, op("rule-impact", http.MethodPost, "/v1/tenants/{tenant}/rules/impact", "Share of the last week's events that a false-positive fix takes out, from this member's store", tenantOwn, fleet.PermRulesRead, fleet.DutyRules).answering(http.StatusOK).locally(), a.ruleImpact)
	handle(a, op("rule-import", http.MethodPost, "/v1/tenants/{tenant}/rules/import", "Write many rules, all or none", tenantOwn, fleet.PermRulesWrite, fleet.DutyRules).changes(command.TypeRulesImport).answering(http.StatusOK), a.ruleImport)
}

// RuleUpdateInput replaces a rule.
type RuleUpdateInput struct {
	TenantObject
	Body client.RuleUpdate
}

func (a *API) ruleUpdate(ctx context.Context, in *RuleUpdateInput) (*Body[fleet.Rule], error) {
	id := fleet.RuleID(in.ID)
	if err := a.admit(in.tenant(), id, in.Body.Spec); err != nil {
		return nil, err
	}
	r, err := propose[fleet.Rule](ctx, a, command.RulePut{Put: condition(ctx), ID: id, Tenant: in.tenant(), Spec: in.Body.Spec})
	return &Body[fleet.Rule]{Body: r}, err
}

// inspected is how much of a body nodes look at.
const inspected = 128 << 10

// notManaged is said with each explanation.
const notManaged = "the managed rules are judged by the nodes alone: what they find in this request is not in this explanation"

// RuleExplainInput asks how a request is judged.
type RuleExplainInput struct {
	TenantPath
	Body client.RuleExplain
}

func (a *API) ruleExplain(_ context.Context, in *RuleExplainInput) (*Body[client.RuleExplanation], error) {
	q := in.Body.Request
	if err := q.Validate(); err != nil {
		return nil, err
	}
	req := q.Parse(inspected)
	name, _, err := req.Attribute("host")
	if err != nil {
		return nil, err
	}
	h, err := a.servingHost(in.tenant(), fleet.HostName(name))
	if err != nil {
		return nil, err
	}
	var bundle []fleet.BundleRule
	for _, r := range a.view().RulesOf(in.tenant()) {
		bundle = append(bundle, fleet.BundleRule{ID: r.ID, Spec: r.Spec})
	}
	set, err := rules.Compile(bundle)
	if err != nil {
		return nil, err
	}
	out := client.RuleExplanation{Host: h.Name, Note: notManaged, Explanation: set.Explain(rules.Question{
		Host: h.Spec.Mode, Source: in.Body.Source, Policy: h.Spec.FailPolicy, Request: req, Now: a.o.Now(),
	})}
	out.Masks = hideMasked(&out.Explanation, set.Mask(a.o.Now()), req)
	return &Body[client.RuleExplanation]{Body: out}, nil
}

// servingHost is the tenant's host that serves a name: itself, or the wildcard over it.
func (a *API) servingHost(tenant fleet.TenantID, name fleet.HostName) (fleet.Host, error) {
	names := []fleet.HostName{name}
	if _, parent, ok := strings.Cut(string(name), "."); ok {
		names = append(names, fleet.HostName("*."+parent))
	}
	for _, n := range names {
		if h, ok := a.view().Host(n); ok && h.Tenant == tenant {
			return h, nil
		}
	}
	return fleet.Host{}, fleet.NewError(fleet.ErrNotFound, "host", "%s is not a host of tenant %s: explain a request to one of its hosts", name, tenant)
}

// hideMasked marks the points that do not leave a node. The caller wrote the request, and so sees its values.
func hideMasked(e *rules.Explanation, masks *mask.Set, req *request.Request) []string {
	m := masks.Apply(req)
	for i, v := range req.All() {
		if i < len(e.Points) {
			e.Points[i].Masked = m.Hides(v.Point)
		}
	}
	points := m.Points()
	if points == nil {
		points = []string{}
	}
	return points
}

// RuleImportInput writes many rules.
type RuleImportInput struct {
	TenantPath
	Body client.RuleImport
}

func (a *API) ruleImport(ctx context.Context, in *RuleImportInput) (*Body[client.RuleImported], error) {
	base := command.RulesBase{}
	cmd := command.RulesImport{Tenant: in.tenant(), Base: &base}
	out := client.RuleImported{DryRun: in.Body.DryRun, Added: []fleet.RuleID{}, Changed: []fleet.RuleID{}, Deleted: []fleet.RuleID{}}
	current := map[fleet.RuleID]fleet.Rule{}
	for _, r := range a.view().RulesOf(cmd.Tenant) {
		current[r.ID] = r
		base = command.RulesBase{Count: base.Count + 1, Revision: max(base.Revision, r.Revision)}
	}
	var bundle []fleet.BundleRule
	wanted := map[fleet.RuleID]bool{}
	for _, e := range in.Body.Rules {
		if e.ID == "" {
			e.ID = fleet.RuleID(newID("rule"))
		}
		bundle = append(bundle, fleet.BundleRule{ID: e.ID, Spec: e.RuleSpec})
		wanted[e.ID] = true
		old, known := current[e.ID]
		switch {
		case known && sameSpec(old.Spec, e.RuleSpec):
			continue
		case known:
			out.Changed = append(out.Changed, e.ID)
		default:
			out.Added = append(out.Added, e.ID)
		}
		cmd.Put = append(cmd.Put, command.RuleEntry{ID: e.ID, Spec: e.RuleSpec})
	}
	for _, r := range a.view().RulesOf(cmd.Tenant) {
		switch {
		case wanted[r.ID]:
		case in.Body.Prune:
			out.Deleted = append(out.Deleted, r.ID)
		default:
			bundle = append(bundle, fleet.BundleRule{ID: r.ID, Spec: r.Spec})
		}
	}
	out.Unchanged = len(current) - len(out.Changed) - len(out.Deleted)
	cmd.Delete = out.Deleted
	if _, err := rules.Admit(bundle); err != nil {
		return nil, err
	}
	if in.Body.DryRun || len(cmd.Put)+len(cmd.Delete) == 0 {
		return &Body[client.RuleImported]{Body: out}, nil
	}
	done, err := propose[command.RulesImported](ctx, a, cmd)
	return &Body[client.RuleImported]{Body: client.RuleImported{Added: done.Added, Changed: done.Changed, Deleted: done.Deleted, Unchanged: done.Unchanged}}, err
}

// sameSpec compares what two specs say; an empty list is none.
func sameSpec(a, b fleet.RuleSpec) bool {
	if !a.ExpiresAt.Equal(b.ExpiresAt) {
		return false
	}
	a.ExpiresAt, b.ExpiresAt = time.Time{}, time.Time{}
	for _, s := range []*fleet.RuleSpec{&a, &b} {
		s.Conditions, s.Point = slices.Clip(s.Conditions), slices.Clip(s.Point)
		if len(s.Conditions) == 0 {
			s.Conditions = nil
		}
		if len(s.Point) == 0 {
			s.Point = nil
		}
		if len(s.AttackTypes) == 0 {
			s.AttackTypes = nil
		}
		if len(s.Rules) == 0 {
			s.Rules = nil
		}
	}
	return reflect.DeepEqual(a, b)
}

// How much of the past an impact is made of.
const (
	impactDays   = 7
	impactEvents = 5_000
	maxExamples  = 5
)

// RuleImpactInput asks what a rule would have touched.
type RuleImpactInput struct {
	TenantPath
	Body client.RuleImpact
}

func (a *API) ruleImpact(ctx context.Context, in *RuleImpactInput) (*Body[client.RuleTouched], error) {
	touches, err := rules.Touches(in.Body.Spec)
	if err != nil {
		return nil, err
	}
	out := client.RuleTouched{Days: impactDays}
	q := events.Query{Tenant: in.tenant(), Since: a.o.Now().Add(-impactDays * 24 * time.Hour), Limit: events.MaxLimit}
	for {
		page, err := a.o.Events.Query(ctx, q)
		if err != nil {
			return nil, err
		}
		for _, e := range page.Events {
			out.Events++
			if !touches(e) {
				continue
			}
			if out.Touched++; len(out.Examples) < maxExamples {
				out.Examples = append(out.Examples, e.ID)
			}
		}
		if q.Cursor = page.Next; q.Cursor == "" {
			break
		}
		if out.Events >= impactEvents {
			out.Partial = true
			break
		}
	}
	if out.Events > 0 {
		out.Share = float64(out.Touched) / float64(out.Events)
	}
	return &Body[client.RuleTouched]{Body: out}, nil
}
