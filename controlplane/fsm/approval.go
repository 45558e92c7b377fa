package fsm

import (
	"cmp"
	"slices"

	"github.com/edgefleet/edgefleet/controlplane/command"
	"github.com/edgefleet/edgefleet/fleet"
)

func (p *processor) approvalPut(b *command.ApprovalPut) (any, error) {
	a := b.Approval
	if err := a.Validate(); err != nil {
		return nil, err
	}
	if _, ok := p.tx.Approval(a.ID); ok {
		return nil, fleet.NewError(fleet.ErrConflict, "approval", "approval %s exists already", a.ID)
	}
	waiting := 0
	for _, o := range p.tx.Approvals() {
		if o.Open(p.header.Time) {
			waiting++
		}
	}
	if waiting >= fleet.MaxPendingApprovals {
		return nil, fleet.NewError(fleet.ErrRateLimited, "approval", "%d requests wait for approval, which is the limit: decide some first", waiting)
	}
	p.forgetApprovals()
	a.State, a.Meta = fleet.ApprovalPending, p.meta(fleet.Meta{})
	p.tx.PutApproval(a)
	return a, p.audit(b, "approval/"+string(a.ID), "", nil, a)
}

// forgetApprovals makes room for one more: the oldest that nothing will come of any more go first.
func (p *processor) forgetApprovals() {
	all := p.tx.Approvals()
	over := slices.DeleteFunc(slices.Clone(all), func(a fleet.Approval) bool {
		return p.header.Time.Before(a.ExpiresAt) && (a.State == fleet.ApprovalPending || a.State == fleet.ApprovalApproved)
	})
	slices.SortFunc(over, func(a, b fleet.Approval) int { return cmp.Compare(a.Revision, b.Revision) })
	for i := 0; i < len(over) && len(all)-i >= fleet.MaxApprovals; i++ {
		p.tx.DeleteApproval(over[i].ID)
	}
}

func (p *processor) approvalDecide(b *command.ApprovalDecide) (any, error) {
	before, ok := p.tx.Approval(b.ID)
	switch {
	case !ok:
		return nil, fleet.NewError(fleet.ErrNotFound, "approval", "approval %s does not exist", b.ID)
	case before.State != fleet.ApprovalPending:
		return nil, fleet.NewError(fleet.ErrConflict, "approval", "approval %s is %s already", b.ID, before.State)
	case !before.Open(p.header.Time):
		return nil, fleet.NewError(fleet.ErrConflict, "approval", "approval %s expired: ask again", b.ID)
	case b.Approve && (b.By == "" || b.By == before.Requester):
		return nil, fleet.NewError(fleet.ErrDenied, "approval", "approval %s needs another person than %s, who asked", b.ID, before.Requester)
	case b.Approve && p.countAsOne(b.By, before.Requester):
		return nil, fleet.NewError(fleet.ErrDenied, "approval", "approval %s needs another person: %s and %s count as one, because one of them, or the same third person, made the first token of the other while four eyes were on ('fleetctl user show' says who)", b.ID, b.By, before.Requester)
	}
	a := before
	a.State, a.Approver, a.DecidedAt, a.Meta = fleet.ApprovalDenied, b.By, p.header.Time, p.meta(before.Meta)
	if b.Approve {
		a.State = fleet.ApprovalApproved
	}
	p.tx.PutApproval(a)
	return a, p.audit(b, "approval/"+string(a.ID), "", before, a)
}

// countAsOne reports whether two people may be one: whoever made somebody's first token could have kept it for themselves.
func (p *processor) countAsOne(a, b fleet.UserID) bool {
	behind := p.introducers(a)
	return slices.ContainsFunc(p.introducers(b), func(id fleet.UserID) bool { return slices.Contains(behind, id) })
}

// introducers are a person, who introduced them, who introduced those, and so on.
func (p *processor) introducers(id fleet.UserID) []fleet.UserID {
	var all []fleet.UserID
	for id != "" && !slices.Contains(all, id) {
		all = append(all, id)
		u, _ := p.tx.User(id)
		id = u.IntroducedBy
	}
	return all
}

// carryOut marks the approval that the command carries out, in the same step as the command: it counts once, whoever
// tries again. Later commands of the same request belong to it.
func (p *processor) carryOut() error {
	id := p.header.Approval
	if id == "" {
		return nil
	}
	a, ok := p.tx.Approval(id)
	switch {
	case ok && a.State == fleet.ApprovalExecuted && a.RequestID == p.header.RequestID:
		return nil
	case !ok || a.State != fleet.ApprovalApproved || a.Requester != p.header.User || a.Approver != p.header.ApprovedBy:
		return fleet.NewError(fleet.ErrConflict, "approval", "approval %s is not one that waits to be carried out: it is %s", id, a.State)
	case !p.header.Time.Before(a.ExpiresAt):
		return fleet.NewError(fleet.ErrConflict, "approval", "approval %s expired: ask again", id)
	}
	a.State, a.RequestID, a.Meta = fleet.ApprovalExecuted, p.header.RequestID, p.meta(a.Meta)
	p.tx.PutApproval(a)
	return nil
}

func (p *processor) approvalFinish(b *command.ApprovalFinish) (any, error) {
	before, ok := p.tx.Approval(b.ID)
	switch {
	case !ok:
		return nil, fleet.NewError(fleet.ErrNotFound, "approval", "approval %s does not exist", b.ID)
	case before.State != fleet.ApprovalApproved:
		return nil, fleet.NewError(fleet.ErrConflict, "approval", "approval %s is %s already", b.ID, before.State)
	}
	a := before
	a.State, a.RequestID, a.Detail, a.Meta = fleet.ApprovalExecuted, p.header.RequestID, b.Detail, p.meta(before.Meta)
	if b.Failed {
		a.State = fleet.ApprovalFailed
	}
	p.tx.PutApproval(a)
	return a, p.audit(b, "approval/"+string(a.ID), "", before, a)
}
