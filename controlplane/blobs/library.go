package blobs

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/edgefleet/edgefleet/controlplane/keys"
	"github.com/edgefleet/edgefleet/controlplane/state"
	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/fleet/bundle"
)

// inputs are the tables that bundles are derived from.
var inputs = []state.Table{state.Groups, state.Tenants, state.Hosts, state.Rules, state.Certificates, state.Challenges, state.Origins, state.OriginCerts, state.Epochs, state.Clusters}

// Library answers nodes: signed heads, group keys, blobs.
type Library struct {
	store *state.Store
	keys  *keys.Keys

	// deriving is held while trees are derived: of two that ask for the same index, one does the work. It guards cache.
	deriving sync.Mutex
	cache    *cache

	mu sync.Mutex
	// trees keeps the trees of each group and kind, the current one first; index is that of the view that the current ones
	// were derived from.
	trees map[slot][]held
	index uint64
	err   error
	// due is when the next derivation may begin.
	due time.Time
}

type slot struct {
	group fleet.GroupName
	kind  fleet.HeadKind
}

// held is a tree that blobs are served of. All but the current one end.
type held struct {
	bundle.Tree
	end time.Time
}

const (
	// keepTree is for how long a tree that was replaced is still served: a node that began to load it gets to its end, also
	// while the next ones come faster than nodes load. The one before the current is always kept.
	keepTree = 15 * time.Second
	// keepTrees bounds the trees of one group and kind.
	keepTrees = 32
)

// New makes the library of a member with keys.
func New(s *state.Store, k *keys.Keys) *Library {
	return &Library{store: s, keys: k, cache: newCache(), trees: map[slot][]held{}}
}

// breath is the least pause between two derivations, so that a burst of writes costs one and not one each.
const breath = 100 * time.Millisecond

// Run keeps the trees current until ctx ends, and calls changed, if set, after each change of the state. A tree that
// cannot be derived stays as it was, for one tenant's fault must end neither the member nor the others' convergence:
// see Err. Several Run share the work.
func (l *Library) Run(ctx context.Context, changed func(ctx context.Context) error) error {
	for {
		ws := l.store.Watch(append([]state.Table{state.Heads}, inputs...)...)
		if v := l.store.Read(); !l.derived(v) {
			if !l.rest(ctx) {
				return nil
			}
			_ = l.Refresh(l.store.Read()) // kept for Err
		}
		if changed != nil {
			if err := changed(ctx); err != nil {
				return err
			}
		}
		if ws.WatchCtx(ctx) != nil {
			return nil
		}
	}
}

// derived reports whether the trees are of v or later.
func (l *Library) derived(v *state.View) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return v.Index() > 0 && v.Index() <= l.index
}

// rest waits until the next derivation is due; false means that ctx ended first.
func (l *Library) rest(ctx context.Context) bool {
	l.mu.Lock()
	pause := time.Until(l.due)
	l.mu.Unlock()
	t := time.NewTimer(max(pause, 0))
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// Refresh derives the trees of v. Those that cannot be derived stay as they were; the error says which and why. It may
// be called concurrently: a view that is not newer than the last one is not derived again.
func (l *Library) Refresh(v *state.View) error {
	l.deriving.Lock()
	defer l.deriving.Unlock()
	if l.derived(v) {
		return l.Err()
	}
	worked := processorTime()
	trees := map[slot]bundle.Tree{}
	var errs []error
	for _, g := range v.Groups() {
		of, err := derive(v, g.Name, l.keys, l.cache)
		if err != nil {
			errs = append(errs, err)
		}
		for kind, t := range of {
			trees[slot{g.Name, kind}] = t
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.index, l.err = v.Index(), errors.Join(errs...)
	// Trees that take long have a quarter of one processor at work on them while much is written, not all of it. What counts
	// is the work: on a machine that is busy otherwise, it must not be put off for longer still.
	now := time.Now()
	l.due = now.Add(max(breath, 3*worked()))
	for s, t := range trees {
		if old := l.trees[s]; len(old) == 0 || old[0].Root != t.Root {
			l.trees[s] = replaced(old, t, now)
		}
	}
	return l.err
}

// replaced are the trees to keep when t takes the place of the first of old.
func replaced(old []held, t bundle.Tree, now time.Time) []held {
	next := []held{{Tree: t}}
	for i, h := range old {
		switch {
		case i == 0:
			h.end = now.Add(keepTree)
		case h.end.Before(now) || len(next) == keepTrees:
			return next
		}
		next = append(next, h)
	}
	return next
}

// Err is why trees are older than the state; nil if they are not.
func (l *Library) Err() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}

// Root is the root of the current tree.
func (l *Library) Root(g fleet.GroupName, k fleet.HeadKind) fleet.Digest {
	l.mu.Lock()
	defer l.mu.Unlock()
	if trees := l.trees[slot{g, k}]; len(trees) > 0 {
		return trees[0].Root
	}
	return ""
}

// Blob returns a blob of the trees that are kept, else ErrNotFound.
func (l *Library) Blob(d fleet.Digest) ([]byte, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, trees := range l.trees {
		for _, t := range trees {
			if b, ok := t.Blobs[d]; ok {
				return b, nil
			}
		}
	}
	return nil, fleet.NewError(fleet.ErrNotFound, "digest", "blob %s is not held by this member (now)", d.Short())
}

// GroupHeads returns the signed heads of a group.
func (l *Library) GroupHeads(v *state.View, g fleet.GroupName) ([]fleet.SignedHead, error) {
	var heads []fleet.SignedHead
	for _, kind := range fleet.HeadKinds {
		h, ok := v.Head(g, kind)
		if !ok {
			continue
		}
		s, err := l.keys.SignHead(h)
		if err != nil {
			return nil, err
		}
		heads = append(heads, s)
	}
	return heads, nil
}

// HeadSet returns what a node needs to converge.
func (l *Library) HeadSet(id fleet.NodeID) (fleet.HeadSet, error) {
	v := l.store.Read()
	n, ok := v.Node(id)
	if !ok {
		return fleet.HeadSet{}, fleet.NewError(fleet.ErrDenied, "node", "node %s is not part of this fleet", id)
	}
	if err := n.Refusal(); err != nil {
		return fleet.HeadSet{}, err
	}
	heads, err := l.GroupHeads(v, n.Spec.Group)
	if err != nil {
		return fleet.HeadSet{}, err
	}
	key, err := l.keys.Group(n.Spec.Group, v.EpochKey(n.Spec.Group))
	if err != nil {
		return fleet.HeadSet{}, err
	}
	env, err := key.SealTo(n.ID, n.Identity.HPKE)
	if err != nil {
		return fleet.HeadSet{}, fmt.Errorf("seal group key to node %s: %w", n.ID, err)
	}
	return fleet.HeadSet{Heads: heads, Incarnation: v.Statement(), Envelope: &env, Members: Endpoints(v)}, nil
}

// Endpoints are the members' addresses as nodes use them.
func Endpoints(v *state.View) []fleet.Endpoints {
	var out []fleet.Endpoints
	for _, m := range v.Members() {
		out = append(out, fleet.Endpoints{Member: m.ID, API: m.API, NATS: m.NATS})
	}
	return out
}
