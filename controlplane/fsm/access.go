package fsm

import (
	"strings"

	"github.com/edgefleet/edgefleet/controlplane/command"
	"github.com/edgefleet/edgefleet/fleet"
)

// admitted applies a command if the person who asked for it may still act: nothing that was under way when a user was
// disabled is applied after it.
func (p *processor) admitted(b command.Body) (any, error) {
	if err := p.admit(); err != nil {
		return nil, err
	}
	if err := p.carryOut(); err != nil {
		return nil, err
	}
	return p.apply(b)
}

func (p *processor) admit() error {
	if p.header.User == "" {
		return nil
	}
	id, _ := strings.CutPrefix(p.header.Name, "token/")
	t, ok := p.tx.Token(fleet.TokenID(id))
	u, known := p.tx.User(p.header.User)
	if !ok || !known || u.Spec.Disabled || t.Owner != u.ID || t.Ended(p.header.Time) {
		return fleet.NewError(fleet.ErrUnauthenticated, "token", "the API token ended while the request was under way; nothing was changed")
	}
	return nil
}

// access applies the commands of people's access; known is false for all others.
func (p *processor) access(b command.Body) (obj any, known bool, err error) {
	switch b := b.(type) {
	case *command.UserPut:
		obj, err = p.userPut(b)
	case *command.UserDelete:
		err = p.userDelete(b)
	case *command.RolePut:
		obj, err = p.rolePut(b)
	case *command.RoleDelete:
		err = p.roleDelete(b)
	case *command.TokenIssue:
		obj, err = p.tokenIssue(b)
	case *command.TokensUsed:
		p.tokensUsed(b)
	case *command.AccessPut:
		obj, err = p.accessPut(b)
	case *command.ApprovalPut:
		obj, err = p.approvalPut(b)
	case *command.ApprovalDecide:
		obj, err = p.approvalDecide(b)
	case *command.ApprovalFinish:
		obj, err = p.approvalFinish(b)
	default:
		return nil, false, nil
	}
	return obj, true, err
}

func (p *processor) userPut(b *command.UserPut) (any, error) {
	before, ok := p.tx.User(b.ID)
	if err := check(b.Put, ok, before.Meta, "user "+string(b.ID)); err != nil {
		return nil, err
	}
	u := before
	u.ID, u.Tenant, u.Spec, u.Meta = b.ID, b.Tenant, b.Spec, p.meta(before.Meta)
	u.Activated = u.Activated || b.Activated
	if err := u.Validate(); err != nil {
		return nil, err
	}
	if _, known := p.tx.Tenant(u.Tenant); u.Tenant != "" && !known {
		return nil, fleet.NewError(fleet.ErrNotFound, "tenant", "tenant %s does not exist", u.Tenant)
	}
	if n := len(p.tx.UsersOf(u.Tenant)); !ok && n >= fleet.MaxUsersPerScope {
		return nil, fleet.NewError(fleet.ErrTooLarge, "users", "there are %d users; the limit is %d: delete idle ones", n, fleet.MaxUsersPerScope)
	}
	for _, r := range u.Spec.Roles {
		if len(p.tx.RolePermissions(u.Tenant, r)) == 0 {
			return nil, fleet.NewError(fleet.ErrNotFound, "roles", "there is no role %q: 'fleetctl role list' shows those that there are", string(r))
		}
	}
	err := p.keepAWayIn(func() { p.tx.PutUser(u) })
	if err != nil {
		return nil, err
	}
	return u, p.audit(b, "user/"+string(u.ID), u.Tenant, orNil(before, ok), u)
}

func (p *processor) userDelete(b *command.UserDelete) error {
	before, ok := p.tx.User(b.ID)
	if err := check(command.Put{IfRevision: b.IfRevision}, ok, before.Meta, "user "+string(b.ID)); err != nil {
		return err
	}
	if err := p.keepAWayIn(func() { p.tx.DeleteUser(b.ID) }); err != nil {
		return err
	}
	return p.audit(b, "user/"+string(b.ID), before.Tenant, before, nil)
}

// keepAWayIn makes a change unless it takes the last operator token with which users and tokens can be managed.
func (p *processor) keepAWayIn(change func()) error {
	had := p.wayIn()
	change()
	if had && !p.wayIn() {
		return fleet.NewError(fleet.ErrConflict, "", "nobody could manage access any more: this is the last administrator, or the last operator token of one; make another first")
	}
	return nil
}

func (p *processor) wayIn() bool {
	for _, t := range p.tx.TokensAfter("", "", int(^uint(0)>>1)) {
		if t.Role == fleet.RoleOperator && !t.Ended(p.header.Time) && p.tx.TokenPermissions(t.Token).Has(fleet.PermUsersWrite) {
			return true
		}
	}
	return false
}

func (p *processor) rolePut(b *command.RolePut) (any, error) {
	r := b.Role
	if err := r.Validate(); err != nil {
		return nil, err
	}
	if _, known := p.tx.Tenant(r.Tenant); r.Tenant != "" && !known {
		return nil, fleet.NewError(fleet.ErrNotFound, "tenant", "tenant %s does not exist", r.Tenant)
	}
	if _, taken := p.tx.Role(r.Name, r.Tenant); taken {
		return nil, fleet.NewError(fleet.ErrConflict, "name", "role %s exists already: choose another name, or delete it first", r.Name)
	}
	if n := len(p.tx.RolesOf(r.Tenant)); n >= fleet.MaxRolesPerScope {
		return nil, fleet.NewError(fleet.ErrTooLarge, "roles", "there are %d custom roles; the limit is %d", n, fleet.MaxRolesPerScope)
	}
	r.Meta = p.meta(fleet.Meta{})
	p.tx.PutRole(r)
	return r, p.audit(b, "role/"+r.Key, r.Tenant, nil, r)
}

