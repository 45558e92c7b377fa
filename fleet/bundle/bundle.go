// Package bundle builds and reads the content-addressed trees that heads point at.
//
// A tree has three levels: a root that names up to 256 shard manifests, manifests that name tenants' bundles, and one
// bundle a tenant. One tenant's change moves one bundle, one manifest and the root. The same bundles give the same
// root on every member. It does no I/O: readers pass a function that fetches a blob.
package bundle

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"github.com/edgefleet/edgefleet/fleet"
)

const format = 1

// maxManifest bounds a root or manifest, in bytes.
const maxManifest = 32 << 20

type root struct {
	Format int                     `json:"format"`
	Shards map[string]fleet.Digest `json:"shards"`
}

type manifest struct {
	Tenants map[fleet.TenantID]fleet.Digest `json:"tenants"`
}

// Tree is a built tree: its root and every blob by digest, the root's own included.
type Tree struct {
	Root  fleet.Digest
	Blobs map[fleet.Digest][]byte
}

// Leaf is a tenant's encoded bundle and its digest.
type Leaf struct {
	Digest fleet.Digest
	Bytes  []byte
}

// NewLeaf is the leaf of an encoded bundle.
func NewLeaf(b []byte) Leaf { return Leaf{fleet.DigestOf(b), b} }

// Build makes the tree of the tenants' encoded bundles.
func Build(bundles map[fleet.TenantID][]byte) (Tree, error) {
	leaves := make(map[fleet.TenantID]Leaf, len(bundles))
	for tenant, b := range bundles {
		leaves[tenant] = NewLeaf(b)
	}
	return Assemble(leaves)
}

// Assemble makes the tree of leaves whose digests are known: most of a large fleet's are those of the tree before.
func Assemble(leaves map[fleet.TenantID]Leaf) (Tree, error) {
	t := Tree{Blobs: make(map[fleet.Digest][]byte, len(leaves)+2)}
	shards := map[string]manifest{}
	for tenant, l := range leaves {
		if len(l.Bytes) > fleet.MaxBundleBytes {
			return Tree{}, fleet.NewError(fleet.ErrTooLarge, "bundle", "bundle of tenant %s has %d bytes; the limit is %d", tenant, len(l.Bytes), fleet.MaxBundleBytes)
		}
		name := shard(tenant)
		if shards[name].Tenants == nil {
			shards[name] = manifest{Tenants: map[fleet.TenantID]fleet.Digest{}}
		}
		shards[name].Tenants[tenant] = l.Digest
		t.Blobs[l.Digest] = l.Bytes
	}
	r := root{Format: format, Shards: map[string]fleet.Digest{}}
	for name, m := range shards {
		b, err := json.Marshal(m) // maps are encoded in key order
		if err != nil {
			return Tree{}, fmt.Errorf("build tree: %w", err)
		}
		r.Shards[name] = t.add(b)
	}
	b, err := json.Marshal(r)
	if err != nil {
		return Tree{}, fmt.Errorf("build tree: %w", err)
	}
	t.Root = t.add(b)
	return t, nil
}

func (t Tree) add(b []byte) fleet.Digest {
	d := fleet.DigestOf(b)
	t.Blobs[d] = b
	return d
}

// shard is the first byte of the SHA-256 of the tenant's id, hex.
func shard(id fleet.TenantID) string {
	sum := sha256.Sum256([]byte(id))
	return hex.EncodeToString(sum[:1])
}

// Fetch returns the blob with digest d; it may return any bytes: they are verified here.
type Fetch func(d fleet.Digest) ([]byte, error)

// Index reads the root and the manifests of a tree: which bundle each tenant has.
func Index(d fleet.Digest, fetch Fetch) (map[fleet.TenantID]fleet.Digest, error) {
	var r root
	if err := read(d, fetch, &r); err != nil {
		return nil, fmt.Errorf("read root: %w", err)
	}
	if r.Format != format {
		return nil, fleet.NewError(fleet.ErrInvalid, "format", "bundle tree has format %d; this version reads %d", r.Format, format)
	}
	index := map[fleet.TenantID]fleet.Digest{}
	for _, name := range slices.Sorted(maps.Keys(r.Shards)) {
		var m manifest
		if err := read(r.Shards[name], fetch, &m); err != nil {
			return nil, fmt.Errorf("read manifest %s: %w", name, err)
		}
		for tenant, b := range m.Tenants {
			if shard(tenant) != name {
				return nil, fleet.NewError(fleet.ErrCorrupt, "manifest", "tenant %s is listed in shard %s", tenant, name)
			}
			index[tenant] = b
		}
	}
	return index, nil
}

func read(d fleet.Digest, fetch Fetch, v any) error {
	b, err := Blob(d, fetch)
	if err != nil {
		return err
	}
	if len(b) > maxManifest {
		return fleet.NewError(fleet.ErrTooLarge, "manifest", "manifest of %d bytes; the limit is %d", len(b), maxManifest)
	}
	return fleet.DecodeStrict(b, v)
}

// Blob fetches d and verifies its bytes; a difference is ErrCorrupt.
func Blob(d fleet.Digest, fetch Fetch) ([]byte, error) {
	if err := d.Validate(); err != nil {
		return nil, err
	}
	b, err := fetch(d)
	if err != nil {
		return nil, err
	}
	if got := fleet.DigestOf(b); got != d {
		return nil, fleet.NewError(fleet.ErrCorrupt, "blob", "blob %s has the digest %s", d.Short(), got.Short())
	}
	return b, nil
}
