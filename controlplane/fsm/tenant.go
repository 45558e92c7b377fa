package fsm

import (
	"github.com/edgefleet/edgefleet/controlplane/command"
	"github.com/edgefleet/edgefleet/fleet"
)

func (p *processor) groupPut(b *command.GroupPut) (any, error) {
	before, ok := p.tx.Group(b.Name)
	if err := check(b.Put, ok, before.Meta, "node group "+string(b.Name)); err != nil {
		return nil, err
	}
	g := fleet.Group{Name: b.Name, Spec: b.Spec, Meta: p.meta(before.Meta)}
	if err := g.Validate(); err != nil {
		return nil, err
	}
	p.tx.PutGroup(g)
	return g, p.audit(b, "group/"+string(g.Name), "", orNil(before, ok), g)
}

func (p *processor) tenantPut(b *command.TenantPut) (any, error) {
	before, ok := p.tx.Tenant(b.ID)
	if err := check(b.Put, ok, before.Meta, "tenant "+string(b.ID)); err != nil {
		return nil, err
	}
	t := fleet.Tenant{ID: b.ID, Spec: b.Spec, Meta: p.meta(before.Meta)}
	if err := t.Validate(); err != nil {
		return nil, err
	}
	if _, ok := p.tx.Group(t.Spec.Group); !ok {
		return nil, fleet.NewError(fleet.ErrNotFound, "group", "node group %s does not exist", t.Spec.Group)
	}
	p.tx.PutTenant(t)
	return t, p.audit(b, "tenant/"+string(t.ID), t.ID, orNil(before, ok), t)
}

func (p *processor) tenantDelete(b *command.TenantDelete) error {
	before, ok := p.tx.Tenant(b.ID)
	if err := check(command.Put{IfRevision: b.IfRevision}, ok, before.Meta, "tenant "+string(b.ID)); err != nil {
		return err
	}
	if n := len(p.tx.HostsOf(b.ID)); n > 0 {
		return fleet.NewError(fleet.ErrConflict, "tenant", "tenant %s still has %d hosts: delete them first", b.ID, n)
	}
	p.tx.DeleteTenant(b.ID)
	return p.audit(b, "tenant/"+string(b.ID), b.ID, before, nil)
}

func (p *processor) tokenPut(b *command.TokenPut) (any, error) {
	t := b.Token
	if err := checkToken(t); err != nil {
		return nil, err
	}
	if _, ok := p.tx.Token(t.ID); ok {
		return nil, fleet.NewError(fleet.ErrConflict, "token", "token %s exists already", t.ID)
	}
	if _, ok := p.tx.Tenant(t.Tenant); t.Role == fleet.RoleTenant && !ok {
		return nil, fleet.NewError(fleet.ErrNotFound, "tenant", "tenant %s does not exist", t.Tenant)
	}
	t.Meta = p.meta(fleet.Meta{})
	p.tx.PutToken(t)
	return t.Token, p.audit(b, "token/"+string(t.ID), t.Tenant, nil, t.Token)
}

func checkToken(t fleet.TokenRecord) error {
	if err := t.Validate(); err != nil {
		return err
	}
	if len(t.Hash) != fleet.HashBytes {
		return fleet.Invalid("hash", "a token hash has %d bytes", fleet.HashBytes)
	}
	return nil
}

func (p *processor) tokenDelete(b *command.TokenDelete) error {
	before, ok := p.tx.Token(b.ID)
	if !ok || (b.Tenant != "" && before.Tenant != b.Tenant) {
		return fleet.NewError(fleet.ErrNotFound, "token", "token %s does not exist", b.ID)
	}
	if err := p.keepAWayIn(func() { p.tx.DeleteToken(b.ID) }); err != nil {
		return err
	}
	return p.audit(b, "token/"+string(b.ID), before.Tenant, before.Token, nil)
}

func (p *processor) rulePut(b *command.RulePut) (any, error) {
	before, ok := p.tx.Rule(b.ID)
	ok = ok && before.Tenant == b.Tenant
	if err := check(b.Put, ok, before.Meta, "rule "+string(b.ID)); err != nil {
		return nil, err
	}
	if !ok {
		before = fleet.Rule{}
		if _, taken := p.tx.Rule(b.ID); taken {
			return nil, fleet.NewError(fleet.ErrConflict, "id", "rule id %s is taken: leave it out to have one made", b.ID)
		}
	}
	if _, known := p.tx.Tenant(b.Tenant); !known {
		return nil, fleet.NewError(fleet.ErrNotFound, "tenant", "tenant %s does not exist", b.Tenant)
	}
	if n := len(p.tx.RulesOf(b.Tenant)); !ok && n >= fleet.MaxRulesPerTenant {
		return nil, fleet.NewError(fleet.ErrTooLarge, "rules", "tenant %s has %d rules; the limit is %d", b.Tenant, n, fleet.MaxRulesPerTenant)
	}
	r := fleet.Rule{ID: b.ID, Tenant: b.Tenant, Spec: b.Spec, Meta: p.meta(before.Meta)}
	if err := r.Validate(); err != nil {
		return nil, err
	}
	p.tx.PutRule(r)
	return r, p.audit(b, "rule/"+string(r.ID), r.Tenant, orNil(before, ok), r)
}

func (p *processor) ruleDelete(b *command.RuleDelete) error {
	before, ok := p.tx.Rule(b.ID)
	ok = ok && before.Tenant == b.Tenant
	if err := check(command.Put{IfRevision: b.IfRevision}, ok, before.Meta, "rule "+string(b.ID)); err != nil {
		return err
	}
	p.tx.DeleteRule(b.ID)
	return p.audit(b, "rule/"+string(b.ID), b.Tenant, before, nil)
}

// orNil keeps the audit entry of a new object free of an empty before.
func orNil[T any](v T, ok bool) any {
	if !ok {
		return nil
	}
	return v
}
