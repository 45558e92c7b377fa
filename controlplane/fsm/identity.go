package fsm

import (
	"github.com/edgefleet/edgefleet/controlplane/command"
	"github.com/edgefleet/edgefleet/fleet"
)

func (p *processor) nodeRotate(b *command.NodeRotate) (any, error) {
	before, err := p.enrolled(b.ID)
	if err != nil {
		return nil, err
	}
	if err := before.Refusal(); err != nil {
		return nil, err
	}
	n := before
	switch {
	case b.SPKI == before.Identity.SPKI:
		// It has proved to hold the current key, and asks for its certificate again: the answer was lost.
	case b.From == before.Identity.SPKI:
		n.Identity.SPKI = b.SPKI
		n.Renewal.Generation++
	default:
		return p.lock(before, "a machine with a copy of its identity asked for a renewal with a key that was replaced already")
	}
	n.Identity.NotAfter, n.Meta = b.NotAfter, p.meta(before.Meta)
	p.tx.PutNode(n)
	return n, p.audit(b, "node/"+string(n.ID), "", before, n)
}

func (p *processor) nodeLock(b *command.NodeLock) (any, error) {
	before, err := p.enrolled(b.ID)
	switch {
	case err != nil:
		return nil, err
	case b.Reason == "" || len(b.Reason) > fleet.MaxCommentLength:
		return nil, fleet.Invalid("reason", "a lock has a reason of 1 to %d bytes", fleet.MaxCommentLength)
	case before.Lock != nil:
		return nil, fleet.NewError(fleet.ErrConflict, "node", "node %s is locked already: %s", b.ID, before.Lock.Reason)
	}
	return p.lock(before, b.Reason)
}

// lock locks a node. Its audit entry is that of a lock, whatever found the second machine.
func (p *processor) lock(before fleet.Node, reason string) (any, error) {
	n := before
	n.Lock, n.Meta = &fleet.NodeLock{At: p.header.Time, Reason: reason}, p.meta(before.Meta)
	p.tx.PutNode(n)
	return n, p.audit(command.NodeLock{}, "node/"+string(n.ID), "", before, n)
}

func (p *processor) nodeUnlock(b *command.NodeUnlock) (any, error) {
	before, err := p.enrolled(b.ID)
	if err != nil {
		return nil, err
	}
	if before.Lock == nil {
		return nil, fleet.NewError(fleet.ErrConflict, "node", "node %s is not locked: there is nothing to unlock", b.ID)
	}
	n := before
	n.Lock, n.Meta = nil, p.meta(before.Meta)
	p.tx.PutNode(n)
	return n, p.audit(b, "node/"+string(n.ID), "", before, n)
}
