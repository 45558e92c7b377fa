package api

import (
	"math/rand/v2"
	"sync"
	"time"

	"github.com/edgefleet/edgefleet/fleet"
)

// crowdShare is the part of the crowd's places that one caller may have: an eighth.
const crowdShare = 8

// crowdPause is when a node that found no place comes back: after a second at least, and up to five, so that those that
// were refused together do not come back together.
const crowdPause, crowdSpread = time.Second, 4 * time.Second

// crowd bounds the requests of all nodes together that are under way at this member, so that a stampede, after an outage
// say, leaves room for operators and customers. A node that finds no place asks another member, and comes back.
type crowd struct {
	max int // 0: no limit

	mu   sync.Mutex
	open int
	each map[string]int
}

func newCrowd(most int) *crowd { return &crowd{max: most, each: map[string]int{}} }

// enter takes a place; leave gives it back. The key is the caller's; what another member passed on has none, and counts
// for all of them only.
func (c *crowd) enter(key string) (leave func(), err error) {
	if c.max <= 0 {
		return func() {}, nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.open >= c.max || key != "" && c.each[key] >= max(1, c.max/crowdShare) {
		err := fleet.NewError(fleet.ErrUnavailable, "", "%d requests of nodes are under way at this member, which has room for %d and for %d of one caller: ask another member, or again later", c.open, c.max, max(1, c.max/crowdShare))
		return nil, retryError{err, crowdPause + rand.N(crowdSpread)} //nolint:gosec // it spreads load, and hides nothing
	}
	c.open++
	c.each[key]++
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.open--
		if c.each[key]--; c.each[key] == 0 {
			delete(c.each, key)
		}
	}, nil
}
