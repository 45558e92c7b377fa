package fleet

import (
	"net/url"
	"slices"
	"time"
)

// Authority is what the control plane knows of a certificate authority beside its configuration: whether it may be asked,
// and what was asked of it. All members have it, so that a new leader asks no sooner and no more than the last.
type Authority struct {
	// Directory is the URL of its ACME directory.
	Directory string `json:"directory"`
	// Failures counts answers in a row that were none, up to AuthorityAway; Problem is the last of them.
	Failures int    `json:"failures,omitempty"`
	Problem  string `json:"problem,omitempty"`
	// Since is when the first of them came.
	Since time.Time `json:"since,omitzero"`
	// Rest: it is not asked before; it was away. Pause is how long it rested last.
	Rest  time.Time     `json:"rest,omitzero"`
	Pause time.Duration `json:"pause,omitempty"`
	// Limited: it is not asked before; it said so (429).
	Limited time.Time `json:"limited,omitzero"`
	// Orders are the orders that it was asked for, by time.
	Orders []AuthorityCount `json:"orders,omitempty"`
	Meta
}

// AuthorityCount is what was asked of an authority within AuthorityStep from At.
type AuthorityCount struct {
	At time.Time `json:"at"`
	N  int       `json:"n"`
}

// Limits and times of authorities.
const (
	// MaxAuthorities bounds the authorities that are remembered.
	MaxAuthorities = 16
	// AuthorityAway is after how many answers in a row that were none an authority is away.
	AuthorityAway = 3
	// AuthorityWindow is the time over which orders are counted, AuthorityStep the exactness.
	AuthorityWindow = 3 * time.Hour
	AuthorityStep   = 10 * time.Minute
	// FailureWindow is the time over which failed validations of a name are counted, MaxOrderFailures how many are
	// remembered.
	FailureWindow    = time.Hour
	MaxOrderFailures = 16
	// CertificateWindow is the time over which certificates of a registered domain are counted.
	CertificateWindow = 7 * 24 * time.Hour
)

// Away reports whether the authority has not answered for so often that another is asked.
func (a Authority) Away() bool { return a.Failures >= AuthorityAway }

// Count adds an order.
func (a Authority) Count(now time.Time) Authority {
	at := now.UTC().Truncate(AuthorityStep)
	a.Orders = slices.DeleteFunc(slices.Clone(a.Orders), func(c AuthorityCount) bool { return !c.left(now) })
	if n := len(a.Orders); n > 0 && a.Orders[n-1].At.Equal(at) {
		a.Orders[n-1].N++
		return a
	}
	a.Orders = append(a.Orders, AuthorityCount{At: at, N: 1})
	return a
}

// left reports whether any of c may lie within the window.
func (c AuthorityCount) left(now time.Time) bool {
	return now.Before(c.At.Add(AuthorityStep + AuthorityWindow))
}

// Ordered is how many orders count now, and, if these are limit or more, when fewer than limit will.
func (a Authority) Ordered(now time.Time, limit int) (n int, free time.Time) {
	for _, c := range a.Orders {
		if c.left(now) {
			n += c.N
		}
	}
	over := n - limit
	for _, c := range a.Orders {
		if over < 0 || !c.left(now) {
			continue
		}
		over -= c.N
		free = c.At.Add(AuthorityStep + AuthorityWindow)
	}
	return n, free
}

// AuthorityName is how people are told of the authority with a directory: by its host.
func AuthorityName(directory string) string {
	if u, err := url.Parse(directory); err == nil && u.Host != "" {
		return u.Host
	}
	return directory
}

// RecentFailures are the failed validations of an order that count now.
func (o Order) RecentFailures(now time.Time) []time.Time {
	return slices.DeleteFunc(slices.Clone(o.Failed), func(t time.Time) bool { return !now.Before(t.Add(FailureWindow)) })
}
