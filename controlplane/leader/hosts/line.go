package hosts

import "github.com/edgefleet/edgefleet/fleet"

// line is jobs that wait for a worker. Tenants take turns in it, so that one with ten thousand names delays another by
// one job; the jobs of one tenant keep their order.
type line struct {
	jobs   map[fleet.TenantID][]job
	turns  []fleet.TenantID
	queued map[job]bool
}

func newLine() *line { return &line{jobs: map[fleet.TenantID][]job{}, queued: map[job]bool{}} }

// add puts j at the end of its tenant's jobs, unless it waits already.
func (l *line) add(j job) {
	if l.queued[j] {
		return
	}
	l.queued[j] = true
	if len(l.jobs[j.tenant]) == 0 {
		l.turns = append(l.turns, j.tenant)
	}
	l.jobs[j.tenant] = append(l.jobs[j.tenant], j)
}

// next takes the job whose turn it is.
func (l *line) next() (j job, ok bool) {
	if len(l.turns) == 0 {
		return job{}, false
	}
	t := l.turns[0]
	l.turns = l.turns[1:]
	j, rest := l.jobs[t][0], l.jobs[t][1:]
	delete(l.queued, j)
	if len(rest) == 0 {
		delete(l.jobs, t)
		return j, true
	}
	l.jobs[t] = rest
	l.turns = append(l.turns, t)
	return j, true
}
