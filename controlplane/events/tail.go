package events

import (
	"context"
	"slices"
	"sync"

	"go.opentelemetry.io/otel/metric"

	"github.com/edgefleet/edgefleet/fleet"
)

// tailLength bounds what one subscriber may be behind.
const tailLength = 256

// tail hands newly stored events to subscribers.
type tail struct {
	skipped metric.Int64Counter

	mu     sync.Mutex
	closed bool
	subs   []chan fleet.Event
	// recent are the last events that unseen let through, order their order.
	recent map[fleet.EventID]bool
	order  []fleet.EventID
}

// maxRecent bounds the events that a tail remembers.
const maxRecent = 8192

// unseen returns the events that it has not returned lately.
func (t *tail) unseen(evs []fleet.Event) (unseen []fleet.Event) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.recent == nil {
		t.recent = map[fleet.EventID]bool{}
	}
	for _, ev := range evs {
		if t.recent[ev.ID] {
			continue
		}
		unseen = append(unseen, ev)
		t.recent[ev.ID] = true
		if t.order = append(t.order, ev.ID); len(t.order) > maxRecent {
			delete(t.recent, t.order[0])
			t.order = t.order[1:]
		}
	}
	return unseen
}

// Subscribe returns a channel of the events of all tenants that are stored from now on; cancel ends it and closes the
// channel, as Close does. The channel of a subscriber that is too slow is closed too, and what it misses is counted: it
// reads the store from where it was.
func (s *Store) Subscribe() (<-chan fleet.Event, func()) {
	return s.tail.subscribe()
}

func (t *tail) subscribe() (<-chan fleet.Event, func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	ch := make(chan fleet.Event, tailLength)
	if t.closed {
		close(ch)
		return ch, func() {}
	}
	t.subs = append(t.subs, ch)
	return ch, sync.OnceFunc(func() { t.cancel(ch) })
}

func (t *tail) cancel(ch chan fleet.Event) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if i := slices.Index(t.subs, ch); i >= 0 {
		t.subs = slices.Delete(t.subs, i, i+1)
		close(ch)
	}
}

func (t *tail) publish(ctx context.Context, evs []fleet.Event) {
	t.mu.Lock()
	defer t.mu.Unlock()
	skipped := int64(0)
	t.subs = slices.DeleteFunc(t.subs, func(ch chan fleet.Event) bool {
		for i, ev := range evs {
			select {
			case ch <- ev:
			default:
				skipped += int64(len(evs) - i)
				close(ch)
				return true
			}
		}
		return false
	})
	if skipped > 0 {
		t.skipped.Add(ctx, skipped)
	}
}

func (t *tail) close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = true
	for _, ch := range t.subs {
		close(ch)
	}
	t.subs = nil
}
