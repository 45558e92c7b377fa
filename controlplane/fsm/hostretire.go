package fsm

import (
	"github.com/edgefleet/edgefleet/controlplane/command"
	"github.com/edgefleet/edgefleet/fleet"
)

// hostRetire wipes what a host has, and keeps its name from others until the edges have let go of it.
func (p *processor) hostRetire(b *command.HostRetire) (any, error) {
	before, ok := p.tx.Host(b.Name)
	ok = ok && before.Tenant == b.Tenant
	if err := check(command.Put{IfRevision: b.IfRevision}, ok, before.Meta, "host "+string(b.Name)); err != nil {
		return nil, err
	}
	if err := live(before); err != nil {
		return nil, err
	}
	if c, ok := p.tx.Certificate(b.Name); ok {
		p.superseded(c.Certificate)
	}
	p.tx.DeleteHost(b.Name)
	h := before
	h.Meta = p.meta(before.Meta)
	h.Desired.DeletingSince = p.header.Time
	gone := fleet.Condition{State: fleet.ConditionUnknown, Message: "the host is being deleted", Since: p.header.Time}
	h.Observed = fleet.HostObserved{Phase: fleet.PhaseDeleting, Status: fleet.StatusSuspended, Ownership: gone, Certificate: gone, Routing: gone}
	p.tx.PutHost(h)
	p.tx.PutLabel(fleet.Label{Label: h.Desired.Label, Host: h.Name, Tenant: h.Tenant, DeletedAt: p.header.Time})
	return h, p.audit(b, "host/"+string(h.Name), h.Tenant, before, h)
}

// live refuses what is asked for a host that is being deleted.
func live(h fleet.Host) error {
	if !h.Deleting() {
		return nil
	}
	return fleet.NewError(fleet.ErrConflict, "host", "host %s is being deleted: its name is free when every edge has let go of it, within seconds while they are well (see 'fleetctl host show %[1]s')", h.Name)
}

// revive takes back the tombstones of labels whose hosts a restore brought back.
func (p *processor) revive() {
	for _, l := range p.tx.Labels() {
		if l.DeletedAt.IsZero() {
			continue
		}
		if h, ok := p.tx.Host(l.Host); ok && h.Desired.Label == l.Label && !h.Deleting() {
			p.tx.PutLabel(fleet.Label{Label: l.Label, Host: l.Host})
		}
	}
}
