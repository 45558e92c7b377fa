package hosts

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/edgefleet/edgefleet/controlplane/client"
	"github.com/edgefleet/edgefleet/controlplane/state"
	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/loadtest/harness"
)

// world is a fleet of real processes with what it finds outside: the CA, the customers' names and their origin.
type world struct {
	names   *harness.Names
	ca      *harness.Pebble
	members *harness.Members
	nodes   []*harness.Node
	client  *client.Client
	origin  *http.Server
	// originURL is where all hosts forward to.
	originURL string
}

// start makes a fleet with n nodes; seed, if not nil, fills the state of its first member before that starts, and gets the
// file of the key-encryption key.
func (r *run) start(ctx context.Context, name string, n int, seed func(w *world, s *state.Store) error) (w *world, err error) {
	return r.startBeside(ctx, name, n, false, seed)
}

// startBeside is start; members and CA may be patient: then they leave the processors to nodes and visitors, which in a
// fleet of customers have machines of their own.
func (r *run) startBeside(ctx context.Context, name string, n int, patient bool, seed func(w *world, s *state.Store) error) (w *world, err error) {
	w = &world{}
	defer func() {
		if err != nil {
			err = errors.Join(err, w.close(ctx))
		}
	}()
	if w.names, err = r.env.StartNames(); err != nil {
		return w, err
	}
	if w.ca, err = r.env.StartPebble(ctx, w.names, patient); err != nil {
		return w, err
	}
	if err = w.startOrigin(ctx, r.env); err != nil {
		return w, err
	}
	if w.members, err = r.env.NewMembersIn(ctx, name, harness.World{Names: w.names, CA: w.ca, Patient: patient}); err != nil {
		return w, err
	}
	if seed != nil {
		if err = w.members.All[0].Seed(ctx, func(s *state.Store) error { return seed(w, s) }); err != nil {
			return w, err
		}
	}
	if err = w.members.Grow(ctx, members); err != nil {
		return w, err
	}
	if w.client, err = w.members.Client(); err != nil {
		return w, err
	}
	if w.nodes, err = w.members.StartNodes(ctx, n); err == nil && seed != nil {
		err = w.members.Converged(ctx, n)
	}
	return w, err
}

// close ends the fleet: the nodes, so that they do not miss the members, then the rest.
func (w *world) close(ctx context.Context) error {
	var errs []error
	for _, n := range w.nodes {
		errs = append(errs, n.Stop())
	}
	if w.members != nil && len(w.nodes) > 0 {
		errs = append(errs, w.members.Stop(ctx))
	}
	if w.ca != nil {
		w.ca.Kill()
	}
	if w.origin != nil {
		errs = append(errs, w.origin.Close())
	}
	if w.names != nil {
		errs = append(errs, w.names.Close())
	}
	return errors.Join(errs...)
}

// startOrigin starts the server that all customers have.
func (w *world) startOrigin(_ context.Context, e *harness.Env) error {
	host, err := e.Host()
	if err != nil {
		return err
	}
	ln, err := net.Listen("tcp", net.JoinHostPort(host, "8090"))
	if err != nil {
		return fmt.Errorf("listen for the origin: %w", err)
	}
	w.originURL = "http://" + ln.Addr().String()
	w.origin = &http.Server{ReadHeaderTimeout: 10 * time.Second, Handler: http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) { rw.WriteHeader(http.StatusNoContent) })}
	go func() { _ = w.origin.Serve(ln) }() // ends with close
	return nil
}

// loopback is where origins may be here.
var loopback = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}

// callLimit bounds one call that is repeated while there is no leader; callers is how many are under way at one time.
const (
	callLimit = 30 * time.Second
	callers   = 16
)

// again repeats a call while there is no leader, as may be at any time on a machine that is busy. One that had taken
// effect is a conflict then, and no error.
func again(ctx context.Context, call func(ctx context.Context) error) error {
	return harness.Until(ctx, callLimit, 200*time.Millisecond, func(ctx context.Context) error {
		err := call(ctx)
		if errors.Is(err, fleet.ErrConflict) {
			return nil
		}
		return err
	})
}

// addTenants makes tenants that may have origins on this machine.
func (w *world) addTenants(ctx context.Context, ids ...fleet.TenantID) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(callers)
	for _, id := range ids {
		g.Go(func() error {
			return again(ctx, func(ctx context.Context) error {
				_, err := client.Post[fleet.Tenant](ctx, w.client, "/v1/tenants", client.TenantCreate{ID: id, Name: "load", Form: fleet.SecurityEdge, AllowedOrigins: loopback})
				return err
			})
		})
	}
	return g.Wait()
}

// customer is a host and whose it is.
type customer struct {
	host    fleet.HostName
	tenant  fleet.TenantID
	records []fleet.Record
}

// addHosts adds hosts and learns the records that their customers are asked to set.
func (w *world) addHosts(ctx context.Context, cs []customer) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(callers)
	for i := range cs {
		c := &cs[i]
		g.Go(func() error {
			path := "/v1/tenants/" + string(c.tenant) + "/hosts"
			if err := again(ctx, func(ctx context.Context) error {
				_, err := client.Post[client.HostView](ctx, w.client, path, client.HostCreate{Name: string(c.host), Origins: []fleet.Origin{{URL: w.originURL}}, Mode: fleet.ModeBlock})
				return err
			}); err != nil {
				return fmt.Errorf("add %s: %w", c.host, err)
			}
			return again(ctx, func(ctx context.Context) error {
				h, err := client.Get[client.HostView](ctx, w.client, path+"/"+string(c.host), nil)
				c.records = h.Records
				return err
			})
		})
	}
	return g.Wait()
}

// setRecords does what a customer is asked to do.
func (w *world) setRecords(c customer) error {
	for _, r := range c.records {
		if err := w.names.Set(r.Name, r.Type, r.Value); err != nil {
			return err
		}
	}
	return nil
}
