package fsm

import (
	"github.com/edgefleet/edgefleet/controlplane/command"
	"github.com/edgefleet/edgefleet/fleet"
)

// groupRekey begins the next epoch of a group's keys.
func (p *processor) groupRekey(b *command.GroupRekey) (any, error) {
	if _, ok := p.tx.Group(b.Group); !ok {
		return nil, fleet.NewError(fleet.ErrNotFound, "group", "node group %s does not exist", b.Group)
	}
	before := p.tx.Epoch(b.Group)
	if b.From != before.Number {
		return nil, fleet.NewError(fleet.ErrChanged, "epoch", "the keys of group %s are in epoch %d, not %d: somebody was faster; look at it with 'fleetctl group show %[1]s' and repeat if it is still needed", b.Group, before.Number, b.From)
	}
	switch b.Cause {
	case fleet.EpochDaily, fleet.EpochRekey:
	case fleet.EpochEvicted:
		if n, ok := p.tx.Node(b.Node); !ok || n.Identity.RevokedAt.IsZero() {
			return nil, fleet.Invalid("node", "node %q is not revoked: its eviction cannot end an epoch", b.Node)
		}
	case fleet.EpochFirst:
		fallthrough
	default:
		return nil, fleet.Invalid("cause", "%q is no reason to begin an epoch", string(b.Cause))
	}
	e := before
	e.Number, e.Since, e.Cause, e.Node, e.Meta = before.Number+1, p.header.Time, b.Cause, b.Node, p.meta(before.Meta)
	if b.Certificates {
		e.RekeyedAt, e.RekeyedBefore = p.header.Time, p.index
	}
	p.tx.PutEpoch(e)
	return e, p.audit(b, "group/"+string(b.Group)+"/keys", "", before, e)
}
