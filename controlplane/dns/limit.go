package dns

import (
	"hash/maphash"
	"net/netip"
	"sync"
	"time"
)

const (
	// clientBuckets is the size of the table of clients; clients that fall into one bucket share its rate, so that
	// memory stays bounded whatever addresses are forged.
	clientBuckets = 1 << 14
	// slip is how often a limited query is answered with TC instead of nothing: a real client then asks again by TCP,
	// and a forged one gains nothing, since the answer is as small as the question.
	slip = 2
)

// verdict is what to do with a query.
type verdict int

const (
	pass verdict = iota
	truncate
	drop
)

// bucket is a token bucket; burst is twice its rate.
type bucket struct {
	tokens float64
	last   time.Time
	denied uint64
}

func (b *bucket) take(now time.Time, rate float64) bool {
	if b.last.IsZero() {
		b.tokens, b.last = 2*rate, now
	}
	if d := now.Sub(b.last).Seconds(); d > 0 {
		b.tokens, b.last = min(2*rate, b.tokens+d*rate), now
	}
	if b.tokens < 1 {
		b.denied++
		return false
	}
	b.tokens--
	return true
}

// limiter limits answers by UDP, which a forged source address could send to somebody else (response rate limiting),
// and queries altogether.
type limiter struct {
	perClient, total float64
	unlimited        []netip.Prefix
	seed             maphash.Seed

	mu      sync.Mutex
	all     bucket
	clients [clientBuckets]bucket
}

func newLimiter(perClient, total int, unlimited []netip.Prefix) *limiter {
	return &limiter{perClient: float64(perClient), total: float64(total), unlimited: unlimited, seed: maphash.MakeSeed()}
}

// admit judges one query. TCP clients have proved their address and are only counted in the total.
func (l *limiter) admit(client netip.Addr, udp bool, now time.Time) verdict {
	client = client.Unmap().WithZone("")
	for _, p := range l.unlimited {
		if p.Contains(client) {
			return pass
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.all.take(now, l.total) {
		return drop
	}
	if !udp {
		return pass
	}
	b := &l.clients[maphash.Comparable(l.seed, prefix(client))%clientBuckets]
	switch {
	case b.take(now, l.perClient):
		return pass
	case b.denied%slip == 0:
		return truncate
	}
	return drop
}

// prefix is the network of an address (not IPv4-mapped, without a zone) that a forger could pick addresses from: /24 or /56.
func prefix(a netip.Addr) netip.Prefix {
	bits := 24
	if a.Is6() {
		bits = 56
	}
	p, _ := a.Prefix(bits) // fails for the zero address only, whose zero prefix is as good a key
	return p
}
