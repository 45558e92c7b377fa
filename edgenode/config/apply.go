package config

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"unicode"

	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/fleet/head"
)

// maxHeads bounds the heads of one set: one for the node and one for the group of each kind, and room for more kinds.
const maxHeads = 16

// maxReason bounds the reason of a NACK, in bytes.
const maxReason = 512

// Fetch returns the blob with digest d from the control plane. What it returns is verified; any error is taken as
// temporary, except one that wraps fleet.ErrTooLarge.
type Fetch func(ctx context.Context, d fleet.Digest) ([]byte, error)

// Apply moves to the heads of set, in the order of fleet.HeadKinds, and returns an ACK or NACK for each. A head whose
// blobs or group key cannot be had now is left out of the result: it is tried again when it is offered again. A head that
// is refused disturbs nothing of what is served. Applying the same set twice changes nothing.
func (s *Store) Apply(ctx context.Context, set fleet.HeadSet, fetch Fetch) []fleet.HeadReport {
	s.mu.Lock()
	defer s.mu.Unlock()
	log := s.options.Telemetry.Logger
	if len(set.Heads) > maxHeads {
		log.WarnContext(ctx, "head set has too many heads", "heads", len(set.Heads))
		return nil
	}
	s.follow(ctx, set.Incarnation)
	keys, err := s.keys.with(set.Envelope, s.options)
	if err != nil {
		log.WarnContext(ctx, "key envelope refused", "err", err)
	}
	heads, reports := s.verify(ctx, set.Heads)
	for _, v := range heads {
		err := s.accept(v.head)
		switch {
		case s.serves(v.head):
			reports = append(reports, s.report(v.head, ""))
			continue
		case errors.Is(err, fleet.ErrStale):
			// An old message that was overtaken by a newer one is usual: it is answered, and the report stays.
			reports = append(reports, fleet.HeadReport{Kind: v.head.Kind, Version: v.head.Version, Root: v.head.Root, Reason: reasonOf(err)})
			continue
		case err == nil:
			err = s.adopt(ctx, v, keys, fetch)
		}
		if err != nil && temporary(err) {
			log.WarnContext(ctx, "head not loaded yet", "kind", string(v.head.Kind), "generation", v.head.Version.Generation, "err", err)
			continue
		}
		reports = append(reports, s.conclude(ctx, v.head, err))
	}
	s.keepNewKey(ctx, keys)
	return reports
}

type verified struct {
	head   head.Head
	signed fleet.SignedHead
}

// verify returns the heads that are signed and meant for this node in the order of application, and NACKs for the others.
func (s *Store) verify(ctx context.Context, signed []fleet.SignedHead) (heads []verified, refused []fleet.HeadReport) {
	for _, sh := range signed {
		h, err := s.ofThisIncarnation(sh)
		if err == nil {
			err = s.forUs(h)
		}
		if err == nil {
			heads = append(heads, verified{h, sh})
			continue
		}
		// What an unsigned head claims is used to answer it and for nothing else.
		claim := h
		if claim.Kind == "" && len(sh.Head) <= maxReason && json.Unmarshal(sh.Head, &claim) != nil {
			claim = head.Head{}
		}
		if claim.Kind.Validate() != nil {
			s.options.Telemetry.Logger.WarnContext(ctx, "head refused", "err", err)
			continue
		}
		if t := s.current[claim.Kind]; t != nil && claim.Version.Compare(t.head.Version) <= 0 {
			refused = append(refused, fleet.HeadReport{Kind: claim.Kind, Version: claim.Version, Root: claim.Root, Reason: reasonOf(err)})
			continue
		}
		refused = append(refused, s.conclude(ctx, claim, err))
	}
	slices.SortStableFunc(heads, func(a, b verified) int {
		if a.head.Kind != b.head.Kind {
			return slices.Index(fleet.HeadKinds, a.head.Kind) - slices.Index(fleet.HeadKinds, b.head.Kind)
		}
		return a.head.Version.Compare(b.head.Version)
	})
	return heads, refused
}

// conclude logs, counts and reports the outcome of a head: applied when err is nil.
func (s *Store) conclude(ctx context.Context, h head.Head, err error) fleet.HeadReport {
	log := s.options.Telemetry.Logger.With("kind", string(h.Kind), "incarnation", h.Version.Incarnation, "generation", h.Version.Generation)
	s.metrics.applied(ctx, h.Kind, err)
	if err != nil {
		log.WarnContext(ctx, "head refused", "err", err)
		return s.report(h, reasonOf(err))
	}
	log.InfoContext(ctx, "head applied", "root", h.Root.Short())
	return s.report(h, "")
}

