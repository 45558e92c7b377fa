package config

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/fleet/head"
)

// restore loads the newest state on disk that is whole, kind by kind.
func (s *Store) restore() {
	ctx := context.Background() // start-up reads the local disk only, and nothing can replace it
	log := s.options.Telemetry.Logger
	var records []record
	for _, name := range []string{headsFile, previousFile} {
		r, err := s.disk.read(name)
		switch {
		case err == nil:
			records = append(records, r)
		case !errors.Is(err, fs.ErrNotExist):
			s.metrics.corrupt(ctx)
			log.ErrorContext(ctx, "heads file is unusable", "file", name, "err", err)
		}
	}
	for _, r := range slices.Backward(records) {
		for _, e := range r.Envelopes {
			keys, err := s.keys.with(&e, s.options)
			if err != nil {
				log.ErrorContext(ctx, "stored key envelope does not open", "epoch", e.Epoch, "err", err)
			}
			s.keys = keys
		}
	}
	s.restoreAnchors(ctx, records)
	for _, kind := range fleet.HeadKinds {
		s.restoreKind(ctx, kind, candidates(records, kind))
	}
}

// candidates are the stored heads of a kind, the best first, each once.
func candidates(records []record, kind fleet.HeadKind) []fleet.SignedHead {
	var list []fleet.SignedHead
	seen := map[string]bool{}
	add := func(h *fleet.SignedHead) {
		if h != nil && len(h.Head) > 0 && !seen[string(h.Head)] {
			seen[string(h.Head)] = true
			list = append(list, *h)
		}
	}
	for _, r := range records {
		k := r.Kinds[kind]
		add(&k.Current)
		add(k.Previous)
	}
	return list
}

// restoreKind serves the first candidate that loads and keeps the next as the one to fall back to.
func (s *Store) restoreKind(ctx context.Context, kind fleet.HeadKind, list []fleet.SignedHead) {
	l := loader{options: s.options, keys: s.keys, fetch: func(_ context.Context, d fleet.Digest) ([]byte, error) { return s.disk.blob(d) }}
	var lost error
	for _, signed := range list {
		h, err := s.stored(signed, kind)
		if err == nil && h.Version.Compare(s.floor[kind].Version) > 0 {
			s.floor[kind] = h
		}
		if s.current[kind] != nil {
			if err == nil && s.keepPrevious(ctx, l, signed, h) {
				return
			}
			continue
		}
		var t *tree
		if err == nil {
			t, err = l.load(ctx, signed, h)
		}
		if err != nil {
			s.metrics.corrupt(ctx)
			s.options.Telemetry.Logger.ErrorContext(ctx, "last-known-good head does not load", "kind", string(kind), "generation", h.Version.Generation, "err", err)
			lost = errors.Join(lost, err)
			continue
		}
		s.current[kind] = t
		s.report(h, "")
	}
	if s.current[kind] == nil && lost != nil {
		s.restorePart(ctx, l, kind, list)
		s.report(s.lostHead(kind), reasonOf(fmt.Errorf("last-known-good state is damaged: %w", lost)))
	}
}

// restorePart serves the first candidate whose manifests are whole, without the tenants whose bundles are damaged: most
// bundles are the same in all candidates, and one tenant's must not take the others' hosts down. The head is taken again
// when it is offered.
func (s *Store) restorePart(ctx context.Context, l loader, kind fleet.HeadKind, list []fleet.SignedHead) {
	log := s.options.Telemetry.Logger
	l.skip = func(tenant fleet.TenantID, err error) {
		log.ErrorContext(ctx, "tenant is not served: its stored bundle does not load", "kind", string(kind), "tenant", tenant, "err", err)
	}
	for _, signed := range list {
		h, err := s.stored(signed, kind)
		if err != nil {
			continue
		}
		if t, err := l.load(ctx, signed, h); err == nil && len(t.tenants) > 0 {
			s.current[kind] = t
			return
		}
	}
}

// keepPrevious keeps the blobs of h, if its manifests are whole, without decoding its bundles. Every stored group key may
// be needed for them.
func (s *Store) keepPrevious(ctx context.Context, l loader, signed fleet.SignedHead, h head.Head) bool {
	_, blobs, err := l.index(ctx, h.Root)
	if err != nil {
		return false
	}
	t := &tree{head: h, signed: signed, blobs: blobs, epochs: map[uint64]bool{}}
	for epoch := range s.keys {
		t.epochs[epoch] = true
	}
	s.previous[h.Kind] = t
	return true
}

func (s *Store) lostHead(kind fleet.HeadKind) head.Head {
	h := s.floor[kind]
	h.Kind = kind
	return h
}

// stored verifies a head from disk as if it came from the network.
func (s *Store) stored(signed fleet.SignedHead, kind fleet.HeadKind) (head.Head, error) {
	h, err := s.ofAnyIncarnation(signed)
	if err != nil {
		return head.Head{}, err
	}
	if h.Kind != kind {
		return head.Head{}, fleet.NewError(fleet.ErrCorrupt, "kind", "a head of kind %s is stored as %s", h.Kind, kind)
	}
	return h, s.forUs(h)
}
