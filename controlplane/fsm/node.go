package fsm

import (
	"slices"
	"time"

	"github.com/edgefleet/edgefleet/controlplane/command"
	"github.com/edgefleet/edgefleet/fleet"
)

func (p *processor) nodeEnrol(b *command.NodeEnrol) (any, error) {
	if _, taken := p.tx.Node(b.ID); taken {
		return nil, fleet.NewError(fleet.ErrConflict, "node", "node id %s is taken: choose another, or revoke that node if it is gone for good", b.ID)
	}
	t, err := p.consume(b.Token, fleet.JoinNode, string(b.ID))
	if err != nil {
		return nil, err
	}
	n := fleet.Node{ID: b.ID, Spec: b.Spec, Identity: b.Identity, Meta: p.meta(fleet.Meta{})}
	n.Identity.RevokedAt = time.Time{}
	n.Spec.Group, n.Spec.Region, n.Spec.Cordoned = t.Group, t.Region, false
	n.Observed = fleet.NodeObserved{State: fleet.NodeEnrolled, Since: p.header.Time}
	if err := p.checkNode(n); err != nil {
		return nil, err
	}
	p.tx.PutNode(n)
	return n, p.audit(b, "node/"+string(n.ID), "", nil, n)
}

// checkNode holds a node against its invariants and the other nodes' addresses.
func (p *processor) checkNode(n fleet.Node) error {
	if err := n.Validate(); err != nil {
		return err
	}
	for _, o := range p.tx.Nodes() {
		if o.ID == n.ID || !o.Identity.RevokedAt.IsZero() {
			continue
		}
		for _, a := range n.Spec.Addresses {
			if slices.Contains(o.Spec.Addresses, a) {
				return fleet.NewError(fleet.ErrConflict, "addresses", "address %s belongs to node %s: revoke that node first if it is gone for good", a, o.ID)
			}
		}
	}
	return nil
}

// enrolled returns a node whose identity is valid.
func (p *processor) enrolled(id fleet.NodeID) (fleet.Node, error) {
	n, ok := p.tx.Node(id)
	switch {
	case !ok:
		return n, fleet.NewError(fleet.ErrNotFound, "node", "node %s does not exist", id)
	case !n.Identity.RevokedAt.IsZero():
		return n, fleet.NewError(fleet.ErrDenied, "node", "node %s was revoked: enrol the machine as a new node", id)
	}
	return n, nil
}

func (p *processor) nodeRenew(b *command.NodeRenew) (any, error) {
	before, err := p.enrolled(b.ID)
	if err != nil {
		return nil, err
	}
	n := before
	n.Identity.SPKI, n.Identity.NotAfter, n.Meta = b.SPKI, b.NotAfter, p.meta(before.Meta)
	p.tx.PutNode(n)
	return n, p.audit(b, "node/"+string(n.ID), "", before, n)
}

func (p *processor) nodePut(b *command.NodePut) (any, error) {
	before, ok := p.tx.Node(b.ID)
	if b.Create && !ok {
		return nil, fleet.Invalid("node", "a node comes to be by enrolment: make a join token and start the node with it")
	}
	if err := check(b.Put, ok, before.Meta, "node "+string(b.ID)); err != nil {
		return nil, err
	}
	if _, err := p.enrolled(b.ID); err != nil {
		return nil, err
	}
	n := before
	n.Spec, n.Meta = b.Spec, p.meta(before.Meta)
	if err := p.checkNode(n); err != nil {
		return nil, err
	}
	if _, known := p.tx.Group(n.Spec.Group); !known {
		return nil, fleet.NewError(fleet.ErrNotFound, "group", "node group %s does not exist", n.Spec.Group)
	}
	p.tx.PutNode(n)
	return n, p.audit(b, "node/"+string(n.ID), "", before, n)
}

func (p *processor) nodeRevoke(b *command.NodeRevoke) error {
	before, err := p.enrolled(b.ID)
	if err != nil {
		return err
	}
	n := before
	n.Identity.RevokedAt, n.Meta = p.header.Time, p.meta(before.Meta)
	p.tx.PutNode(n)
	return p.audit(b, "node/"+string(n.ID), "", before, n)
}

func (p *processor) nodesReport(b *command.NodesReport) {
	for _, r := range b.Reports {
		if n, err := p.enrolled(r.ID); err == nil {
			n.Observed = r.Observed
			p.tx.PutNode(n)
		}
	}
}

func (p *processor) headsAdvance(b *command.HeadsAdvance) error {
	cluster, _ := p.tx.Cluster()
	for _, a := range b.Heads {
		if err := p.checkHead(a); err != nil {
			return err
		}
		before, ok := p.tx.Head(a.Group, a.Kind)
		next := fleet.Version{Incarnation: cluster.Incarnation, Generation: 1}
		if ok && before.Version.Incarnation == cluster.Incarnation {
			next.Generation = before.Version.Generation + 1
		}
		if a.Version != next {
			return fleet.NewError(fleet.ErrStale, "head", "head %s of group %s is at generation %d, so the next is %d, not %d",
				a.Kind, a.Group, before.Version.Generation, next.Generation, a.Version.Generation)
		}
		h := fleet.GroupHead{Group: a.Group, Kind: a.Kind, Version: a.Version, Root: a.Root, Meta: p.meta(before.Meta)}
		p.tx.PutHead(h)
		if err := p.audit(b, "head/"+string(a.Group)+"/"+string(a.Kind), "", orNil(before, ok), h); err != nil {
			return err
		}
	}
	return nil
}

func (p *processor) checkHead(a command.HeadAdvance) error {
	if err := a.Kind.Validate(); err != nil {
		return err
	}
	if _, ok := p.tx.Group(a.Group); !ok {
		return fleet.NewError(fleet.ErrNotFound, "group", "node group %s does not exist", a.Group)
	}
	return a.Root.Validate()
}
