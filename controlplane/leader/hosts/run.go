package hosts

import (
	"context"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/go-memdb"
	"golang.org/x/sync/errgroup"

	"github.com/edgefleet/edgefleet/controlplane/command"
	"github.com/edgefleet/edgefleet/controlplane/state"
	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/fleet/hoststate"
)

const (
	// idle bounds how long the loop sleeps when nothing is due.
	idle = time.Hour
	// batch bounds the hosts that one step decides about, and so how long news wait for it.
	batch = 256
	// proposals bounds the commits of one step that are under way at one time.
	proposals = 16
)

// kind is a kind of job.
type kind int

const (
	jobDNS kind = iota
	jobIssue
	jobHandshake
)

// job is one thing that is being done for a host.
type job struct {
	kind   kind
	host   fleet.HostName
	tenant fleet.TenantID
}

// result is how a job ended: fold is what it learned about the host, nil if nothing; err ends the loop.
type result struct {
	job  job
	fold func(fleet.HostObserved) fleet.HostObserved
	err  error
}

// run is one time of leading. All its fields belong to the goroutine of loop; jobs only send results. That goroutine is
// also the only writer of the observed part of hosts.
type run struct {
	*Loop
	inspect *inspector
	feed    *state.HostFeed
	book    *book
	queues  *queues
	jobs    sync.WaitGroup
	results chan result
	// learned is what finished jobs found and is not in the state yet.
	learned map[fleet.HostName][]func(fleet.HostObserved) fleet.HostObserved
	// challenged are the hosts with a published answer to a challenge.
	challenged map[fleet.HostName]bool
}

func newRun(l *Loop) *run {
	return &run{
		Loop: l, inspect: newInspector(l.o.Fetch), feed: l.o.State.FollowHosts(), book: newBook(), queues: newQueues(l.o.Workers, l.o.Lookups),
		results: make(chan result, l.o.Workers+l.o.Lookups), learned: map[fleet.HostName][]func(fleet.HostObserved) fleet.HostObserved{},
	}
}

func (r *run) loop(ctx context.Context) error {
	defer r.feed.Close()
	for ctx.Err() == nil {
		// Watched before the step reads: what changes meanwhile wakes the next one.
		edges, all := r.o.State.Watch(state.Heads, state.Nodes, state.Tenants), r.o.State.Watch(state.Clusters, state.Epochs)
		wake, err := r.step(ctx)
		if err != nil {
			return ended(ctx, err)
		}
		if err := r.sleep(ctx, wake, edges, all); err != nil {
			return ended(ctx, err)
		}
		if fired(all) {
			r.everything(r.o.State.Read())
		}
		if fired(edges) {
			r.acknowledged()
		}
	}
	return nil
}

// sleep returns when something is due or known.
func (r *run) sleep(ctx context.Context, wake time.Time, edges, all memdb.WatchSet) error {
	watched := memdb.NewWatchSet()
	maps.Copy(watched, edges)
	maps.Copy(watched, all)
	watching, stop := context.WithCancel(ctx)
	defer stop()
	timer := time.NewTimer(max(0, wake.Sub(r.o.Now())))
	defer timer.Stop()
	var err error
	select {
	case <-ctx.Done():
	case <-timer.C:
	case <-watched.WatchCh(watching):
	case <-r.feed.Changed():
	case h := <-r.pokes:
		r.book.poke(h)
	case res := <-r.results:
		err = r.take(res)
	}
	for err == nil {
		select {
		case res := <-r.results:
			err = r.take(res)
			continue
		case h := <-r.pokes:
			r.book.poke(h)
			continue
		default:
		}
		break
	}
	return err
}

// fired reports whether something watched changed.
func fired(ws memdb.WatchSet) bool {
	for ch := range ws {
		select {
		case <-ch:
			return true
		default:
		}
	}
	return false
}

// everything has all hosts decided about, in turn with what else is due.
func (r *run) everything(v *state.View) {
	now := r.o.Now()
	for _, h := range v.Hosts() {
		if e := r.book.entry(h.Name); e.place < 0 || e.wake.After(now) {
			r.book.at(h.Name, now)
		}
	}
}

// acknowledged has the hosts decided about that wait for edges.
func (r *run) acknowledged() {
	for _, h := range slices.Sorted(maps.Keys(r.book.waiting)) {
		r.book.mark(h)
	}
}

func (r *run) take(res result) error {
	r.queues.done(res.job)
	if res.fold != nil {
		r.learned[res.job.host] = append(r.learned[res.job.host], res.fold)
	}
	r.book.mark(res.job.host)
	return res.err
}

// step brings the state up to what is known of some hosts and starts what is due; it returns when it wants to be called again.
func (r *run) step(ctx context.Context) (time.Time, error) {
	changed, all := r.feed.Take()
	v, now := r.o.State.Read(), r.o.Now()
	cluster, ok := v.Cluster()
	if !ok {
		return now.Add(idle), nil
	}
	if all {
		r.everything(v)
	}
	for _, h := range changed {
		r.book.mark(h)
	}
	r.challenged = map[fleet.HostName]bool{}
	for _, c := range v.Challenges() {
		r.challenged[c.Host] = true
	}
	commits, committing := errgroup.WithContext(ctx)
	commits.SetLimit(proposals)
	for _, e := range r.book.next(now, batch) {
		if commit := r.decide(v, e, now); commit != nil {
			commits.Go(func() error { return commit(committing) })
		}
	}
	if err := commits.Wait(); err != nil {
		return now, err
	}
	r.dispatch(ctx, v, cluster.Zone, now)
	return r.book.wake(now, now.Add(idle)), nil
}

