package fsm

import (
	"bytes"
	"fmt"
	"slices"

	"github.com/edgefleet/edgefleet/controlplane/command"
	"github.com/edgefleet/edgefleet/controlplane/state"
	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/fleet/head"
	file "github.com/edgefleet/edgefleet/fleet/snapshot"
)

// maxParts bounds the parts of a restore: their sum is what a snapshot may have, and a bit.
const maxParts = 2048

func (p *processor) snapshotStage(b *command.SnapshotStage) error {
	if err := fleet.ValidateID("restore", b.Restore); err != nil {
		return err
	}
	if b.Seq == 0 {
		p.tx.Unstage()
	}
	if len(b.Data) == 0 {
		return nil
	}
	if staged := p.tx.StagedParts(b.Restore); b.Seq != staged || staged >= maxParts {
		return fleet.NewError(fleet.ErrConflict, "restore", "part %d of restore %s does not follow the %d that are there: another restore began meanwhile, or it has too many parts; begin again", b.Seq, b.Restore, staged)
	}
	p.tx.Stage(state.StagedPart{Seq: b.Seq, Restore: b.Restore, Data: b.Data})
	return nil
}

// clusterRestore goes back to the desired state of a snapshot. What has happened since stays as it is: who is a member,
// which nodes are enrolled or revoked, who may call the API, what the cluster's keys are, which labels were issued, which
// certificates are newer, and the audit log.
func (p *processor) clusterRestore(b *command.ClusterRestore) (any, error) {
	cluster, _ := p.tx.Cluster()
	if staged := p.tx.StagedParts(b.Restore); staged != b.Parts || staged == 0 {
		return nil, fleet.NewError(fleet.ErrConflict, "restore", "restore %s has %d of %d parts: another restore began meanwhile; begin again", b.Restore, staged, b.Parts)
	}
	// The digest is the same on every member, whatever version it runs: a wrong one is refused by all.
	e, err := file.Verify(p.tx.StagedReader(b.Restore))
	if err != nil {
		return nil, err
	}
	if e.SHA256 != b.SHA256 || e.Cluster != cluster.ID {
		return nil, fleet.NewError(fleet.ErrConflict, "snapshot", "the staged snapshot is of cluster %s and has the digest %.12s; cluster %s expected %.12s", e.Cluster, e.SHA256, cluster.ID, b.SHA256)
	}
	origin := fleet.SnapshotOrigin{Incarnation: e.Incarnation, Index: e.Index, Time: e.Time, StateHash: e.StateHash}
	rec := fleet.IncarnationRecord{Cause: fleet.CauseRestore, Snapshot: &origin, Statement: &b.Statement}
	if rec.Number, err = p.statedIncarnation(b.Statement, cluster); err != nil {
		return nil, err
	}
	_, content, err := file.Open(p.tx.StagedReader(b.Restore))
	if err != nil {
		return nil, err
	}
	from, err := state.Load(content)
	if err != nil {
		// The bytes are what the leader restored on the side before it proposed this: this member cannot read them, and
		// must not go on without them.
		panic(fmt.Sprintf("snapshot of log entry %d cannot be restored; this member stops so that it does not diverge: %v", p.index, err))
	}
	p.merge(from.Read())
	p.tx.Unstage()
	p.begin(&rec, cluster)
	return rec, p.audit(b, fmt.Sprintf("cluster/%s", cluster.ID), "", cluster.Cluster, rec)
}

// restored are the tables that a restore takes from the snapshot; hosts' labels, certificates and the tenants' tokens
// are merged, and all else is kept.
var restored = []state.Table{state.Groups, state.Tenants, state.Hosts, state.Rules, state.Orders, state.Challenges, state.Certificates, state.Origins, state.OriginCerts}

func (p *processor) merge(from *state.View) {
	groups, certificates := p.tx.Groups(), p.tx.Certificates()
	p.tx.ReplaceOnly(from, restored...)
	for _, g := range groups {
		if _, ok := p.tx.Group(g.Name); !ok {
			p.tx.PutGroup(g) // its nodes are still there
		}
	}
	for _, c := range certificates {
		old, ok := p.tx.Certificate(c.Host)
		if h, known := p.tx.Host(c.Host); known && !h.Deleting() && h.Tenant == c.Tenant && (!ok || old.Generation < c.Generation) {
			p.tx.PutCertificate(c)
		}
	}
	for _, l := range from.Labels() {
		if _, ok := p.tx.Label(l.Label); !ok {
			p.tx.PutLabel(l)
		}
	}
	p.revive()
	for _, t := range p.tx.TokensAfter("", "", maxTokens) {
		if _, ok := p.tx.Tenant(t.Tenant); t.Tenant != "" && !ok {
			p.tx.DeleteToken(t.ID)
		}
	}
}

