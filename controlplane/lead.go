package controlplane

import (
	"context"
	"errors"
	"time"

	"github.com/edgefleet/edgefleet/controlplane/leader/heads"
	"github.com/edgefleet/edgefleet/fleet"
)

// loopPause is how long a leader's loop that failed waits before it starts again.
const loopPause = time.Second

// lead runs the leader's loops whenever this member leads.
func (m *member) lead(ctx context.Context) error {
	err := m.node.RunLeader(ctx, func(ctx context.Context) error {
		m.tel.Logger.InfoContext(ctx, "member leads", "member", m.c.Member, "term", m.node.Stats().Term)
		loops := []func(context.Context) error{m.again("nodes", m.nodes.Run)}
		if m.lib != nil {
			h := &heads.Loop{State: m.state, Library: m.lib, Proposer: m.raft, Publish: m.bus.Publish, Now: utcNow}
			loops = append(loops, m.again("heads", h.Run))
		}
		if m.hosts != nil {
			loops = append(loops, m.again("hosts", m.hosts.Run))
		}
		return runAll(ctx, loops...)
	})
	if errors.Is(err, fleet.ErrUnavailable) {
		return nil // consensus was closed
	}
	return err
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
