package controlplane

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/edgefleet/edgefleet/controlplane/state"
	"github.com/edgefleet/edgefleet/loadtest/harness"
	"github.com/edgefleet/edgefleet/loadtest/report"
)

// state measures what a large state costs: how long a member takes to restore it, and whether writes wait for its
// snapshots.
func (r *run) state(ctx context.Context) error {
	n := harness.Pick(r.env, 1_000_000, 50_000, 5_000)
	r.env.Say("a state of %d objects", n)
	c, err := r.env.NewMembers(ctx, "state")
	if err != nil {
		return err
	}
	if err := c.All[0].Seed(ctx, func(s *state.Store) error { fill(s, n); return nil }); err != nil {
		return err
	}
	r.env.Say("restore")
	start := time.Now()
	if err := c.All[0].Start(ctx); err != nil {
		return err
	}
	r.rep.Add("restore of the state", time.Since(start).Seconds(), "s", report.AtMost(30), fmt.Sprintf("%d objects; from the start of the process to ready", n))
	if r.env.Short || r.env.Smoke {
		return c.Stop(ctx) // members take snapshots too seldom for a short run
	}
	r.env.Say("two members join and receive it")
	start = time.Now()
	for range members - 1 {
		m, err := c.Join(ctx, "state")
		if err != nil {
			return err
		}
		// One after the other: a member that has a vote and not the state yet is one that the quorum lacks.
		if err := m.Ready(ctx); err != nil {
			return err
		}
		if err := c.CaughtUp(ctx); err != nil {
			return err
		}
	}
	if err := holdsSeed(ctx, c); err != nil {
		return err
	}
	r.rep.Add("two members receive the state", time.Since(start).Seconds(), "s", report.Bound{}, "from join to voting, one after the other, over the network")
	if err := r.snapshots(ctx, c); err != nil {
		return err
	}
	return c.Stop(ctx)
}

// holdsSeed makes sure that every member has the first of the objects.
func holdsSeed(ctx context.Context, c *harness.Members) error {
	w, err := newWire(c)
	if err != nil {
		return err
	}
	for _, m := range c.All {
		if err := w.do(ctx, 0, m, http.MethodGet, "/v1/tenants/"+tenant(0)+"/hosts/"+string(seedHost(0))+"?consistency=stale", ""); err != nil {
			return fmt.Errorf("member %s does not hold the state: %w", m.ID, err)
		}
	}
	return nil
}
