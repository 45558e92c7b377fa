package hosts

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/edgefleet/edgefleet/controlplane/client"
	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/loadtest/harness"
	"github.com/edgefleet/edgefleet/loadtest/report"
)

const (
	// deployLimit bounds the time until every node has every certificate.
	deployLimit = 2 * time.Minute
	// tablePause is between two looks at the tables, and so what the measurement adds at most.
	tablePause = 5 * time.Millisecond
)

// deploy measures the time from the commit of a certificate to a hundred nodes that serve it.
func (r *run) deploy(ctx context.Context) error {
	w, err := r.fleet(ctx)
	if err != nil {
		return err
	}
	n, certificates := harness.Pick(r.env, 100, 20, 3), harness.Pick(r.env, 40, 5, 1)
	r.env.Say("certificates to %d nodes", n)
	all, err := r.simulate(ctx, w, n)
	if err != nil {
		return err
	}
	running, stop := context.WithCancel(ctx)
	defer stop()
	var sessions errgroup.Group
	for _, s := range all {
		sessions.Go(func() error { return s.session.Run(running) })
	}
	took, err := r.deployed(ctx, w, all, certificates)
	stop()
	if err = errors.Join(err, sessions.Wait()); err != nil {
		return err
	}
	r.rep.Add("certificate deployed p99", took.Quantile(0.99).Seconds(), "s", report.AtMost(2), fmt.Sprintf("from its commit to the certificate table of each of %d nodes, which are sessions, stores and keys of their own in one process: %d certificates, p50 %.2f s, worst %.2f s", n, certificates, took.Quantile(0.5).Seconds(), took.Max().Seconds()))
	return nil
}

// deployed adds hosts and returns how long after its commit each node had each certificate.
func (r *run) deployed(ctx context.Context, w *world, all []*simulated, n int) (harness.Samples, error) {
	if err := w.members.Converged(ctx, len(all)); err != nil {
		return nil, err
	}
	cs := make([]customer, n)
	for i := range cs {
		cs[i] = customer{host: fleet.HostName(fmt.Sprintf("www.deploy%05d.example", i)), tenant: fleet.TenantID(fmt.Sprintf("deploy-%d", i/hostsPerTenant))}
		if i%hostsPerTenant == 0 {
			if err := w.addTenants(ctx, cs[i].tenant); err != nil {
				return nil, err
			}
		}
	}
	if err := w.addHosts(ctx, cs); err != nil {
		return nil, err
	}
	for _, c := range cs {
		if err := w.setRecords(c); err != nil {
			return nil, err
		}
	}
	profiled := r.env.TakeProfiles(ctx, "deploy", profileTime, w.members.All, nil)
	seen, err := watchTables(ctx, all, cs)
	if err := errors.Join(err, profiled()); err != nil {
		return nil, err
	}
	var took harness.Samples
	for i, c := range cs {
		cert, err := client.Get[fleet.Certificate](ctx, w.client, "/v1/tenants/"+string(c.tenant)+"/hosts/"+string(c.host)+"/certificate", nil)
		if err != nil {
			return nil, fmt.Errorf("certificate of %s: %w", c.host, err)
		}
		for _, at := range seen[i] {
			took = append(took, at.Sub(cert.CreatedAt))
		}
	}
	return took.Sorted(), nil
}

// watchTables returns when each node had the certificate of each host.
func watchTables(ctx context.Context, all []*simulated, cs []customer) ([][]time.Time, error) {
	seen := make([][]time.Time, len(cs))
	for i := range seen {
		seen[i] = make([]time.Time, len(all))
	}
	missing := len(cs) * len(all)
	return seen, harness.Until(ctx, deployLimit, tablePause, func(context.Context) error {
		for i, c := range cs {
			for j, node := range all {
				if !seen[i][j].IsZero() {
					continue
				}
				if _, ok := node.table.Lookup(string(c.host)); ok {
					seen[i][j] = time.Now()
					missing--
				}
			}
		}
		if missing > 0 {
			return fleet.NewError(fleet.ErrUnavailable, "deploy", "%d certificates are not at their nodes", missing)
		}
		return nil
	})
}
