package fsm

import "github.com/edgefleet/edgefleet/controlplane/command"

// leaderTransfer leaves an audit entry: who leads is Raft's.
func (p *processor) leaderTransfer(b *command.LeaderTransfer) error {
	return p.audit(b, "member/"+string(b.From), "", nil, b)
}
