package devfleet

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/edgefleet/edgefleet/fleet"
	"golang.org/x/sync/errgroup"
)

// streamTime is the least time for which requests flow while the leader is gone.
const streamTime = 3 * time.Second

// killLeader kills the leader with SIGKILL under a steady stream of requests, over kept and over new connections.
func (s *story) killLeader(ctx context.Context) (string, error) {
	if s.layout.members < 3 {
		return "needs 3 members", errSkip
	}
	leader, err := s.leader(ctx)
	if err != nil {
		return "", err
	}
	var vs []*visitor
	for i := 1; i <= s.layout.nodes; i++ {
		vs = append(vs, s.newVisitor(i, false), s.newVisitor(i, true))
	}
	requests := startStream(ctx, vs)
	start := time.Now()
	err = s.kill(ctx, string(leader))
	var accepted time.Duration
	if err == nil {
		s.killed = leader
		err = s.until(ctx, func(ctx context.Context) error {
			return s.tenant.addRule(ctx, demoTenant, marker("failover"), "written after the leader was killed")
		})
		accepted = time.Since(start)
	}
	select {
	case <-time.After(streamTime - time.Since(start)):
	case <-ctx.Done():
	}
	total, streamErr := requests.stop()
	for _, v := range vs {
		v.close()
	}
	if err := errors.Join(err, streamErr); err != nil {
		return "", err
	}
	return fmt.Sprintf("%s; %d requests; API writes again after %.1fs", leader, total, accepted.Seconds()), nil
}

// restartLeader starts the killed member and waits until it answers for itself.
func (s *story) restartLeader(ctx context.Context) (string, error) {
	if s.killed == "" {
		return "needs 3 members", errSkip
	}
	if err := s.start(ctx, string(s.killed)); err != nil {
		return "", err
	}
	for i := 1; i <= s.layout.members; i++ {
		if memberName(i) != string(s.killed) {
			continue
		}
		one, err := newAPI(s.api.addrs[i-1:i], s.api.ca, s.tokens.operator)
		if err != nil {
			return "", err
		}
		return string(s.killed), s.until(ctx, func(ctx context.Context) error {
			c, err := one.cluster(ctx)
			if err == nil && c.Leader == "" {
				err = fleet.NewError(fleet.ErrUnavailable, "leader", "%s knows no leader", s.killed)
			}
			return err
		})
	}
	return "", fleet.NewError(fleet.ErrNotFound, "member", "the leader was %q, which devfleet did not start", s.killed)
}

// alone kills every member, and with them NATS, then one edge with its worker, and starts that edge again: all it
// has is its disk. It must serve over TLS, block, and keep the event of an attack made now.
func (s *story) alone(ctx context.Context) (string, error) {
	var g errgroup.Group
	for i := 1; i <= s.layout.members; i++ {
		g.Go(func() error { return s.kill(ctx, memberName(i)) })
	}
	if err := g.Wait(); err != nil {
		return "", err
	}
	if err := s.kill(ctx, nodeName(1)); err != nil {
		return "", err
	}
	s.visitors[0].close()
	if err := s.start(ctx, nodeName(1)); err != nil {
		return "", err
	}
	start := time.Now()
	if err := s.until(ctx, func(ctx context.Context) error { return s.visitors[0].get(ctx, http.StatusOK, "/alone") }); err != nil {
		return "", err
	}
	note := fmt.Sprintf("n1 served %.1fs after its start", time.Since(start).Seconds())
	s.lateAttack = marker("alone")
	return note, s.through(ctx, func(ctx context.Context, v *visitor) error {
		if err := v.benign(ctx); err != nil {
			return err
		}
		return v.get(ctx, http.StatusForbidden, attackPath(s.lateAttack+v.name))
	})
}

// reunited starts the members again and waits for the events of the attacks that each edge saw meanwhile.
// The secrets must still be in no file.
func (s *story) reunited(ctx context.Context) (string, error) {
	for i := 1; i <= s.layout.members; i++ {
		if err := s.start(ctx, memberName(i)); err != nil {
			return "", err
		}
	}
	for _, v := range s.visitors {
		if _, _, err := s.event(ctx, s.lateAttack+v.name); err != nil {
			return "", err
		}
	}
	if err := s.until(ctx, s.nodesUp); err != nil {
		return "", err
	}
	// By now every member and node has written, read and repaired its files.
	return s.scanFiles(ctx)
}
