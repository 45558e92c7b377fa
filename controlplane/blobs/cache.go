package blobs

import (
	"net/netip"
	"slices"

	"github.com/edgefleet/edgefleet/controlplane/state"
	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/fleet/bundle"
)

// cache keeps what trees were made of, so that a change of one tenant costs one tenant's work: without it, a large
// fleet's members would do little else than derive what they have. It is not for concurrent use.
type cache struct {
	groups map[fleet.GroupName]*groupCache
}

// groupCache is what was derived for one group in one epoch of its key.
type groupCache struct {
	epoch   uint64
	tenants map[fleet.TenantID]*tenantCache
	trees   map[fleet.HeadKind]bundle.Tree
}

// tenantCache is a tenant's leaves: for each kind one, or why there is none.
type tenantCache struct {
	leaves map[fleet.HeadKind]bundle.Leaf
	errs   map[fleet.HeadKind]error
	// reads, allowed and challenges are what the leaves were made of: of the tenant itself only its allowed origins, for
	// the rest of it changes more often; challenges are gathered for all tenants at once.
	reads      *state.Reads
	allowed    []netip.Prefix
	challenges []fleet.BundleChallenge
}

func newCache() *cache { return &cache{groups: map[fleet.GroupName]*groupCache{}} }

// group returns what is kept of a group in an epoch.
func (c *cache) group(name fleet.GroupName, epoch uint64) *groupCache {
	g, ok := c.groups[name]
	if !ok || g.epoch != epoch {
		g = &groupCache{epoch: epoch, tenants: map[fleet.TenantID]*tenantCache{}, trees: map[fleet.HeadKind]bundle.Tree{}}
		c.groups[name] = g
	}
	return g
}

// current reports whether the leaves are what would be derived of v.
func (t *tenantCache) current(v *state.View, allowed []netip.Prefix, challenges []fleet.BundleChallenge) bool {
	return t != nil && slices.Equal(t.allowed, allowed) && slices.Equal(t.challenges, challenges) && !t.reads.ChangedIn(v)
}

// tree returns the tree of one kind: the one before unless a leaf moved.
func (g *groupCache) tree(kind fleet.HeadKind, moved bool) (bundle.Tree, error) {
	if t, ok := g.trees[kind]; ok && !moved {
		return t, nil
	}
	leaves := make(map[fleet.TenantID]bundle.Leaf, len(g.tenants))
	for id, t := range g.tenants {
		leaves[id] = t.leaves[kind]
	}
	t, err := bundle.Assemble(leaves)
	if err != nil {
		delete(g.trees, kind)
		return t, err
	}
	g.trees[kind] = t
	return t, nil
}
