package hosts

import (
	"cmp"
	"context"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/edgefleet/edgefleet/controlplane/command"
	"github.com/edgefleet/edgefleet/controlplane/state"
	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/fleet/hoststate"
)

// idle bounds how long the loop sleeps when nothing is due.
const idle = time.Hour

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
	jobs    sync.WaitGroup
	results chan result
	busy    map[job]bool
	// poked hosts are to be looked at now.
	poked map[fleet.HostName]bool
	// learned is what finished jobs found and is not in the state yet.
	learned map[fleet.HostName][]func(fleet.HostObserved) fleet.HostObserved
	// served numbers when each tenant last got a worker, for fairness.
	served map[fleet.TenantID]int
	turn   int
}

func newRun(l *Loop) *run {
	return &run{
		Loop: l, inspect: newInspector(l.o.Fetch), results: make(chan result, l.o.Workers+l.o.Lookups), busy: map[job]bool{},
		poked: map[fleet.HostName]bool{}, learned: map[fleet.HostName][]func(fleet.HostObserved) fleet.HostObserved{}, served: map[fleet.TenantID]int{},
	}
}

func (r *run) loop(ctx context.Context) error {
	for ctx.Err() == nil {
		ws := r.o.State.Watch(state.Clusters, state.Tenants, state.Hosts, state.Orders, state.Certificates, state.Heads, state.Nodes, state.Epochs, state.Challenges)
		wake, err := r.step(ctx)
		if err != nil {
			return ended(ctx, err)
		}
		watching, stop := context.WithCancel(ctx)
		timer := time.NewTimer(max(0, wake.Sub(r.o.Now())))
		select {
		case <-ctx.Done():
		case <-timer.C:
		case <-ws.WatchCh(watching):
		case h := <-r.pokes:
			r.poked[h] = true
		case res := <-r.results:
			err = r.take(res)
		}
		stop()
		timer.Stop()
		for more := true; more && err == nil; {
			select {
			case res := <-r.results:
				err = r.take(res)
			case h := <-r.pokes:
				r.poked[h] = true
			default:
				more = false
			}
		}
		if err != nil {
			return ended(ctx, err)
		}
	}
	return nil
}

func (r *run) take(res result) error {
	delete(r.busy, res.job)
	if res.fold != nil {
		r.learned[res.job.host] = append(r.learned[res.job.host], res.fold)
	}
	return res.err
}

// step brings the state up to what is known and starts what is due; it returns when it wants to be called again.
func (r *run) step(ctx context.Context) (time.Time, error) {
	v, now := r.o.State.Read(), r.o.Now()
	wake := now.Add(idle)
	cluster, ok := v.Cluster()
	if !ok {
		return wake, nil
	}
	var orders []fleet.OrderRecord
	challenged := map[fleet.HostName]bool{}
	for _, c := range v.Challenges() {
		challenged[c.Host] = true
	}
	for _, h := range v.Hosts() {
		stored := h.Observed
		for _, fold := range r.learned[h.Name] {
			h.Observed = fold(h.Observed)
		}
		f, order, edges := r.facts(v, h, now)
		f.Challenged = challenged[h.Name]
		next, t := hoststate.Decide(f, r.s.Schedule)
		if h.Observed = next; !hoststate.Equal(stored, next) {
			if err := r.propose(ctx, command.HostObserve{Name: h.Name, Tenant: h.Tenant, Observed: next}); err != nil {
				return wake, err
			}
		}
		if err := r.start(ctx, v, cluster.Zone, f, edges, h, t); err != nil {
			return wake, err
		}
		if t.Issue && !r.busy[job{jobIssue, h.Name, h.Tenant}] {
			orders = append(orders, order)
		}
		if !t.Wake.IsZero() && t.Wake.Before(wake) {
			wake = t.Wake
		}
	}
	clear(r.learned)
	clear(r.poked)
	r.issue(ctx, v, cluster.Zone, orders)
	return wake, nil
}

// facts are what is known of h, the order under way as it is stored, and the addresses of the edges that have its certificate.
func (r *run) facts(v *state.View, h fleet.Host, now time.Time) (hoststate.Facts, fleet.OrderRecord, []netip.Addr) {
	f := hoststate.Facts{Host: h, Now: now, Attempting: r.busy[job{jobIssue, h.Name, h.Tenant}]}
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
			d := r.inspect.deployed(v, h, func(in content) bool { return in.generations[h.Name] >= c.Generation })
			f.Edges, edges = &d.Deployment, d.edges
		}
	}
	return f, order, edges
}

// start begins what is due for h but orders at the CA, which wait for a worker.
func (r *run) start(ctx context.Context, v *state.View, zone fleet.HostName, f hoststate.Facts, edges []netip.Addr, h fleet.Host, t hoststate.Plan) error {
	if t.Order {
		if err := r.newOrder(ctx, h, f.Cert); err != nil {
			return err
		}
	}
	if t.DNS || r.poked[h.Name] {
		edge := addresses(v, h)
		r.lookup(job{jobDNS, h.Name, h.Tenant}, func() result { return r.checkDNS(ctx, h, zone, edge) })
	}
	if t.Handshake {
		cert := *f.Cert
		r.lookup(job{jobHandshake, h.Name, h.Tenant}, func() result { return r.verify(ctx, cert, edges) })
	}
	return nil
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

// lookup starts j unless it runs already or too many do; what is due stays due.
func (r *run) lookup(j job, work func() result) {
	n := 0
	for b := range r.busy {
		if b.kind != jobIssue {
			n++
		}
	}
	if !r.busy[j] && n < r.o.Lookups {
		r.spawn(j, work)
	}
}

func (r *run) spawn(j job, work func() result) {
	r.busy[j] = true
	r.jobs.Go(func() {
		res := work()
		res.job = j
		r.results <- res // has room for every job that may run
	})
}

// issue gives free workers to orders that are due: first to the tenant with the fewest at work, then to the one that
// waited longest for a turn, so that a tenant with a thousand names delays nobody else's first.
func (r *run) issue(ctx context.Context, v *state.View, zone fleet.HostName, due []fleet.OrderRecord) {
	working, total := map[fleet.TenantID]int{}, 0
	for b := range r.busy {
		if b.kind == jobIssue {
			working[b.tenant]++
			total++
		}
	}
	for ; total < r.o.Workers && len(due) > 0; total++ {
		o := slices.MinFunc(due, func(a, b fleet.OrderRecord) int {
			return cmp.Or(cmp.Compare(working[a.Tenant], working[b.Tenant]), cmp.Compare(r.served[a.Tenant], r.served[b.Tenant]), a.NextAttempt.Compare(b.NextAttempt))
		})
		due = slices.DeleteFunc(due, func(d fleet.OrderRecord) bool { return d.ID == o.ID })
		r.turn++
		r.served[o.Tenant] = r.turn
		working[o.Tenant]++
		h, ok := v.Host(o.Host)
		if !ok {
			continue
		}
		edge := addresses(v, h)
		r.spawn(job{jobIssue, o.Host, o.Tenant}, func() result { return r.attempt(ctx, h, zone, edge, o) })
	}
}
