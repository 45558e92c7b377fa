package api

import (
	"net/netip"
	"sync"
	"time"

	"github.com/edgefleet/edgefleet/fleet"
)

// limiter counts failed authentications by address in fixed windows.
type limiter struct {
	mu    sync.Mutex
	start time.Time
	count map[netip.Prefix]int
}

// failures an address may cause in window before it has to wait.
const (
	failures = 20
	window   = time.Minute
)

// maxSources bounds the addresses that are counted in one window; beyond it, none is added.
const maxSources = 100_000

func newLimiter() *limiter { return &limiter{count: map[netip.Prefix]int{}} }

// network is what counts as one source: an IPv4 address, or the /64 that one IPv6 host can fill by itself.
func network(source string) netip.Prefix {
	a, err := netip.ParseAddr(source)
	if err != nil {
		return netip.Prefix{}
	}
	bits := 64
	if a = a.Unmap().WithZone(""); a.Is4() {
		bits = 32
	}
	p, _ := a.Prefix(bits) // fits the address
	return p
}

// check refuses a source that failed too often.
func (l *limiter) check(source string, now time.Time) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if now.Sub(l.start) > window {
		l.start = now
		clear(l.count)
	}
	if l.count[network(source)] < failures {
		return nil
	}
	err := fleet.NewError(fleet.ErrRateLimited, "token", "too many failed authentications from this address: wait a minute")
	return retryError{err, l.start.Add(window).Sub(now)}
}

func (l *limiter) failed(source string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := network(source)
	if len(l.count) < maxSources || l.count[n] > 0 {
		l.count[n]++
	}
}
