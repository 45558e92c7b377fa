package hosts

import (
	"container/heap"
	"time"

	"github.com/edgefleet/edgefleet/fleet"
)

// book says which hosts are to be decided about: those that were marked, because something about them changed, and those
// of which the time has come.
type book struct {
	entries map[fleet.HostName]*entry
	due     dueHeap
	marked  []*entry
	// waiting are the hosts that wait for edges to acknowledge a certificate.
	waiting map[fleet.HostName]bool
}

// entry is one host in the book.
type entry struct {
	host fleet.HostName
	wake time.Time
	// place is where it is in the heap, -1 if it is not there.
	place int
	// marked: it is in the list of the marked. poked: its DNS is to be looked at now.
	marked, poked bool
}

func newBook() *book {
	return &book{entries: map[fleet.HostName]*entry{}, waiting: map[fleet.HostName]bool{}}
}

func (b *book) entry(h fleet.HostName) *entry {
	e := b.entries[h]
	if e == nil {
		e = &entry{host: h, place: -1}
		b.entries[h] = e
	}
	return e
}

// mark has a host decided about in the next step, before those of which the time has come.
func (b *book) mark(h fleet.HostName) {
	if e := b.entry(h); !e.marked {
		e.marked = true
		b.marked = append(b.marked, e)
	}
}

// poke has a host's DNS looked at now.
func (b *book) poke(h fleet.HostName) {
	b.mark(h)
	b.entry(h).poked = true
}

// at has a host decided about at a time; it replaces the time that it had.
func (b *book) at(h fleet.HostName, when time.Time) {
	e := b.entry(h)
	e.wake = when
	if e.place >= 0 {
		heap.Fix(&b.due, e.place)
		return
	}
	heap.Push(&b.due, e)
}

// drop forgets a host.
func (b *book) drop(h fleet.HostName) {
	e := b.entries[h]
	if e == nil {
		return
	}
	if e.place >= 0 {
		heap.Remove(&b.due, e.place)
	}
	delete(b.entries, h)
	delete(b.waiting, h)
}

// next takes at most limit hosts: those that were marked, in the order in which they were, but leaves a quarter to those
// that have been due for longest.
func (b *book) next(now time.Time, limit int) []*entry {
	var out []*entry
	for len(b.marked) > 0 && (len(out) < limit*3/4 || !b.ready(now) && len(out) < limit) {
		e := b.marked[0]
		b.marked[0] = nil
		b.marked = b.marked[1:]
		e.marked = false
		if b.entries[e.host] == e { // else it was deleted meanwhile
			out = append(out, e)
		}
	}
	for b.ready(now) && len(out) < limit {
		e, _ := heap.Pop(&b.due).(*entry)
		if !e.marked {
			out = append(out, e)
		}
	}
	return out
}

func (b *book) ready(now time.Time) bool { return len(b.due) > 0 && !b.due[0].wake.After(now) }

// wake is when next has something to give; latest if it is not before.
func (b *book) wake(now, latest time.Time) time.Time {
	switch {
	case len(b.marked) > 0:
		return now
	case len(b.due) > 0 && b.due[0].wake.Before(latest):
		return b.due[0].wake
	}
	return latest
}

// dueHeap has the entry that is due first at its top.
type dueHeap []*entry

// Len implements heap.Interface.
func (d dueHeap) Len() int { return len(d) }

// Less implements heap.Interface.
func (d dueHeap) Less(i, j int) bool {
	if d[i].wake.Equal(d[j].wake) {
		return d[i].host < d[j].host
	}
	return d[i].wake.Before(d[j].wake)
}

// Swap implements heap.Interface.
func (d dueHeap) Swap(i, j int) {
	d[i], d[j] = d[j], d[i]
	d[i].place, d[j].place = i, j
}

// Push implements heap.Interface.
func (d *dueHeap) Push(x any) {
	if e, ok := x.(*entry); ok {
		e.place = len(*d)
		*d = append(*d, e)
	}
}

// Pop implements heap.Interface.
func (d *dueHeap) Pop() any {
	old := *d
	e := old[len(old)-1]
	old[len(old)-1] = nil
	*d = old[:len(old)-1]
	e.place = -1
	return e
}