// maxTokens is more than there are.
const maxTokens = 1 << 30

// statedIncarnation checks a statement against the cluster and returns the incarnation that it begins.
func (p *processor) statedIncarnation(s fleet.SignedIncarnation, cluster fleet.ClusterRecord) (uint64, error) {
	i, err := head.VerifyIncarnation(s, cluster.RecoveryKey, cluster.ID)
	if err != nil {
		return 0, err
	}
	if i.Number <= cluster.Incarnation {
		return 0, fleet.NewError(fleet.ErrConflict, "incarnation", "the statement is for incarnation %d, the cluster is in %d already: sign one for a later incarnation", i.Number, cluster.Incarnation)
	}
	if !slices.ContainsFunc(cluster.HeadKeys, func(k []byte) bool {
		return slices.ContainsFunc(i.HeadKeys, func(stated []byte) bool { return bytes.Equal(k, stated) })
	}) {
		return 0, fleet.NewError(fleet.ErrConflict, "head_keys", "the statement names none of the cluster's head keys: nodes would refuse its heads; sign one for the keys of 'fleetctl cluster status -o json'")
	}
	return i.Number, nil
}

// begin moves the cluster into the incarnation of rec.
func (p *processor) begin(rec *fleet.IncarnationRecord, cluster fleet.ClusterRecord) {
	rec.From, rec.Meta = cluster.Incarnation, p.meta(fleet.Meta{})
	p.tx.PutIncarnation(*rec)
	cluster.Incarnation, cluster.Meta = rec.Number, p.meta(cluster.Meta)
	p.tx.PutCluster(cluster)
	p.tx.DeleteHeads() // the next ones begin anew
}

func (p *processor) incarnationStart(b *command.IncarnationStart) (any, error) {
	cluster, ok := p.tx.Cluster()
	if !ok {
		return nil, fleet.NewError(fleet.ErrConflict, "cluster", "there is no cluster yet")
	}
	rec := fleet.IncarnationRecord{Number: b.Number, Cause: b.Cause}
	if !slices.Contains([]fleet.IncarnationCause{fleet.CauseRestore, fleet.CauseRecover, fleet.CauseOrder}, b.Cause) {
		return nil, fleet.Invalid("cause", "%q is not a cause of an incarnation", string(b.Cause))
	}
	if len(b.Statement.Statement) > 0 {
		number, err := p.statedIncarnation(b.Statement, cluster)
		if err != nil {
			return nil, err
		}
		if number != b.Number {
			return nil, fleet.Invalid("number", "the statement is for incarnation %d, not %d", number, b.Number)
		}
		rec.Statement = &b.Statement
	}
	if b.Number <= cluster.Incarnation {
		return nil, fleet.NewError(fleet.ErrConflict, "incarnation", "incarnation %d is not later than %d, the cluster's", b.Number, cluster.Incarnation)
	}
	if b.Snapshot != (fleet.SnapshotOrigin{}) {
		rec.Snapshot = &b.Snapshot
	}
	if b.Cause != fleet.CauseOrder {
		p.tx.DeleteJoinTokens() // which of them were used since is not known
		p.tx.Unstage()
	}
	if len(b.Members) > 0 {
		p.tx.DeleteMembers()
		for _, m := range b.Members {
			m.Meta = p.meta(fleet.Meta{})
			p.tx.PutMember(m)
		}
	}
	if b.Token.ID != "" {
		if err := checkToken(b.Token); err != nil {
			return nil, err
		}
		t := b.Token
		t.Meta = p.meta(fleet.Meta{})
		p.tx.PutToken(t)
	}
	p.begin(&rec, cluster)
	return rec, p.audit(b, "cluster/"+string(cluster.ID), "", cluster.Cluster, rec)
}

func (p *processor) drillPut(b *command.DrillPut) (any, error) {
	d := b.Drill
	if err := d.Validate(); err != nil {
		return nil, err
	}
	before, ok := p.tx.Drill(d.ID)
	if err := check(b.Put, ok, before.Meta, "drill "+d.ID); err != nil {
		return nil, err
	}
	if ok && before.State != fleet.DrillRunning {
		return nil, fleet.NewError(fleet.ErrConflict, "drill", "drill %s has ended: begin another", d.ID)
	}
	d.Meta = p.meta(before.Meta)
	p.tx.PutDrill(d)
	if !ok {
		p.tx.TrimDrills(maxDrills)
	}
	return d, p.audit(b, "drill/"+d.ID, "", orNil(before, ok), d)
}

// maxDrills is how many drills are kept, the newest.
const maxDrills = 200
