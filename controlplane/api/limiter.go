package api

import (
	"net/netip"
	"sync"
	"time"

	"github.com/edgefleet/edgefleet/fleet"
)

// limiter counts failed authentications by address and by token in fixed windows. An address that failed too often has
// to wait; a token does not, so that nobody locks its owner out: only wrong secrets for it are refused with less ado.
type limiter struct {
	mu     sync.Mutex
	start  time.Time
	count  map[netip.Prefix]int
	tokens map[fleet.TokenID]int
}

const (
	// failures an address may cause in window before it has to wait.
	failures = 20
	window   = time.Minute
	// tokenFailures is how many wrong secrets for one token, from wherever, are answered as such in window.
	tokenFailures = 100
)

// maxSources bounds the addresses and tokens that are counted in one window; beyond it, none is added.
const maxSources = 100_000

func newLimiter() *limiter {
	return &limiter{count: map[netip.Prefix]int{}, tokens: map[fleet.TokenID]int{}}
}

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
	l.turn(now)
	if l.count[network(source)] < failures {
		return nil
	}
	err := fleet.NewError(fleet.ErrRateLimited, "token", "too many failed authentications from this address: wait a minute")
	return retryError{err, l.start.Add(window).Sub(now)}
}

func (l *limiter) turn(now time.Time) {
	if now.Sub(l.start) > window {
		l.start = now
		clear(l.count)
		clear(l.tokens)
	}
}

// failed counts a failure, with the token that it was about, if any. It returns an error where there were too many for
// that token.
func (l *limiter) failed(source string, token fleet.TokenID, now time.Time) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.turn(now)
	add(l.count, network(source))
	if token == "" {
		return nil
	}
	add(l.tokens, token)
	if l.tokens[token] <= tokenFailures {
		return nil
	}
	err := fleet.NewError(fleet.ErrRateLimited, "token", "too many failed authentications with this token: wait a minute")
	return retryError{err, l.start.Add(window).Sub(now)}
}

func add[K comparable](m map[K]int, k K) {
	if len(m) < maxSources || m[k] > 0 {
		m[k]++
	}
}
