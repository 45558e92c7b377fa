package fsm

import (
	"github.com/edgefleet/edgefleet/controlplane/command"
	"github.com/edgefleet/edgefleet/fleet"
)

// auditedRules is what the audit log keeps of an import: the rules that it wrote or deleted, before and after.
type auditedRules struct {
	Rules []fleet.Rule `json:"rules,omitempty"`
}

// rulesImport checks everything before it writes anything.
func (p *processor) rulesImport(b *command.RulesImport) (any, error) {
	if _, known := p.tx.Tenant(b.Tenant); !known {
		return nil, fleet.NewError(fleet.ErrNotFound, "tenant", "tenant %s does not exist", b.Tenant)
	}
	current := map[fleet.RuleID]fleet.Rule{}
	var last uint64
	for _, r := range p.tx.RulesOf(b.Tenant) {
		current[r.ID] = r
		last = max(last, r.Revision)
	}
	if b.Base != nil && *b.Base != (command.RulesBase{Count: len(current), Revision: last}) {
		return nil, fleet.NewError(fleet.ErrChanged, "rules", "the rules of tenant %s changed meanwhile: import again", b.Tenant)
	}
	out := command.RulesImported{Added: []fleet.RuleID{}, Changed: []fleet.RuleID{}, Deleted: append([]fleet.RuleID{}, b.Delete...)}
	var before, after auditedRules
	gone := map[fleet.RuleID]bool{}
	for _, id := range b.Delete {
		r, ok := current[id]
		if !ok || gone[id] {
			return nil, fleet.NewError(fleet.ErrNotFound, "rule", "rule %s does not exist", id)
		}
		gone[id] = true
		before.Rules = append(before.Rules, r)
	}
	put := map[fleet.RuleID]bool{}
	for _, e := range b.Put {
		old, ok := current[e.ID]
		if put[e.ID] || gone[e.ID] {
			return nil, fleet.Invalid("rules", "rule %s is there twice", e.ID)
		}
		put[e.ID] = true
		if ok {
			before.Rules = append(before.Rules, old)
			out.Changed = append(out.Changed, e.ID)
		} else {
			out.Added = append(out.Added, e.ID)
			if _, taken := p.tx.Rule(e.ID); taken {
				return nil, fleet.NewError(fleet.ErrConflict, "id", "rule id %s is taken: choose another one", e.ID)
			}
		}
		r := fleet.Rule{ID: e.ID, Tenant: b.Tenant, Spec: e.Spec, Meta: p.meta(old.Meta)}
		if err := r.Validate(); err != nil {
			return nil, err
		}
		after.Rules = append(after.Rules, r)
	}
	if n := len(current) + len(out.Added) - len(out.Deleted); n > fleet.MaxRulesPerTenant {
		return nil, fleet.NewError(fleet.ErrTooLarge, "rules", "tenant %s would have %d rules; the limit is %d", b.Tenant, n, fleet.MaxRulesPerTenant)
	}
	for _, id := range b.Delete {
		p.tx.DeleteRule(id)
	}
	for _, r := range after.Rules {
		p.tx.PutRule(r)
	}
	out.Unchanged = len(current) - len(out.Changed) - len(out.Deleted)
	return out, p.audit(b, "rules/"+string(b.Tenant), b.Tenant, before, after)
}
