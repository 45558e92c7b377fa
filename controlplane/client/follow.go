package client

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/edgefleet/edgefleet/fleet"
)

// Overlap is how long before the last event a stream that broke begins again: events that come late, by a spool say,
// have times in the past, and reach the members in different orders.
const Overlap = 10 * time.Minute

// maxSeen bounds the events that Follow remembers.
const maxSeen = 200_000

// followPause is the pause before a stream is opened again.
const followPause = 500 * time.Millisecond

// Follow reads the events of a tenant for as long as ctx lasts, over as many connections and members as it takes, each
// event once. broken, if not nil, is told when a connection ended and why, and of events that the next member does not hold.
// What is lost: events that reach the members, while there is no connection, later than Overlap after their time.
func (c *Client) Follow(ctx context.Context, path string, query url.Values, broken func(error), fn func(data []byte) error) error {
	f := &follower{seen: map[string]int64{}, fn: fn, broken: broken}
	turn := *c
	for {
		r := newRequest(http.MethodGet, path, query, nil, nil)
		if f.last != "" {
			r.header.Set("Last-Event-ID", f.last)
			if f.newest > 0 { // else there is nothing to overlap: it goes on from where the stream began
				q := url.Values{"overlap": {Overlap.String()}}
				maps.Copy(q, query)
				r.query = q
			}
		}
		err := turn.stream1(ctx, r, f.take)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if !errors.Is(err, fleet.ErrUnavailable) && !errors.Is(err, fleet.ErrRateLimited) { // a full member frees places, or the next has one
			return err
		}
		if broken != nil {
			broken(err)
		}
		turn.addrs = slices.Concat(turn.addrs[1:], turn.addrs[:1])
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(followPause):
		}
	}
}

// follower is what was read so far.
type follower struct {
	fn     func([]byte) error
	broken func(error)
	// last is the id of the latest event, newest its time; ids are <nanoseconds>-<event id>.
	last   string
	newest int64
	seen   map[string]int64
}

func (f *follower) take(e sse) error {
	if e.bare {
		f.last = cmp.Or(f.last, e.id)
		return nil
	}
	switch e.event {
	case "gap":
		if f.broken != nil {
			f.broken(fmt.Errorf("%w: events may be missing here: the member does not hold all since the last one (%s)", fleet.ErrNotFound, e.data))
		}
		return nil
	case "resume":
		return fmt.Errorf("%w: the member asks to connect again: %s", fleet.ErrUnavailable, e.data)
	}
	nanos, _, _ := strings.Cut(e.id, "-")
	at, err := strconv.ParseInt(nanos, 10, 64)
	if err != nil {
		return f.fn(e.data) // of an API without ids
	}
	if _, again := f.seen[e.id]; again {
		return nil
	}
	f.seen[e.id] = at
	if at >= f.newest {
		f.last, f.newest = e.id, at
	}
	if len(f.seen) > maxSeen {
		f.forget()
	}
	return f.fn(e.data)
}

// forget drops what cannot come again, else half of what there is, the oldest first.
func (f *follower) forget() {
	limit := f.newest - int64(Overlap)
	times := make([]int64, 0, len(f.seen))
	for _, at := range f.seen {
		times = append(times, at)
	}
	slices.Sort(times)
	limit = max(limit, times[len(times)/2])
	for id, at := range f.seen {
		if at < limit {
			delete(f.seen, id)
		}
	}
}
