package controlplane

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/loadtest/harness"
	"github.com/edgefleet/edgefleet/loadtest/report"
)

// cluster measures what needs three running members.
func (r *run) cluster(ctx context.Context) error {
	if !r.env.Wants("api") && !r.env.Wants("transfer") && !r.env.Wants("failover") {
		return nil
	}
	r.env.Say("starting %d members", members)
	c, err := r.env.StartMembers(ctx, "cluster", members)
	if err != nil {
		return err
	}
	version, err := r.env.Version(ctx, r.env.Binaries+"/controlplane", "version")
	if err != nil {
		return err
	}
	r.rep.Peers = append(r.rep.Peers, report.Peer{
		Name: "controlplane", Version: version,
		Setup: fmt.Sprintf("%d members on loopback as shipped, mutual TLS between members; %d HTTPS clients with a connection and a token each to the leader; a write is PATCH /v1/tenants/{id} of one of %d tenants with its audit entry, a read is GET of one",
			members, workers, objects),
	})
	w, err := newWire(c)
	if err != nil {
		return err
	}
	if err := w.prepare(ctx); err != nil {
		return err
	}
	for _, s := range []struct {
		part string
		run  func(context.Context, *wire) error
	}{{"api", r.api}, {"transfer", r.transfer}, {"failover", r.failover}} {
		if !r.env.Wants(s.part) {
			continue
		}
		if err := s.run(ctx, w); err != nil {
			return fmt.Errorf("%s: %w", s.part, err)
		}
	}
	return c.Stop(ctx)
}

// wire speaks to the API as it is on the wire: one client for each worker, and nothing is repeated.
type wire struct {
	cluster *harness.Members
	clients []*http.Client
}

func newWire(c *harness.Members) (*wire, error) {
	w := &wire{cluster: c}
	for range workers {
		h, err := c.Wire()
		if err != nil {
			return nil, err
		}
		w.clients = append(w.clients, h)
	}
	return w, nil
}

// tenant is the i-th object.
func tenant(i int) string { return fmt.Sprintf("load-%06d", i%objects) }

// prepareLimit bounds the making of one object: on a busy machine the leader may change meanwhile.
const prepareLimit = 30 * time.Second

// prepare makes the objects.
func (w *wire) prepare(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	for n := range workers {
		g.Go(func() error {
			for i := n; i < objects; i += workers {
				if err := w.create(ctx, n, i); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return g.Wait()
}

func (w *wire) create(ctx context.Context, n, i int) error {
	return harness.Until(ctx, prepareLimit, 100*time.Millisecond, func(ctx context.Context) error {
		err := w.do(ctx, n, w.cluster.All[0], http.MethodPost, "/v1/tenants", fmt.Sprintf(`{"id":%q,"name":"load"}`, tenant(i)))
		if errors.Is(err, fleet.ErrConflict) {
			return nil // the attempt before took effect
		}
		return err
	})
}

// do sends a request and reads the answer to its end; anything but success is an error.
func (w *wire) do(ctx context.Context, n int, to *harness.Member, method, path, body string) error {
	req, err := http.NewRequestWithContext(ctx, method, to.URL()+path, bytes.NewReader([]byte(body)))
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+w.cluster.Token)
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	if method == http.MethodPatch {
		req.Header.Set("If-Match", "*") // each worker has objects of its own
	}
	res, err := w.clients[n].Do(req)
	if err != nil {
		return err
	}
	answer, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	_ = res.Body.Close() // it was read to its end, or is given up
	if err != nil {
		return err
	}
	if res.StatusCode >= 300 {
		kind := fleet.ErrUnavailable
		if res.StatusCode == http.StatusConflict {
			kind = fleet.ErrConflict
		}
		return fleet.NewError(kind, "", "%s %s answered %s: %.300s", method, path, res.Status, answer)
	}
	return nil
}

// write changes an object of worker n's own, so that no two writes conflict.
func (w *wire) write(ctx context.Context, n, i int, to *harness.Member) error {
	return w.do(ctx, n, to, http.MethodPatch, "/v1/tenants/"+tenant(n+i*workers), fmt.Sprintf(`{"name":"load %d"}`, i))
}

// read reads an object linearizably.
func (w *wire) read(ctx context.Context, n, i int, to *harness.Member) error {
	return w.do(ctx, n, to, http.MethodGet, "/v1/tenants/"+tenant(n+i*workers), "")
}

// api measures writes and linearizable reads through the whole API.
func (r *run) api(ctx context.Context, w *wire) error {
	leader, err := w.cluster.Leader(ctx)
	if err != nil {
		return err
	}
	for _, l := range []struct {
		name, unit string
		etcd       float64
		do         func(ctx context.Context, n, i int, to *harness.Member) error
	}{{"API writes", "1/s", r.etcdWrites, w.write}, {"API linearizable reads", "1/s", r.etcdReads, w.read}} {
		r.env.Say("%s", l.name)
		profiled := r.profile(ctx, w.cluster, l.name)
		out, err := harness.Load{Workers: workers, Warm: r.warm(), For: r.measured(), Do: func(ctx context.Context, n, i int) error {
			return l.do(ctx, n, i, leader)
		}}.Run(ctx)
		if err != nil {
			return err
		}
		if err := profiled(); err != nil {
			return err
		}
		r.rep.Add(l.name, out.Rate(), l.unit, share(l.etcd, 0.5), latencies(out)+"; "+versus(out.Rate(), l.etcd)+stretch(out.Rate(), l.etcd))
		if out.Errors > 0 {
			r.rep.Add(l.name+" failed", float64(out.Errors), "requests", report.AtMost(0), out.First.Error())
		}
	}
	return nil
}

// stretch says whether a rate reaches all of etcd's.
func stretch(rate, etcd float64) string {
	switch {
	case etcd == 0:
		return ""
	case rate >= etcd:
		return " (stretch reached)"
	}
	return fmt.Sprintf(" (stretch: %.0f/s)", etcd)
}
