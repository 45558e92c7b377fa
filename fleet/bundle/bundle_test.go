package bundle_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/fleet/bundle"
)

func tenants(n int) map[fleet.TenantID][]byte {
	m := map[fleet.TenantID][]byte{}
	for i := range n {
		m[fleet.TenantID(fmt.Sprintf("t%d", i))] = fmt.Appendf(nil, "bundle %d", i)
	}
	return m
}

func fetch(t bundle.Tree) bundle.Fetch {
	return func(d fleet.Digest) ([]byte, error) {
		b, ok := t.Blobs[d]
		if !ok {
			return nil, fleet.ErrNotFound
		}
		return b, nil
	}
}

func TestTreeRoundTrip(t *testing.T) {
	for _, n := range []int{0, 1, 1000} {
		in := tenants(n)
		tree, err := bundle.Build(in)
		if err != nil {
			t.Fatal(err)
		}
		index, err := bundle.Index(tree.Root, fetch(tree))
		if err != nil {
			t.Fatal(err)
		}
		got := map[fleet.TenantID][]byte{}
		for id, d := range index {
			if got[id], err = bundle.Blob(d, fetch(tree)); err != nil {
				t.Fatal(err)
			}
		}
		if diff := cmp.Diff(in, got); diff != "" {
			t.Error(diff)
		}
	}
}

func TestOneTenantsChangeMovesThreeBlobs(t *testing.T) {
	in := tenants(1000)
	before, err := bundle.Build(in)
	if err != nil {
		t.Fatal(err)
	}
	in["t7"] = []byte("changed")
	after, err := bundle.Build(in)
	if err != nil {
		t.Fatal(err)
	}
	moved := 0
	for d := range after.Blobs {
		if _, ok := before.Blobs[d]; !ok {
			moved++
		}
	}
	if moved != 3 {
		t.Errorf("%d blobs moved, want bundle, manifest and root", moved)
	}
}

func TestReadRefuses(t *testing.T) {
	tree, err := bundle.Build(tenants(3))
	if err != nil {
		t.Fatal(err)
	}
	corrupt := func(d fleet.Digest) ([]byte, error) {
		b := append([]byte(nil), tree.Blobs[d]...)
		b[0] ^= 1
		return b, nil
	}
	if _, err := bundle.Index(tree.Root, corrupt); !errors.Is(err, fleet.ErrCorrupt) {
		t.Errorf("a changed blob: got %v", err)
	}
	if _, err := bundle.Index("sha256:../../etc/passwd", fetch(tree)); !errors.Is(err, fleet.ErrInvalid) {
		t.Errorf("a digest that is none: got %v", err)
	}
	if _, err := bundle.Build(map[fleet.TenantID][]byte{"t": make([]byte, fleet.MaxBundleBytes+1)}); !errors.Is(err, fleet.ErrTooLarge) {
		t.Errorf("an oversized bundle: got %v", err)
	}
}
