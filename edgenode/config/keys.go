package config

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/tls/keyring"
)

// groupKey is an opened group key and the envelope it came in, which is what goes to disk.
type groupKey struct {
	envelope fleet.KeyEnvelope
	key      keyring.GroupKey
}

// keyset holds the group keys that a node was given, by epoch. It is copied before it is changed.
type keyset map[uint64]groupKey

// with returns k and the key in e, which replaces one of the same epoch.
func (k keyset) with(e *fleet.KeyEnvelope, o Options) (keyset, error) {
	if e == nil {
		return k, nil
	}
	if e.Group != o.Group {
		return k, fleet.NewError(fleet.ErrDenied, "envelope", "the key envelope is for group %q, this node is in %q", e.Group, o.Group)
	}
	if _, held := k[e.Epoch]; !held && e.Epoch < k.newest() {
		return k, fleet.NewError(fleet.ErrStale, "envelope", "the key envelope is of epoch %d of group %s; this node has had that of epoch %d", e.Epoch, e.Group, k.newest())
	}
	key, err := keyring.OpenEnvelope(*e, o.Node, o.HPKEPrivate)
	if err != nil {
		return k, fmt.Errorf("open key envelope of epoch %d: %w", e.Epoch, err)
	}
	if old, ok := k[e.Epoch]; ok && old.key == key {
		return k, nil
	}
	next := maps.Clone(k)
	if next == nil {
		next = keyset{}
	}
	next[e.Epoch] = groupKey{envelope: *e, key: key}
	return next, nil
}

// newest is the highest epoch in k.
func (k keyset) newest() uint64 {
	var top uint64
	for epoch := range k {
		top = max(top, epoch)
	}
	return top
}

// only returns the keys of the given epochs and the newest one.
func (k keyset) only(epochs map[uint64]bool) keyset {
	top := k.newest()
	next := keyset{}
	for epoch, key := range k {
		if epochs[epoch] || epoch == top {
			next[epoch] = key
		}
	}
	return next
}

// envelopes lists the envelopes in the order of epochs, for the disk.
func (k keyset) envelopes() []fleet.KeyEnvelope {
	list := make([]fleet.KeyEnvelope, 0, len(k))
	for _, epoch := range sortedKeys(k) {
		list = append(list, k[epoch].envelope)
	}
	return list
}

// older refuses keys of an epoch before those that are served, whoever signed their head: a node that was evicted has them.
func (t *tree) older(than *tree) error {
	if than == nil || len(t.epochs) == 0 || len(than.epochs) == 0 {
		return nil
	}
	next, now := slices.Max(slices.Collect(maps.Keys(t.epochs))), slices.Max(slices.Collect(maps.Keys(than.epochs)))
	if next < now {
		return fleet.NewError(fleet.ErrStale, "epoch", "the certificates are sealed by the group key of epoch %d; those that are served are of epoch %d", next, now)
	}
	return nil
}

// missingKeyError: the group key of an epoch has not arrived. It comes with the next poll, so it is no reason to refuse a head.
type missingKeyError struct{ epoch uint64 }

func (e missingKeyError) Error() string {
	return fmt.Sprintf("the group key of epoch %d has not arrived yet", e.epoch)
}

// open returns the private key (PKCS #8) sealed in s, and the epoch of the group key that sealed it.
func (k keyset) open(group fleet.GroupName, s fleet.Sealed, aad []byte) ([]byte, uint64, error) {
	number, ok := strings.CutPrefix(s.Key, "group/"+string(group)+"/")
	epoch, err := strconv.ParseUint(number, 10, 64)
	if !ok || err != nil {
		return nil, 0, fleet.Invalid("key", "the private key is sealed by %q, not by a key of group %q", s.Key, group)
	}
	g, ok := k[epoch]
	if !ok {
		return nil, 0, missingKeyError{epoch}
	}
	der, err := g.key.Open(s, aad)
	return der, epoch, err
}
