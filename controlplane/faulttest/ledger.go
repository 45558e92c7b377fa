package faulttest

import (
	"fmt"
	"sync"

	"github.com/edgefleet/edgefleet/controlplane/state"
	"github.com/edgefleet/edgefleet/fleet"
)

// hashEvery is how often the whole state is hashed; the audit chain, which covers each change, is compared at each index.
const hashEvery = 8

// Ledger is what members did and what clients were told, as it happened. What cannot be is a violation at once, with the
// index at which it began.
type Ledger struct {
	mu sync.Mutex
	// chain and hash are the audit head and the state's hash at each index, by whoever said it first.
	chain, hash map[uint64]said
	// heads are the roots that a version stood for, latest the last version that each member had.
	heads  map[headVersion]fleet.Digest
	latest map[memberHead]fleet.Version
	// leaders is who led in each term.
	leaders map[uint64]fleet.MemberID
	// acknowledged, refused and unknown are the mutations by what the client knows.
	acknowledged []Mutation
	refused      []Mutation
	unknown      []Mutation
	violations   []string
}

type said struct {
	by   fleet.MemberID
	what string
}

type headVersion struct {
	group   fleet.GroupName
	kind    fleet.HeadKind
	version fleet.Version
}

type memberHead struct {
	member fleet.MemberID
	group  fleet.GroupName
	kind   fleet.HeadKind
}

// Mutation is what a client asked for.
type Mutation struct {
	// RequestID is what the answer said; empty if there was none.
	RequestID string
	// Object is what it changes, in the words of the audit log; Mark is a text that only this mutation put there.
	Object, Mark string
	// Revision is the object's, once changed; 0 where there is none.
	Revision uint64
	// Replayed: the answer is that of an earlier request, which made the change.
	Replayed bool
}

// NewLedger makes an empty ledger.
func NewLedger() *Ledger {
	return &Ledger{
		chain: map[uint64]said{}, hash: map[uint64]said{}, heads: map[headVersion]fleet.Digest{},
		latest: map[memberHead]fleet.Version{}, leaders: map[uint64]fleet.MemberID{},
	}
}

// violated notes what cannot be; mu is held.
func (l *Ledger) violated(format string, args ...any) {
	if len(l.violations) < 20 {
		l.violations = append(l.violations, fmt.Sprintf(format, args...))
	}
}

// compare notes what a member says of an index, or that another said otherwise; mu is held.
func (l *Ledger) compare(at map[uint64]said, what string, m fleet.MemberID, index uint64, value string) {
	first, known := at[index]
	if !known {
		at[index] = said{m, value}
		return
	}
	if first.what != value {
		l.violated("%s at index %d: %s has %s, %s has %s", what, index, first.by, first.what, m, value)
	}
}

// Applied notes the state of a member right after it applied an entry or took a snapshot.
func (l *Ledger) Applied(m fleet.MemberID, v *state.View, whole bool) {
	index := v.Index()
	head := v.AuditHead()
	l.mu.Lock()
	l.compare(l.chain, "audit head", m, index, fmt.Sprintf("%d %s", head.Seq, head.Hash))
	for _, h := range v.Heads() {
		l.head(m, h)
	}
	l.mu.Unlock()
	if !whole && index%hashEvery != 0 {
		return
	}
	sum, err := v.Hash()
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil {
		l.violated("state of %s at index %d cannot be hashed: %v", m, index, err)
		return
	}
	l.compare(l.hash, "state hash", m, index, sum)
}

// head is called with mu held.
func (l *Ledger) head(m fleet.MemberID, h fleet.GroupHead) {
	v := headVersion{h.Group, h.Kind, h.Version}
	if root, known := l.heads[v]; known && root != h.Root {
		l.violated("head %v stands for %s and for %s", v, root.Short(), h.Root.Short())
	}
	l.heads[v] = h.Root
	k := memberHead{m, h.Group, h.Kind}
	if h.Version.Compare(l.latest[k]) < 0 {
		l.violated("head %s/%s of member %s went back from %v to %v", h.Group, h.Kind, m, l.latest[k], h.Version)
	}
	l.latest[k] = h.Version
}

// Restarted forgets how far a member was: after a start it may be behind.
func (l *Ledger) Restarted(m fleet.MemberID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for k := range l.latest {
		if k.member == m {
			delete(l.latest, k)
		}
	}
}

// Published notes a head that was sent to nodes: it must have been committed.
func (l *Ledger) Published(m fleet.MemberID, h fleet.GroupHead) {
	l.mu.Lock()
	defer l.mu.Unlock()
	v := headVersion{h.Group, h.Kind, h.Version}
	if root, known := l.heads[v]; !known || root != h.Root {
		l.violated("member %s published head %v with root %s, committed is %q", m, v, h.Root.Short(), root)
	}
}

// Leads notes that a member led in a term.
func (l *Ledger) Leads(m fleet.MemberID, term uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if other, known := l.leaders[term]; known && other != m {
		l.violated("%s and %s both led in term %d", other, m, term)
	}
	l.leaders[term] = m
}

// Acknowledged notes a mutation that a client was told took effect.
func (l *Ledger) Acknowledged(m Mutation) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.acknowledged = append(l.acknowledged, m)
}

// Refused notes a mutation that a client was told did not take effect.
func (l *Ledger) Refused(m Mutation) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.refused = append(l.refused, m)
}

// Unknown notes a mutation of which the client does not know.
func (l *Ledger) Unknown(m Mutation) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.unknown = append(l.unknown, m)
}
