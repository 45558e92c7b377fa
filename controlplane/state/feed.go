package state

import (
	"slices"
	"sync"

	"github.com/edgefleet/edgefleet/fleet"
)

// HostFeed collects the names of the hosts about which something changed: the host, its order, its certificate or its
// challenges. A watch channel says that a table changed; of a table of a hundred thousand rows that is not enough.
type HostFeed struct {
	of    *followers
	wake  chan struct{}
	names map[fleet.HostName]struct{}
	all   bool
}

// followers are the feeds of a store; they outlive restores.
type followers struct {
	mu    sync.Mutex
	feeds map[*HostFeed]struct{}
}

// FollowHosts begins a feed; its first Take says that all hosts may have changed. Whoever began it closes it.
func (s *Store) FollowHosts() *HostFeed {
	f := &HostFeed{of: &s.followers, wake: make(chan struct{}, 1), names: map[fleet.HostName]struct{}{}, all: true}
	f.wake <- struct{}{}
	f.of.mu.Lock()
	defer f.of.mu.Unlock()
	if f.of.feeds == nil {
		f.of.feeds = map[*HostFeed]struct{}{}
	}
	f.of.feeds[f] = struct{}{}
	return f
}

// Close ends the feed.
func (f *HostFeed) Close() {
	f.of.mu.Lock()
	defer f.of.mu.Unlock()
	delete(f.of.feeds, f)
}

// Changed has a value when Take has something to give.
func (f *HostFeed) Changed() <-chan struct{} { return f.wake }

// Take returns the names, sorted, of what changed since the last call, or that everything may have. A view that is read
// after the call includes these changes.
func (f *HostFeed) Take() (names []fleet.HostName, all bool) {
	f.of.mu.Lock()
	defer f.of.mu.Unlock()
	all, f.all = f.all, false
	for n := range f.names {
		names = append(names, n)
	}
	clear(f.names)
	select {
	case <-f.wake:
	default:
	}
	slices.Sort(names)
	return names, all
}

// tell hands the names of a commit to every feed.
func (fs *followers) tell(names map[fleet.HostName]struct{}, all bool) {
	if len(names) == 0 && !all {
		return
	}
	fs.mu.Lock()
	defer fs.mu.Unlock()
	for f := range fs.feeds {
		f.all = f.all || all
		for n := range names {
			f.names[n] = struct{}{}
		}
		select {
		case f.wake <- struct{}{}:
		default: // it is awake already
		}
	}
}

// touch notes that something about a host is written.
func (t *Tx) touch(n fleet.HostName) {
	if t.followers == nil { // a restore: everything changes
		return
	}
	if t.hosts == nil {
		t.hosts = map[fleet.HostName]struct{}{}
	}
	t.hosts[n] = struct{}{}
}
