package fsm

import (
	"github.com/edgefleet/edgefleet/controlplane/command"
	"github.com/edgefleet/edgefleet/fleet"
)

// leaderTransfer leaves an audit entry: who leads is Raft's.
func (p *processor) leaderTransfer(b *command.LeaderTransfer) error {
	return p.audit(b, "member/"+string(b.From), "", nil, b)
}

func (p *processor) memberRetire(b *command.MemberRetire) error {
	before, ok := p.tx.Member(b.ID)
	if !ok {
		return fleet.NewError(fleet.ErrNotFound, "member", "member %s does not exist", b.ID)
	}
	p.tx.DeleteMember(b.ID)
	p.tx.PutRemovedMember(fleet.RemovedMember{
		Key: fleet.RemovedKey(b.ID, before.Join), ID: b.ID, Join: before.Join, RemovedAt: p.header.Time,
	})
	return p.audit(b, "member/"+string(b.ID), "", before, nil)
}

// notRemoved refuses a member that was removed and has not joined again.
func (p *processor) notRemoved(m fleet.Member) error {
	if _, removed := p.tx.RemovedMember(m.ID, m.Join); removed {
		return fleet.NewError(fleet.ErrDenied, "id", "member %s was removed from the cluster: join it again with a new token and an empty data directory", m.ID)
	}
	return nil
}