func (p *processor) roleDelete(b *command.RoleDelete) error {
	name, tenant := fleet.UserID(b.Key).Split()
	before, ok := p.tx.Role(fleet.RoleName(name), tenant)
	if !ok {
		return fleet.NewError(fleet.ErrNotFound, "role", "there is no custom role %s", name)
	}
	for _, u := range p.tx.UsersOf(tenant) {
		for _, r := range u.Spec.Roles {
			if r == before.Name {
				return fleet.NewError(fleet.ErrConflict, "role", "user %s has the role %s: give them another first", u.ID, r)
			}
		}
	}
	p.tx.DeleteRole(b.Key)
	return p.audit(b, "role/"+b.Key, before.Tenant, before, nil)
}

func (p *processor) tokenIssue(b *command.TokenIssue) (any, error) {
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
	var before any
	if b.Replaces != "" {
		old, ok := p.tx.Token(b.Replaces)
		if !ok || old.Owner != t.Owner || old.Tenant != t.Tenant || old.Role != t.Role {
			return nil, fleet.NewError(fleet.ErrNotFound, "token", "token %s does not exist (any more)", b.Replaces)
		}
		t.MadeBy, before = old.MadeBy, old.Token
		p.tx.DeleteToken(old.ID)
	}
	if err := p.issueTo(&t.Token, b); err != nil {
		return nil, err
	}
	t.Meta = p.meta(fleet.Meta{})
	p.tx.PutToken(t)
	return t.Token, p.audit(b, "token/"+string(t.ID), t.Tenant, before, t.Token)
}

// issueTo holds a new token against its owner. The first rotation of a token that somebody else made makes it the
// owner's own; so does a token that the owner made with one of their own.
func (p *processor) issueTo(t *fleet.Token, b *command.TokenIssue) error {
	if t.Owner == "" {
		if n := p.tx.ServiceTokens(t.Tenant); n >= fleet.MaxServiceTokens {
			return fleet.NewError(fleet.ErrTooLarge, "token", "there are %d service tokens; the limit is %d: revoke idle ones", n, fleet.MaxServiceTokens)
		}
		return nil
	}
	u, ok := p.tx.User(t.Owner)
	switch {
	case !ok:
		return fleet.NewError(fleet.ErrNotFound, "user", "user %s does not exist", t.Owner)
	case u.Spec.Disabled:
		return fleet.NewError(fleet.ErrConflict, "user", "user %s is disabled: enable them first", t.Owner)
	case t.ExpiresAt.IsZero():
		return fleet.Invalid("ttl", "a person's token ends some day")
	}
	if n := len(p.tx.TokensOf(u.ID)); n >= fleet.MaxTokensPerUser {
		return fleet.NewError(fleet.ErrTooLarge, "token", "user %s has %d tokens, which is the limit: revoke some", u.ID, n)
	}
	if b.Replaces != "" && !u.Activated {
		t.MadeBy = u.ID
	}
	if t.MadeBy == u.ID && !u.Activated {
		u.Activated, u.IntroducedBy = true, b.IntroducedBy
		p.tx.PutUser(u)
	}
	return nil
}

func (p *processor) tokensUsed(b *command.TokensUsed) {
	for _, use := range b.Uses {
		t, ok := p.tx.Token(use.ID)
		if !ok || !use.At.After(t.LastUsedAt) {
			continue
		}
		t.LastUsedAt = use.At
		p.tx.PutToken(t)
		if u, ok := p.tx.User(t.Owner); ok && use.At.After(u.LastSeenAt) {
			u.LastSeenAt = use.At
			p.tx.PutUser(u)
		}
	}
}

func (p *processor) accessPut(b *command.AccessPut) (any, error) {
	before := p.tx.Access()
	if err := check(command.Put{IfRevision: b.IfRevision}, true, before.Meta, "the access policy"); err != nil {
		return nil, err
	}
	policy := b.Policy
	policy.ID, policy.Meta = fleet.AccessID, p.meta(before.Meta)
	if err := policy.Validate(); err != nil {
		return nil, err
	}
	if policy.FourEyes && !before.FourEyes {
		if n := p.approvers(); n < 2 {
			return nil, fleet.NewError(fleet.ErrConflict, "four_eyes", "four eyes need two: %d of the vendor's users are enabled, may approve and have a token that only they know ('fleetctl token rotate' with their first one)", n)
		}
	}
	p.tx.PutAccess(policy)
	return policy, p.audit(b, "access", "", before, policy)
}

// approvers counts the people who can approve.
func (p *processor) approvers() int {
	n := 0
	for _, u := range p.tx.UsersOf("") {
		if u.Activated && !u.Spec.Disabled && p.tx.UserPermissions(u).Has(fleet.PermApprovalsDecide) {
			n++
		}
	}
	return n
}
