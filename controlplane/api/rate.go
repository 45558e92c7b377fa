package api

import (
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/edgefleet/edgefleet/fleet"
)

// CallerLimits bound what one caller asks of one member: a token, a node, or an address without either. Zero fields mean
// no limit.
type CallerLimits struct {
	// Rate is how many requests a second a caller may send in the long run, Burst how many at once.
	Rate, Burst int
	// Concurrency is how many requests of a caller are under way; streams and reads that wait have limits of their own.
	Concurrency int
	// Nodes is how many requests of all nodes together are under way: enrolments, renewals, polls and blobs.
	Nodes int
}

// maxCallers bounds the callers that are counted one by one; beyond it, those that are new share one count.
const maxCallers = 100_000

// crowded is the count that callers share who come when there are too many.
const crowded = ""

// callers counts the requests of each caller.
type callers struct {
	limits CallerLimits

	mu    sync.Mutex
	known map[string]*callerCount
	swept time.Time
}

type callerCount struct {
	rate *rate.Limiter
	open int
}

func newCallers(l CallerLimits) *callers {
	return &callers{limits: l, known: map[string]*callerCount{}}
}

// limitKey is as whom a request is counted; empty if it is not, because it is of a member, or was counted by the member
// that passed it on.
func (c caller) limitKey() string {
	switch {
	case c.forwarded, c.member != "":
		return ""
	case c.token.ID != "":
		return "token/" + string(c.token.ID)
	case c.node != "":
		return "node/" + string(c.node)
	}
	p := network(c.source)
	if p == (netip.Prefix{}) {
		return "address/unknown"
	}
	return "address/" + p.String()
}

// enter counts a request of the caller; leave must be called when it ends. A long one does not count as one under way.
func (l *callers) enter(key string, long bool, now time.Time) (leave func(), err error) {
	if key == "" {
		return func() {}, nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	c := l.count(key, now)
	if l.limits.Concurrency > 0 && !long && c.open >= l.limits.Concurrency {
		err := fleet.NewError(fleet.ErrRateLimited, "", "%d requests of this caller are under way at this member, which is the limit: send fewer at a time, or raise api_concurrency", c.open)
		return nil, retryError{err, time.Second}
	}
	if l.limits.Rate > 0 {
		r := c.rate.ReserveN(now, 1)
		if wait := r.DelayFrom(now); !r.OK() || wait > 0 {
			r.CancelAt(now)
			err := fleet.NewError(fleet.ErrRateLimited, "", "this caller sends more than %d requests a second to this member: slow down, or raise api_rate and api_burst", l.limits.Rate)
			return nil, retryError{err, wait}
		}
	}
	if long {
		return func() {}, nil
	}
	c.open++
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		c.open--
	}, nil
}

// count is the caller's, made if it is new.
func (l *callers) count(key string, now time.Time) *callerCount {
	if c, ok := l.known[key]; ok {
		return c
	}
	if len(l.known) >= maxCallers && now.Sub(l.swept) > time.Second {
		l.swept = now
		for k, c := range l.known {
			if c.open == 0 && c.rate.TokensAt(now) >= float64(l.limits.Burst) {
				delete(l.known, k)
			}
		}
	}
	if len(l.known) >= maxCallers {
		key = crowded
		if c, ok := l.known[key]; ok {
			return c
		}
	}
	c := &callerCount{rate: rate.NewLimiter(rate.Limit(l.limits.Rate), max(1, l.limits.Burst))}
	l.known[key] = c
	return c
}
