package blobs

import (
	"maps"
	"slices"

	"github.com/edgefleet/edgefleet/controlplane/state"
	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/fleet/bundle"
)

// cache keeps what trees were made of, so that a change of one tenant costs one tenant's work: without it, a large
// fleet's members would do little else than derive what they have. It is not for concurrent use.
type cache struct {
	leaves map[leafKey]cachedLeaf
	trees  map[slot]cachedTree
	// used are the leaves of the round that goes on.
	used map[leafKey]cachedLeaf
}

// leafKey has all that a leaf depends on and that is not in the state.
type leafKey struct {
	kind   fleet.HeadKind
	tenant fleet.TenantID
	group  fleet.GroupName
	epoch  uint64
}

type cachedLeaf struct {
	bundle.Leaf
	reads *state.Reads
	// challenges were gathered for all tenants at once.
	challenges []fleet.BundleChallenge
}

type cachedTree struct {
	bundle.Tree
	of map[fleet.TenantID]fleet.Digest
}

func newCache() *cache {
	return &cache{leaves: map[leafKey]cachedLeaf{}, trees: map[slot]cachedTree{}, used: map[leafKey]cachedLeaf{}}
}

// leaf returns a leaf that was kept, unless what it was made of has changed.
func (c *cache) leaf(key leafKey, challenges []fleet.BundleChallenge) (bundle.Leaf, bool) {
	l, ok := c.leaves[key]
	if !ok || !slices.Equal(l.challenges, challenges) || l.reads.Changed() {
		return bundle.Leaf{}, false
	}
	c.used[key] = l
	return l.Leaf, true
}

func (c *cache) keep(key leafKey, challenges []fleet.BundleChallenge, l bundle.Leaf, reads *state.Reads) bundle.Leaf {
	c.used[key] = cachedLeaf{l, reads, challenges}
	return l
}

// tree returns the tree of leaves: the one before if it is of the same.
func (c *cache) tree(s slot, leaves map[fleet.TenantID]bundle.Leaf) (bundle.Tree, error) {
	of := make(map[fleet.TenantID]fleet.Digest, len(leaves))
	for id, l := range leaves {
		of[id] = l.Digest
	}
	if before, ok := c.trees[s]; ok && maps.Equal(before.of, of) {
		return before.Tree, nil
	}
	t, err := bundle.Assemble(leaves)
	if err == nil {
		c.trees[s] = cachedTree{t, of}
	}
	return t, err
}

// turn ends a round: leaves that it did not use are forgotten.
func (c *cache) turn() {
	c.leaves, c.used = c.used, make(map[leafKey]cachedLeaf, len(c.used))
}
