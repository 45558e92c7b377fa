package session

import (
	"maps"
	"slices"
	"sync"

	"github.com/edgefleet/edgefleet/fleet"
)

// mailbox has, of each subject, the last head set that came unasked. Each set says all that its subject has to say, so one
// that is replaced before it was taken needs no work: a node that is slower than its leader skips heads, not certificates.
type mailbox struct {
	// came has a value when there is something to take.
	came chan struct{}

	mu   sync.Mutex
	sets map[string]fleet.HeadSet
}

func newMailbox() *mailbox {
	return &mailbox{came: make(chan struct{}, 1), sets: map[string]fleet.HeadSet{}}
}

// put never blocks.
func (m *mailbox) put(subject string, set fleet.HeadSet) {
	m.mu.Lock()
	m.sets[subject] = set
	m.mu.Unlock()
	nudge(m.came)
}

// take empties the mailbox.
func (m *mailbox) take() []fleet.HeadSet {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []fleet.HeadSet
	for _, subject := range slices.Sorted(maps.Keys(m.sets)) {
		out = append(out, m.sets[subject])
	}
	clear(m.sets)
	return out
}
