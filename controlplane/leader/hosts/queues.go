package hosts

import (
	"time"

	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/fleet/hoststate"
)

// class is how urgent a job is.
type class int

const (
	// renewals are attempts at the CA for hosts that have a certificate, orders those for others; they share workers of their own.
	renewals class = iota
	orders
	// fresh are the records that people change now, and handshakes.
	fresh
	// routine are the records that are right.
	routine
	// stale are the records that have been wrong for long. Their name servers are often slow or gone.
	stale
	classes
)

// classOf says how urgent a look at a host's DNS is.
func classOf(o fleet.HostObserved, now time.Time, s hoststate.Schedule) class {
	c := routine
	for _, cond := range []fleet.Condition{o.Ownership, o.Routing} {
		switch {
		case cond.State == fleet.ConditionTrue:
		case now.Sub(cond.Since) < time.Duration(float64(hoststate.Fresh)*s.Scale):
			return fresh
		default:
			c = stale
		}
	}
	return c
}

// queues are the jobs that wait, by class, and those that run. No class can keep the others from all workers.
type queues struct {
	lines [classes]*line
	// limits bound the jobs of each class that run at one time, workers those at the CA together and lookups all others.
	limits  [classes]int
	workers int
	lookups int
	busy    map[job]class
	counts  [classes]int
}

func newQueues(workers, lookups int) *queues {
	q := &queues{workers: workers, lookups: lookups, busy: map[job]class{}}
	q.limits = [classes]int{renewals: share(workers, 3, 4), orders: workers, fresh: share(lookups, 7, 8), routine: share(lookups, 3, 4), stale: share(lookups, 1, 2)}
	for c := range q.lines {
		q.lines[c] = newLine()
	}
	return q
}

func share(n, of, all int) int { return max(1, n*of/all) }

func (q *queues) add(j job, c class) {
	if _, runs := q.busy[j]; !runs {
		q.lines[c].add(j)
	}
}

func (q *queues) running(j job) bool {
	_, ok := q.busy[j]
	return ok
}

// next takes a job for which there is a worker; done gives the worker back.
func (q *queues) next() (job, bool) {
	for c := range classes {
		for q.free(c) {
			j, ok := q.lines[c].next()
			if !ok {
				break
			}
			if q.running(j) { // as a job of another class
				continue
			}
			q.busy[j] = c
			q.counts[c]++
			return j, true
		}
	}
	return job{}, false
}

func (q *queues) free(c class) bool {
	busy, most := q.counts[fresh]+q.counts[routine]+q.counts[stale], q.lookups
	if c == renewals || c == orders {
		busy, most = q.counts[renewals]+q.counts[orders], q.workers
	}
	return busy < most && q.counts[c] < q.limits[c]
}

func (q *queues) done(j job) {
	c, ok := q.busy[j]
	if ok {
		delete(q.busy, j)
		q.counts[c]--
	}
}
