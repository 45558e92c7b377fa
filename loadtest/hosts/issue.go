package hosts

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/edgefleet/edgefleet/controlplane/state"
	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/loadtest/harness"
	"github.com/edgefleet/edgefleet/loadtest/report"
)

const (
	// issueLimit bounds the time until all names have HTTPS.
	issueLimit = 4 * time.Minute
	// visitPause is between two visits of one visitor that waits, and visitsAtOnce how many visit at one time: what waits
	// must not take the processors from what is waited for. So a name has one visitor, who goes to one node after the other:
	// one for each node, every 200 ms, used 40 % of two processors for handshakes that could not succeed yet.
	visitPause   = 250 * time.Millisecond
	visitsAtOnce = 4
	// profileTime is for how long profiles are taken.
	profileTime = 8 * time.Second
	// hostsPerTenant is how many of the names are one tenant's.
	hostsPerTenant = 10
)

// issued is how long the names of one round took.
type issued struct {
	p50, p95 time.Duration
	note     string
}

// issue measures the time from a customer's records to HTTPS.
func (r *run) issue(ctx context.Context) error {
	w, err := r.fleet(ctx)
	if err != nil {
		return err
	}
	out, err := r.toHTTPS(ctx, w, "a")
	if err != nil {
		return err
	}
	r.alone = &out
	r.rep.Add("DNS to HTTPS p50", out.p50.Seconds(), "s", report.AtMost(6), out.note+" (stretch: 3 s)")
	r.rep.Add("DNS to HTTPS p95", out.p95.Seconds(), "s", report.AtMost(15), out.note+" (stretch: 10 s)")
	return nil
}

// broken measures the same in a fleet that has names which are broken for ever, beside what issue found without them.
func (r *run) broken(ctx context.Context) error {
	if r.alone == nil { // the part was asked for alone
		if err := errors.Join(r.issue(ctx), r.leave(ctx)); err != nil {
			return err
		}
	}
	s := seeded{n: harness.Pick(r.env, 10_000, 1000, 50), prefix: "broken", tenantHosts: hostsPerTenant}
	w, err := r.start(ctx, "broken", nodes, func(w *world, store *state.Store) error {
		w.names.Break(s.breaks)
		s.broken(store, w.originURL)
		return nil
	})
	if err != nil {
		return err
	}
	out, err := r.toHTTPS(ctx, w, "b")
	if err != nil {
		return err
	}
	note := fmt.Sprintf("beside %d names that have been broken for three days: missing, led elsewhere, or with name servers that fail or are silent; %s", s.n, out.note)
	for _, q := range []struct {
		name        string
		with, alone time.Duration
	}{{"p50", out.p50, r.alone.p50}, {"p95", out.p95, r.alone.p95}} {
		r.rep.Add("DNS to HTTPS beside broken names "+q.name, q.with.Seconds(), "s", report.AtMost(1.1*q.alone.Seconds()), fmt.Sprintf("%.2f × that without; %s", q.with.Seconds()/q.alone.Seconds(), note))
	}
	return w.close(ctx)
}

// toHTTPS adds names at once, sets their records, and measures for each the time until both nodes serve it.
func (r *run) toHTTPS(ctx context.Context, w *world, round string) (issued, error) {
	n := harness.Pick(r.env, 200, 20, 3)
	r.env.Say("%d names to HTTPS on %d nodes", n, len(w.nodes))
	cs := make([]customer, n)
	tenants := map[fleet.TenantID]bool{}
	for i := range cs {
		cs[i] = customer{host: fleet.HostName(fmt.Sprintf("www.%s%05d.example", round, i)), tenant: fleet.TenantID(fmt.Sprintf("new-%s-%d", round, i/hostsPerTenant))}
		tenants[cs[i].tenant] = true
	}
	for id := range tenants {
		if err := w.addTenants(ctx, id); err != nil {
			return issued{}, err
		}
	}
	if err := w.addHosts(ctx, cs); err != nil {
		return issued{}, err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, issueLimit, fleet.NewError(fleet.ErrTimeout, "issue", "not all of %d names have HTTPS after %s", n, issueLimit))
	defer cancel()
	both := make(harness.Samples, n)
	g, visiting := errgroup.WithContext(ctx)
	slots := make(chan struct{}, visitsAtOnce)
	profiled := r.env.TakeProfiles(ctx, "issue "+round, profileTime, w.members.All, w.nodes)
	visible := time.Now()
	for i, c := range cs {
		if err := w.setRecords(c); err != nil {
			return issued{}, err
		}
		g.Go(func() error {
			for _, node := range w.nodes {
				if err := firstVisit(visiting, slots, node.HTTPS(), c.host, w); err != nil {
					return err
				}
			}
			both[i] = time.Since(visible)
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return issued{}, err
	}
	if err := profiled(); err != nil {
		return issued{}, err
	}
	both.Sorted()
	note := fmt.Sprintf("from the moment at which the records of %d names are there, which were added at once, to the first verified answer of the origin through each of %d nodes; worst %.1f s", n, len(w.nodes), both.Max().Seconds())
	return issued{both.Quantile(0.5), both.Quantile(0.95), note}, nil
}

// firstVisit tries until a visit succeeds.
func firstVisit(ctx context.Context, slots chan struct{}, address string, host fleet.HostName, w *world) error {
	return harness.Until(ctx, issueLimit, visitPause, func(ctx context.Context) error {
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		defer func() { <-slots }()
		return visit(ctx, address, host, w.ca.Roots)
	})
}
