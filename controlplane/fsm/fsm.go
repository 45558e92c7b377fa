// Package fsm is the replicated state machine: it applies committed commands to the state.
//
// It owns which change is allowed in which state, revisions, and the audit chain. It has no clock, randomness, I/O,
// goroutine or map order: the same log gives the same state on every member. A command that is refused changes
// nothing and answers with an error; an entry that cannot be decoded panics, which halts the member loudly, because
// skipping it would let members diverge.
package fsm

import (
	"encoding/json"
	"fmt"
	"io"

	"github.com/hashicorp/raft"

	"github.com/edgefleet/edgefleet/controlplane/command"
	"github.com/edgefleet/edgefleet/controlplane/state"
	"github.com/edgefleet/edgefleet/fleet"
)

// FSM implements raft.FSM over a state.
type FSM struct {
	state *state.Store
}

// New makes the state machine of s.
func New(s *state.Store) *FSM { return &FSM{state: s} }

// Result is what Apply answers: the object as it is now, or why the command was refused.
type Result struct {
	Object any
	Err    *fleet.Error
}

// Apply applies one committed entry and answers a Result.
func (f *FSM) Apply(l *raft.Log) any { return f.ApplyBatch([]*raft.Log{l})[0] }

// ApplyBatch implements raft.BatchingFSM: it applies committed entries in one transaction and answers a Result for each.
// The result is the same however the log is cut into batches.
func (f *FSM) ApplyBatch(logs []*raft.Log) []any {
	commands := make([]decoded, len(logs))
	for i, l := range logs {
		commands[i] = decode(l)
	}
	results := make([]any, len(logs))
	tx := f.state.Write()
	defer func() { tx.Abort() }()
	for i, c := range commands {
		before := tx.Writes()
		obj, err := c.apply(tx)
		if err == nil {
			results[i] = Result{Object: obj}
			continue
		}
		results[i] = Result{Err: fleet.AsError(err)}
		if tx.Writes() == before {
			continue
		}
		// The refused command had begun to write: without it, what came before is done again.
		tx.Abort()
		tx = f.state.Write()
		for j, done := range commands[:i] {
			if r, ok := results[j].(Result); ok && r.Err == nil {
				_, _ = done.apply(tx) // succeeds as it did
			}
		}
	}
	// The index moves on even when a command is refused: equal index, equal hash.
	tx.SetIndex(logs[len(logs)-1].Index)
	tx.Commit()
	return results
}

// decoded is a command and its place in the log.
type decoded struct {
	index  uint64
	header command.Header
	body   command.Body
}

func decode(l *raft.Log) decoded {
	h, body, err := command.Decode(l.Data)
	if err != nil {
		panic(fmt.Sprintf("log entry %d (term %d) cannot be applied; this member stops so that it does not diverge: %v", l.Index, l.Term, err))
	}
	return decoded{l.Index, h, body}
}

func (d decoded) apply(tx *state.Tx) (any, error) {
	p := &processor{tx: tx, index: d.index, header: d.header}
	return p.once(d.body)
}

// Snapshot returns a view that is written while later commands are applied.
func (f *FSM) Snapshot() (raft.FSMSnapshot, error) { return &snapshot{view: f.state.Read()}, nil }

// Restore replaces the state by a snapshot, all or nothing.
func (f *FSM) Restore(rc io.ReadCloser) error {
	defer func() { _ = rc.Close() }()
	if err := f.state.Restore(rc); err != nil {
		return fmt.Errorf("restore state: %w", err)
	}
	return nil
}

type snapshot struct {
	view *state.View
}

// Persist writes the snapshot.
func (s *snapshot) Persist(sink raft.SnapshotSink) error {
	if _, err := s.view.WriteTo(sink); err != nil {
		_ = sink.Cancel()
		return fmt.Errorf("persist snapshot: %w", err)
	}
	return sink.Close()
}

// Release does nothing: the view holds no resource.
func (*snapshot) Release() {}

// processor applies one command within one transaction.
type processor struct {
	tx     *state.Tx
	index  uint64
	header command.Header
}

