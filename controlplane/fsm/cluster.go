package fsm

import (
	"github.com/edgefleet/edgefleet/controlplane/command"
	"github.com/edgefleet/edgefleet/fleet"
)

func (p *processor) clusterInit(b *command.ClusterInit) (any, error) {
	if c, ok := p.tx.Cluster(); ok {
		return nil, fleet.NewError(fleet.ErrConflict, "cluster", "cluster %s is initialised already", c.ID)
	}
	c := b.Cluster
	if err := fleet.ValidateID("cluster", c.ID); err != nil {
		return nil, err
	}
	if _, err := fleet.ParseHostName(string(c.Zone)); err != nil {
		return nil, err
	}
	if err := fleet.ValidateID("member", b.Member.ID); err != nil {
		return nil, err
	}
	if b.Token.Role != fleet.RoleOperator {
		return nil, fleet.Invalid("role", "the first token of a cluster has the role operator, not %q", string(b.Token.Role))
	}
	if err := checkToken(b.Token); err != nil {
		return nil, err
	}
	c.Incarnation, c.Meta = 1, p.meta(fleet.Meta{})
	p.tx.PutCluster(c)
	m := b.Member
	m.Meta = p.meta(fleet.Meta{})
	p.tx.PutMember(m)
	p.tx.PutGroup(fleet.Group{Name: fleet.DefaultGroup, Spec: fleet.GroupSpec{Form: fleet.SecurityEdge}, Meta: p.meta(fleet.Meta{})})
	t := b.Token
	t.Meta = p.meta(fleet.Meta{})
	p.tx.PutToken(t)
	return c.Cluster, p.audit(b, "cluster/"+string(c.ID), "", nil, c.Cluster)
}

func (p *processor) memberJoin(b *command.MemberJoin) (any, error) {
	if err := fleet.ValidateID("member", b.Member.ID); err != nil {
		return nil, err
	}
	if _, taken := p.tx.Member(b.Member.ID); taken {
		return nil, fleet.NewError(fleet.ErrConflict, "member", "member id %s is taken: choose another, or remove that member if it is gone for good", b.Member.ID)
	}
	if _, err := p.consume(b.Token, fleet.JoinMember, string(b.Member.ID)); err != nil {
		return nil, err
	}
	m := b.Member
	m.Meta = p.meta(fleet.Meta{})
	p.tx.PutMember(m)
	return m, p.audit(b, "member/"+string(m.ID), "", nil, m)
}

func (p *processor) memberPut(b *command.MemberPut) (any, error) {
	if err := fleet.ValidateID("member", b.Member.ID); err != nil {
		return nil, err
	}
	if err := p.notRemoved(b.Member); err != nil {
		return nil, err
	}
	before, ok := p.tx.Member(b.Member.ID)
	m := b.Member
	m.Meta = p.meta(before.Meta)
	p.tx.PutMember(m)
	if !ok {
		return m, p.audit(b, "member/"+string(m.ID), "", nil, m)
	}
	return m, p.audit(b, "member/"+string(m.ID), "", before, m)
}

func (p *processor) memberRemove(b *command.MemberRemove) error {
	before, ok := p.tx.Member(b.ID)
	if !ok {
		return fleet.NewError(fleet.ErrNotFound, "member", "member %s does not exist", b.ID)
	}
	p.tx.DeleteMember(b.ID)
	return p.audit(b, "member/"+string(b.ID), "", before, nil)
}

func (p *processor) joinTokenPut(b *command.JoinTokenPut) (any, error) {
	t := b.Token
	if err := fleet.ValidateID("token", t.ID); err != nil {
		return nil, err
	}
	if len(t.Hash) != fleet.HashBytes {
		return nil, fleet.Invalid("hash", "a token hash has %d bytes", fleet.HashBytes)
	}
	switch t.Kind {
	case fleet.JoinNode:
		if _, ok := p.tx.Group(t.Group); !ok {
			return nil, fleet.NewError(fleet.ErrNotFound, "group", "node group %s does not exist", t.Group)
		}
		if err := fleet.ValidateID("region", t.Region); err != nil {
			return nil, err
		}
	case fleet.JoinMember:
	default:
		return nil, fleet.Invalid("kind", "%q is not a kind of join token: use node or member", string(t.Kind))
	}
	if _, ok := p.tx.JoinToken(t.ID); ok {
		return nil, fleet.NewError(fleet.ErrConflict, "token", "join token %s exists already", t.ID)
	}
	t.Meta = p.meta(fleet.Meta{})
	p.tx.PutJoinToken(t)
	return t.JoinToken, p.audit(b, "join_token/"+string(t.ID), "", nil, t.JoinToken)
}

// consume marks a join token used. The secret was compared by the proposer; what counts here is that only one wins.
func (p *processor) consume(id fleet.TokenID, kind fleet.JoinKind, by string) (fleet.JoinTokenRecord, error) {
	t, ok := p.tx.JoinToken(id)
	switch {
	case !ok || t.Kind != kind:
		return t, fleet.NewError(fleet.ErrDenied, "token", "join token is not known: ask an operator for a new one")
	case t.UsedBy != "":
		return t, fleet.NewError(fleet.ErrDenied, "token", "join token %s was used already: a token admits one %s; ask an operator for a new one", id, kind)
	case !p.header.Time.Before(t.ExpiresAt):
		return t, fleet.NewError(fleet.ErrDenied, "token", "join token %s expired at %s: ask an operator for a new one", id, t.ExpiresAt.Format("15:04:05 MST"))
	}
	t.UsedBy = by
	t.Meta = p.meta(t.Meta)
	p.tx.PutJoinToken(t)
	return t, nil
}

func (p *processor) entryPut(b *command.EntryPut) error {
	if b.Key == "" || len(b.Key) > 512 {
		return fleet.Invalid("key", "an entry key has 1 to 512 bytes")
	}
	p.tx.PutEntry(fleet.Entry{Key: b.Key, Value: b.Value, UpdatedAt: p.header.Time})
	return p.audit(b, "entry/"+b.Key, "", nil, nil)
}

func (p *processor) entryDelete(b *command.EntryDelete) error {
	p.tx.DeleteEntry(b.Key)
	return p.audit(b, "entry/"+b.Key, "", nil, nil)
}
