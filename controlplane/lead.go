package controlplane

import (
	"context"
	"errors"
	"time"

	"github.com/edgefleet/edgefleet/controlplane/leader/deletions"
	"github.com/edgefleet/edgefleet/controlplane/leader/epochs"
	"github.com/edgefleet/edgefleet/controlplane/leader/heads"
	"github.com/edgefleet/edgefleet/controlplane/leader/once"
	"github.com/edgefleet/edgefleet/controlplane/leader/reseal"
	"github.com/edgefleet/edgefleet/fleet"
)

// loopPause is how long a leader's loop that failed waits before it starts again.
const loopPause = time.Second

// lead runs the leader's loops whenever this member leads.
func (m *member) lead(ctx context.Context) error {
	err := m.node.RunLeader(ctx, func(ctx context.Context) error {
		m.tel.Logger.InfoContext(ctx, "member leads", "member", m.c.Member, "term", m.node.Stats().Term)
		forget := &once.Loop{State: m.state, Proposer: m.raft, Now: utcNow}
		loops := []func(context.Context) error{m.again("nodes", m.nodes.Run), m.again("audit", m.auditLoop().Run), m.again("once", forget.Run), m.again("origins", m.originLoop().Run)}
		loops = append(loops, m.again("autopilot", m.autopilot), m.again("removals", m.removals), m.again("drills", m.drillLoop), m.again("zone", m.zoneLoop().Run))
		if m.lib != nil {
			h := &heads.Loop{State: m.state, Library: m.lib, Proposer: m.raft, Publish: m.bus.Publish, Now: utcNow}
			r := &reseal.Loop{State: m.state, Sealer: m.keys.Sealer, Proposer: m.raft, Logger: m.tel.Logger, Now: utcNow}
			e := &epochs.Loop{State: m.state, Proposer: m.raft, Logger: m.tel.Logger, Now: utcNow}
			d := &deletions.Loop{State: m.state, Fetch: m.lib.Blob, Proposer: m.raft, Logger: m.tel.Logger, Now: utcNow}
			loops = append(loops, m.again("heads", h.Run), m.again("reseal", r.Run), m.again("epochs", e.Run), m.again("deletions", d.Run))
		}
		if m.keys == nil {
			loops = append(loops, m.again("sealed", m.sealedLead))
		}
		if m.hosts != nil {
			loops = append(loops, m.again("hosts", m.hosts.Run))
		}
		if m.revocations != nil {
			loops = append(loops, m.again("revocations", m.revocations.Run))
		}
		if m.push != nil {
			loops = append(loops, m.again("dns push", m.push.Run))
		}
		if m.backups != nil {
			loops = append(loops, m.again("backups", m.backups.Run))
		}
		return runAll(ctx, loops...)
	})
	if errors.Is(err, fleet.ErrUnavailable) {
		return nil // consensus was closed
	}
	return err
}

// handOver is the first thing that a member does when it stops: while the API still answers, so that requests that are
// under way, or still arrive, are passed on to the next leader.
func (m *member) handOver(ctx context.Context) error {
	m.tel.Health.Set("state", errors.New("stopping"))
	if !m.node.IsLeader() || m.raft.voters() < 2 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, stopTimeout/3)
	defer cancel()
	return m.raft.TransferLeadership(ctx, "")
}

func utcNow() time.Time { return time.Now().UTC() }

// again runs a loop until leadership ends; one that fails, for want of a quorum say, starts again after a pause.
func (m *member) again(name string, run func(context.Context) error) func(context.Context) error {
	return func(ctx context.Context) error {
		for ctx.Err() == nil {
			if err := run(ctx); err != nil && ctx.Err() == nil {
				m.tel.Logger.WarnContext(ctx, "leader loop starts again", "loop", name, "err", err)
			}
			select {
			case <-ctx.Done():
			case <-time.After(loopPause):
			}
		}
		return nil
	}
}

// leaderless is how long there may be no leader before a member says that it is not ready: longer than an election.
const leaderless = 2 * time.Second

// watchLeader keeps the readiness check of the leader.
func (m *member) watchLeader(ctx context.Context) error {
	tick := time.NewTicker(leaderless / 4)
	defer tick.Stop()
	last := time.Now()
	for {
		if id, _ := m.raft.Leader(); id != "" {
			last = time.Now()
		}
		var err error
		if time.Since(last) > leaderless {
			err = fleet.NewError(fleet.ErrUnavailable, "leader", "no leader: fewer than a majority of the voters run and reach each other on the Raft port; stale reads, DNS and polls are answered")
		}
		m.tel.Health.Set("leader", err)
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}