func (p *processor) apply(b command.Body) (any, error) {
	switch b := b.(type) {
	case *command.ClusterInit:
		return p.clusterInit(b)
	case *command.MemberPut:
		return p.memberPut(b)
	case *command.MemberRemove:
		return nil, p.memberRemove(b)
	case *command.GroupPut:
		return p.groupPut(b)
	case *command.TenantPut:
		return p.tenantPut(b)
	case *command.TenantDelete:
		return nil, p.tenantDelete(b)
	case *command.TokenPut:
		return p.tokenPut(b)
	case *command.TokenDelete:
		return nil, p.tokenDelete(b)
	case *command.HostPut:
		return p.hostPut(b, b, false)
	case *command.HostDelete:
		return nil, p.hostDelete(b)
	case *command.HostRetire:
		return p.hostRetire(b)
	case *command.HostObserve:
		return p.hostObserve(b)
	case *command.RulePut:
		return p.rulePut(b)
	case *command.RuleDelete:
		return nil, p.ruleDelete(b)
	case *command.RulesImport:
		return p.rulesImport(b)
	case *command.JoinTokenPut:
		return p.joinTokenPut(b)
	case *command.NodeEnrol:
		return p.nodeEnrol(b)
	case *command.NodeRenew:
		return p.nodeRenew(b)
	case *command.NodePut:
		return p.nodePut(b)
	case *command.NodeRevoke:
		return nil, p.nodeRevoke(b)
	case *command.NodesReport:
		p.nodesReport(b)
		return nil, nil
	case *command.HeadsAdvance:
		return nil, p.headsAdvance(b)
	case *command.ChallengePut:
		return nil, p.challengePut(b)
	case *command.ChallengeDelete:
		return nil, p.challengeDelete(b)
	case *command.OrderPut:
		return p.orderPut(b)
	case *command.OrderProgress:
		return p.orderProgress(b)
	case *command.RenewalPlan:
		return p.renewalPlan(b)
	case *command.CertificateCommit:
		return p.certificateCommit(b)
	case *command.EntryPut:
		return nil, p.entryPut(b)
	case *command.EntryDelete:
		return nil, p.entryDelete(b)
	case *command.MemberJoin:
		return p.memberJoin(b)
	case *command.HostPutConsul:
		return p.hostPut(b, &b.HostPut, true)
	case *command.OriginsResolve:
		return nil, p.originsResolve(b)
	case *command.LeaderTransfer:
		return nil, p.leaderTransfer(b)
	case *command.AuditSeal:
		return nil, p.auditSeal(b)
	case *command.AuditDrop:
		return nil, p.auditDrop(b)
	case *command.AuditCheckpoint:
		return nil, p.auditCheckpoint(b)
	case *command.JoinTokensReap:
		return nil, p.joinTokensReap(b)
	case *command.SnapshotStage:
		return nil, p.snapshotStage(b)
	case *command.ClusterRestore:
		return p.clusterRestore(b)
	case *command.IncarnationStart:
		return p.incarnationStart(b)
	case *command.DrillPut:
		return p.drillPut(b)
	case *command.KeysExpire:
		p.keysExpire(b)
		return nil, nil
	case *command.NodeRotate:
		return p.nodeRotate(b)
	case *command.NodeLock:
		return p.nodeLock(b)
	case *command.NodeUnlock:
		return p.nodeUnlock(b)
	case *command.KEKRotate:
		return nil, p.kekRotate(b)
	case *command.SecretsReseal:
		return nil, p.secretsReseal(b)
	case *command.RegionPut:
		return p.regionPut(b)
	case *command.DNSSetsPut:
		return nil, p.dnsSetsPut(b)
	case *command.AuthorityObserve:
		return p.authorityObserve(b)
	case *command.OriginCertPut:
		return p.originCertPut(b)
	case *command.OriginCertDelete:
		return p.originCertDelete(b)
	case *command.MemberRetire:
		return nil, p.memberRetire(b)
	case *command.GroupRekey:
		return p.groupRekey(b)
	case *command.LockTake:
		return p.lockTake(b)
	case *command.LockRelease:
		return nil, p.lockRelease(b)
	}
	if obj, known, err := p.access(b); known {
		return obj, err
	}
	if obj, known, err := p.certificates(b); known {
		return obj, err
	}
	panic(fmt.Sprintf("fsm: command %s has no processor", b.Type())) // a programmer's error, found by the first test
}

// meta is the Meta of an object written now; before is its Meta until now, zero when it is new.
func (p *processor) meta(before fleet.Meta) fleet.Meta {
	m := fleet.Meta{Revision: p.index, CreatedAt: before.CreatedAt, UpdatedAt: p.header.Time}
	if before.Revision == 0 {
		m.CreatedAt = p.header.Time
	}
	return m
}

// check holds a write against what is there; what names the object for people.
func check(put command.Put, exists bool, current fleet.Meta, what string) error {
	switch {
	case put.Create && exists:
		return fleet.NewError(fleet.ErrConflict, "", "%s exists already: change that one, or choose another name", what)
	case !put.Create && !exists:
		return fleet.NewError(fleet.ErrNotFound, "", "%s does not exist", what)
	case put.IfRevision != 0 && put.IfRevision != current.Revision:
		return fleet.NewError(fleet.ErrChanged, "revision", "%s changed meanwhile: it is at revision %d, not %d; read it again and repeat", what, current.Revision, put.IfRevision)
	}
	return nil
}

// audit appends the entry of one mutation. before and after are the API forms of the object, nil where there is none.
func (p *processor) audit(b command.Body, object string, tenant fleet.TenantID, before, after any) error {
	e := fleet.AuditEntry{
		Time: p.header.Time, Actor: p.header.Actor, RequestID: p.header.RequestID, Reason: p.header.Reason,
		Operation: b.Type().String(), Object: object, Tenant: tenant,
	}
	var err error
	if e.Before, err = encode(before); err != nil {
		return err
	}
	if e.After, err = encode(after); err != nil {
		return err
	}
	head := p.tx.AuditHead()
	e.Seq = head.Seq + 1
	if e, err = e.Chain(head.Hash); err != nil {
		return fmt.Errorf("audit %s: %w", object, err)
	}
	p.tx.PutAudit(e)
	return nil
}

func encode(v any) (json.RawMessage, error) {
	if v == nil {
		return nil, nil
	}
	b, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("audit: %w", err)
	}
	return b, nil
}