// decide plans for one host: it queues jobs, and returns what is to be committed, nil if nothing.
func (r *run) decide(v *state.View, e *entry, now time.Time) func(context.Context) error {
	h, ok := v.Host(e.host)
	learned := r.learned[e.host]
	delete(r.learned, e.host)
	if !ok || h.Deleting() {
		r.book.drop(e.host)
		return nil
	}
	stored := h.Observed
	for _, fold := range learned {
		h.Observed = fold(h.Observed)
	}
	f, _, _ := r.facts(v, h, now)
	next, p := hoststate.Decide(f, r.s.Schedule)
	h.Observed = next
	if p.Wake.IsZero() {
		p.Wake = now.Add(idle)
	}
	r.book.at(h.Name, p.Wake)
	delete(r.book.waiting, h.Name)
	if f.Edges != nil && !f.Edges.Complete() {
		r.book.waiting[h.Name] = true
	}
	r.queue(h, p, e, now, f.Cert != nil)
	if hoststate.Equal(stored, next) && !p.Order {
		return nil
	}
	return func(ctx context.Context) error { return r.record(ctx, h, stored, f.Cert, p.Order) }
}

// record commits what stands about h now, and its next order if one is due.
func (r *run) record(ctx context.Context, h fleet.Host, stored fleet.HostObserved, cert *fleet.Certificate, order bool) error {
	if !hoststate.Equal(stored, h.Observed) {
		if err := r.propose(ctx, command.HostObserve{Name: h.Name, Tenant: h.Tenant, Observed: h.Observed}); err != nil {
			return err
		}
		r.remind(ctx, h, stored)
	}
	if order {
		return r.newOrder(ctx, h, cert)
	}
	return nil
}

// queue puts what is due for h into line.
func (r *run) queue(h fleet.Host, p hoststate.Plan, e *entry, now time.Time, serves bool) {
	if p.DNS || e.poked {
		c := classOf(h.Observed, now, r.s.Schedule)
		if e.poked {
			c = fresh
		}
		r.queues.add(job{jobDNS, h.Name, h.Tenant}, c)
	}
	e.poked = false
	if p.Handshake {
		r.queues.add(job{jobHandshake, h.Name, h.Tenant}, fresh)
	}
	if p.Issue {
		c := orders
		if serves {
			c = renewals
		}
		r.queues.add(job{jobIssue, h.Name, h.Tenant}, c)
	}
}

// facts are what is known of h, the order under way as it is stored, and the addresses of the edges that have its certificate.
func (r *run) facts(v *state.View, h fleet.Host, now time.Time) (hoststate.Facts, fleet.OrderRecord, []netip.Addr) {
	f := hoststate.Facts{Host: h, Now: now, Attempting: r.queues.running(job{jobIssue, h.Name, h.Tenant}), Challenged: r.challenged[h.Name]}
	var order fleet.OrderRecord
	for _, o := range v.OrdersOf(h.Name) {
		if o.State == fleet.OrderQueued {
			order, f.Order = o, &o.Order
		}
	}
	var edges []netip.Addr
	if c, ok := v.Certificate(h.Name); ok {
		f.Cert = &c.Certificate
		tenant, _ := v.Tenant(h.Tenant)
		f.Rekey = v.Epoch(tenant.Spec.Group).Rekeys(c.Certificate)
		if h.Observed.VerifiedGeneration != c.Generation {
			d := r.inspect.deployed(v, h, now, func(in content) bool { return in.generations[h.Name] >= c.Generation })
			f.Edges, edges = &d.Deployment, d.edges
		}
	} else if h.Spec.Certificate == fleet.CertificateNone && !hoststate.Plain(h.Observed) {
		f.Edges = &r.inspect.plain(v, h, now).Deployment
	}
	return f, order, edges
}

// dispatch starts the jobs that have a free worker. A job that is not due any more, for its host changed while it
// waited, is dropped, and the host is decided about anew.
func (r *run) dispatch(ctx context.Context, v *state.View, zone fleet.HostName, now time.Time) {
	for {
		j, ok := r.queues.next()
		if !ok {
			return
		}
		h, exists := v.Host(j.host)
		if !exists || h.Deleting() || h.Tenant != j.tenant {
			r.queues.done(j)
			continue
		}
		work := func() result { return r.checkDNS(ctx, h, zone, addresses(v, h)) }
		if j.kind != jobDNS {
			f, order, edges := r.facts(v, h, now)
			switch {
			case j.kind == jobIssue && f.Order != nil && !f.Order.NextAttempt.After(now):
				work = func() result { return r.attempt(ctx, h, zone, addresses(v, h), order) }
			case j.kind == jobHandshake && f.Cert != nil && f.Edges.Complete():
				cert := *f.Cert
				work = func() result { return r.verify(ctx, cert, edges) }
			default:
				r.queues.done(j)
				r.book.mark(h.Name)
				continue
			}
		}
		r.jobs.Go(func() {
			res := work()
			res.job = j
			r.results <- res // has room for every job that may run
		})
	}
}

// addresses are all that the zone could answer with for h.
func addresses(v *state.View, h fleet.Host) []netip.Addr {
	t, ok := v.Tenant(h.Tenant)
	if !ok {
		return nil
	}
	var out []netip.Addr
	for _, n := range v.NodesOf(t.Spec.Group) {
		if len(h.Spec.Regions) == 0 || slices.Contains(h.Spec.Regions, n.Spec.Region) {
			out = append(out, n.Spec.Addresses...)
		}
	}
	return out
}
