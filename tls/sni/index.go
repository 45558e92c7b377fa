package sni

import (
	"crypto/tls"
	"hash/maphash"
	"math/bits"
	"strings"
)

// What a lookup costs is the memory that it has to wait for: none of a large table is in the processor's caches. So the
// index is one array of slots, two in each cache line, with all that decides in the slot: a lookup waits for the slot, and
// then for the bytes of the one name whose whole hash is equal. That a name is absent is seen without reading any name.
//
// The slots are in the order of their hashes, each at its hash's place or behind those before it (linear probing, in
// order): a search ends at the first greater hash.

const (
	// Of each three places, names take two.
	placesEach, placesTaken = 3, 2
	// exactName marks the hashes of exact names; those of wildcards do not have it.
	exactName = 1
)

// slot has 32 bytes. One without a certificate is empty.
type slot struct {
	hash        uint64
	name        string
	certificate *tls.Certificate
}

// index is never changed once it is published.
type index struct {
	seed maphash.Seed
	// homes is how many places hashes are spread over. There are more slots, for what is behind the last place; the last
	// slot is always empty.
	homes uint64
	slots []slot
	names int
}

// newIndex makes an index of entries; the last one of a name counts.
func newIndex(entries []Entry) *index {
	homes := max(1, len(entries)*placesEach/placesTaken)
	x := &index{seed: maphash.MakeSeed(), homes: uint64(homes), slots: make([]slot, homes+1, homes+64)}
	inLargePages(x.slots)
	for _, e := range entries {
		if e.Certificate == nil {
			continue
		}
		if parent, ok := strings.CutPrefix(string(e.Name), "*."); ok {
			x.put(slot{x.wildHash(parent), parent, e.Certificate})
			continue
		}
		x.put(slot{x.exactHash(string(e.Name)), string(e.Name), e.Certificate})
	}
	return x
}

func (x *index) exactHash(name string) uint64 { return maphash.String(x.seed, name) | exactName }

// wildHash is the hash of a wildcard by what is behind its "*.".
func (x *index) wildHash(parent string) uint64 { return maphash.String(x.seed, parent) &^ exactName }

// home is the first slot that may have a hash; greater hashes have no lesser home.
func (x *index) home(hash uint64) int {
	high, _ := bits.Mul64(hash, x.homes)
	return int(high)
}

// put inserts a slot, and moves those behind it by one up to the next empty one.
func (x *index) put(s slot) {
	for i := x.home(s.hash); ; i++ {
		if i == len(x.slots)-1 {
			x.slots = append(x.slots, slot{})
		}
		at := &x.slots[i]
		switch {
		case at.certificate == nil:
			*at = s
			x.names++
			return
		case at.hash == s.hash && at.name == s.name:
			at.certificate = s.certificate
			return
		case at.hash > s.hash:
			*at, s = s, *at
		}
	}
}

// find is the certificate of a name with that hash, nil if there is none.
func (x *index) find(hash uint64, name string) *tls.Certificate {
	for i := x.home(hash); ; i++ {
		at := &x.slots[i]
		switch {
		case at.certificate == nil || at.hash > hash:
			return nil
		case at.hash == hash && at.name == name:
			return at.certificate
		}
	}
}
