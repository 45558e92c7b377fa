package config

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/fleet/bundle"
	"github.com/edgefleet/edgefleet/fleet/head"
	"github.com/edgefleet/edgefleet/fleet/rules"
	"github.com/edgefleet/edgefleet/tls/sni"
)

// loadWidth is how many bundles are fetched and decoded at once.
const loadWidth = 8

// tree is the loaded content of one accepted head.
type tree struct {
	head    head.Head
	signed  fleet.SignedHead
	tenants map[fleet.TenantID]part
	// blobs are the digests of the whole tree: they are kept on disk.
	blobs map[fleet.Digest]bool
	// epochs are the group keys without which the tree does not load.
	epochs map[uint64]bool
	// partial says that tenants are missing: their bundles were damaged on disk.
	partial bool
}

// kept is what stays in memory of a tree that is only there to fall back to.
func (t *tree) kept() *tree {
	return &tree{head: t.head, signed: t.signed, blobs: t.blobs, epochs: t.epochs}
}

// part is one tenant's bundle, decoded and compiled; only the fields of its kind are set.
type part struct {
	digest     fleet.Digest
	hosts      []*Host
	rules      *rules.Set
	entries    []sni.Entry
	challenges []fleet.BundleChallenge
	// origins are the certificates for origins, by host.
	origins map[fleet.HostName]*OriginCerts
	// validations are made here, of challenges that are answered in a handshake.
	validations map[fleet.HostName]*tls.Certificate
	// epochs are the group keys that the bundle needed.
	epochs map[uint64]bool
}

// fetchError is a failure to get a blob, as opposed to a blob that is wrong: it is tried again and never reported as a refusal.
type fetchError struct{ err error }

func (e fetchError) Error() string { return "fetch: " + e.err.Error() }
func (e fetchError) Unwrap() error { return e.err }

// temporary reports whether the same head may load later without a change to it.
func temporary(err error) bool {
	_, missing := errors.AsType[missingKeyError](err)
	_, fetch := errors.AsType[fetchError](err)
	_, disk := errors.AsType[diskError](err)
	return missing || fetch && !disk && !errors.Is(err, fleet.ErrTooLarge)
}

// loader dry-loads trees: it builds everything that serving needs and changes nothing.
type loader struct {
	options Options
	keys    keyset
	// fetch returns a blob; what it returns is verified.
	fetch func(ctx context.Context, d fleet.Digest) ([]byte, error)
	// known are the parts of the tree that is served: a bundle that did not change is not decoded again.
	known map[fleet.TenantID]part
	// skip, if set, is told of a tenant whose bundle does not load, and the tree is loaded without that tenant.
	skip func(tenant fleet.TenantID, err error)
}

// load reads and checks the whole tree of h. One tenant's bad bundle fails it, unless it may be skipped.
func (l loader) load(ctx context.Context, s fleet.SignedHead, h head.Head) (*tree, error) {
	t := &tree{head: h, signed: s, tenants: map[fleet.TenantID]part{}}
	index, blobs, err := l.index(ctx, h.Root)
	if err != nil {
		return nil, err
	}
	t.blobs = blobs
	var mu sync.Mutex
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(loadWidth)
	for _, tenant := range slices.Sorted(maps.Keys(index)) {
		d := index[tenant]
		if p, ok := l.known[tenant]; ok && p.digest == d {
			mu.Lock()
			t.tenants[tenant] = p
			mu.Unlock()
			continue
		}
		group.Go(func() error {
			p, err := l.part(ctx, h.Kind, tenant, d)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil:
				t.tenants[tenant] = p
			case l.skip != nil:
				t.partial = true
				l.skip(tenant, err)
			default:
				return fmt.Errorf("tenant %s: %w", tenant, err)
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	t.epochs = map[uint64]bool{}
	for _, p := range t.tenants {
		maps.Copy(t.epochs, p.epochs)
	}
	return t, t.check()
}

// index reads the root and manifests, and returns with them the digests of the whole tree.
func (l loader) index(ctx context.Context, root fleet.Digest) (map[fleet.TenantID]fleet.Digest, map[fleet.Digest]bool, error) {
	blobs := map[fleet.Digest]bool{}
	index, err := bundle.Index(root, func(d fleet.Digest) ([]byte, error) {
		blobs[d] = true
		return l.blob(ctx, d)
	})
	if err != nil {
		return nil, nil, err
	}
	for _, d := range index {
		blobs[d] = true
	}
	return index, blobs, nil
}

// blob fetches and verifies; whatever goes wrong on the way is a fetchError.
func (l loader) blob(ctx context.Context, d fleet.Digest) ([]byte, error) {
	if err := d.Validate(); err != nil {
		return nil, err
	}
	b, err := bundle.Blob(d, func(d fleet.Digest) ([]byte, error) { return l.fetch(ctx, d) })
	if err != nil {
		return nil, fetchError{err}
	}
	if len(b) > fleet.MaxBundleBytes {
		return nil, fleet.NewError(fleet.ErrTooLarge, "bundle", "a bundle of %d bytes; the limit is %d", len(b), fleet.MaxBundleBytes)
	}
	return b, nil
}

// part fetches and decodes one tenant's bundle. A panic while doing so is that bundle's fault and refuses it.
func (l loader) part(ctx context.Context, kind fleet.HeadKind, tenant fleet.TenantID, d fleet.Digest) (p part, err error) {
	b, err := l.blob(ctx, d)
	if err != nil {
		return part{}, err
	}
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%w: loading the bundle panicked: %v", fleet.ErrInvalid, r)
		}
	}()
	switch kind {
	case fleet.HeadConfig:
		p, err = decodeConfig(tenant, b, l.options)
	case fleet.HeadRuleset:
		p, err = decodeRuleset(tenant, b)
	case fleet.HeadCerts:
		p, err = decodeCerts(tenant, b, l.options.Group, l.keys)
	}
	p.digest = d
	return p, err
}

// check holds what must be true between tenants: a host name belongs to one of them.
func (t *tree) check() error {
	owner := map[fleet.HostName]fleet.TenantID{}
	for _, tenant := range sortedKeys(t.tenants) {
		for name := range t.tenants[tenant].names() {
			if other, taken := owner[name]; taken && other != tenant {
				return fleet.NewError(fleet.ErrConflict, "host", "host %s is in the bundles of two tenants, %s and %s", name, other, tenant)
			}
			owner[name] = tenant
		}
	}
	return nil
}

// names are the hosts that p is about; one may come more than once.
func (p part) names() iter.Seq[fleet.HostName] {
	return func(yield func(fleet.HostName) bool) {
		for _, h := range p.hosts {
			if !yield(h.Name) {
				return
			}
		}
		for _, e := range p.entries {
			if !yield(e.Name) {
				return
			}
		}
		for _, c := range p.challenges {
			if !yield(c.Host) {
				return
			}
		}
		for host := range p.origins {
			if !yield(host) {
				return
			}
		}
	}
}

func sortedKeys[K cmp.Ordered, V any](m map[K]V) []K { return slices.Sorted(maps.Keys(m)) }