func (s *Store) serves(h head.Head) bool {
	t := s.current[h.Kind]
	return t != nil && !t.partial && t.head.Version == h.Version && t.head.Root == h.Root
}

// accept holds the order of heads: newer than what is served, and not older than what was served before the disk was damaged.
// A head that is served in part may come again.
func (s *Store) accept(h head.Head) error {
	if t := s.current[h.Kind]; t != nil && (!t.partial || t.head != h) {
		if err := head.Accept(t.head.Version, t.head.Root, h); err != nil {
			return err
		}
	}
	if f, ok := s.floor[h.Kind]; ok && (f.Version != h.Version || f.Root != h.Root) {
		return head.Accept(f.Version, f.Root, h)
	}
	return nil
}

// adopt loads, persists and publishes one head. When it fails nothing has changed.
func (s *Store) adopt(ctx context.Context, v verified, keys keyset, fetch Fetch) error {
	kind := v.head.Kind
	l := loader{options: s.options, keys: keys, fetch: s.source(fetch)}
	if t := s.current[kind]; t != nil {
		l.known = t.tenants
	}
	t, err := l.load(ctx, v.signed, v.head)
	if err != nil {
		return err
	}
	if err := t.older(s.current[kind]); err != nil {
		return err
	}
	before, beforePrevious, beforeKeys := s.current[kind], s.previous[kind], s.keys
	if before != nil && before.head != t.head {
		s.previous[kind] = before.kept()
	}
	s.current[kind] = t
	if kind == fleet.HeadCerts {
		s.keys = keys.only(s.neededEpochs())
	}
	if err := s.persist(); err != nil {
		s.keys = beforeKeys
		set(s.current, kind, before)
		set(s.previous, kind, beforePrevious)
		return err
	}
	s.floor[kind] = v.head
	s.publish()
	if err := s.disk.sweep(s.neededBlobs()); err != nil {
		s.options.Telemetry.Logger.WarnContext(ctx, "unused blobs not removed", "err", err)
	}
	return nil
}

func set(m map[fleet.HeadKind]*tree, kind fleet.HeadKind, t *tree) {
	if t == nil {
		delete(m, kind)
		return
	}
	m[kind] = t
}

func (s *Store) persist() error {
	if err := s.disk.syncBlobs(); err != nil {
		return err
	}
	return s.disk.write(s.record())
}

// keepNewKey stores the key of an epoch that no certificate needs yet, so that the next certificates open after a restart
// without the control plane. A key of a known epoch is replaced only by certificates that prove it: see adopt.
func (s *Store) keepNewKey(ctx context.Context, keys keyset) {
	top := keys.newest()
	if _, known := s.keys[top]; known || len(keys) == 0 {
		return
	}
	before := s.keys
	epochs := s.neededEpochs()
	epochs[top] = true
	next := s.keys.only(epochs)
	next[top] = keys[top]
	s.keys = next
	if err := s.persist(); err != nil {
		s.keys = before
		s.options.Telemetry.Logger.WarnContext(ctx, "group key not stored", "epoch", top, "err", err)
		return
	}
	s.publish() // session tickets are sealed with it from now on
}

// source reads a blob from disk, else fetches, verifies and stores it.
func (s *Store) source(fetch Fetch) Fetch {
	return func(ctx context.Context, d fleet.Digest) ([]byte, error) {
		if b, err := s.disk.blob(d); err == nil {
			return b, nil
		}
		b, err := fetch(ctx, d)
		if err != nil {
			return nil, err
		}
		if len(b) > fleet.MaxBundleBytes {
			return nil, fleet.NewError(fleet.ErrTooLarge, "blob", "blob %s has %d bytes; the limit is %d", d.Short(), len(b), fleet.MaxBundleBytes)
		}
		if got := fleet.DigestOf(b); got != d {
			return nil, fleet.NewError(fleet.ErrCorrupt, "blob", "what was sent for blob %s has the digest %s", d.Short(), got.Short())
		}
		if err := s.disk.putBlob(d, b); err != nil {
			return nil, diskError{err}
		}
		return b, nil
	}
}

// diskError: the node's own disk is at fault. The head is refused, because somebody must free space, and tried again at the next poll.
type diskError struct{ err error }

func (e diskError) Error() string { return e.err.Error() }
func (e diskError) Unwrap() error { return e.err }

// reasonOf is err as the reason of a NACK: one line of limited length.
func reasonOf(err error) string {
	line := strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, err.Error())
	return strings.ToValidUTF8(line[:min(len(line), maxReason)], "")
}
