package config

import (
	"cmp"
	"context"
	"crypto/ed25519"
	"slices"

	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/fleet/head"
)

// anchor is one incarnation of the cluster: whose heads are the cluster's in it. The first is known from enrolment, each
// later one by a statement that the recovery key signed.
type anchor struct {
	number uint64
	keys   []ed25519.PublicKey
	// signed is the statement; nil for the incarnation of the enrolment.
	signed *fleet.SignedIncarnation
}

// incarnation is the one whose heads are followed.
func (s *Store) incarnation() anchor { return s.anchors[len(s.anchors)-1] }

// follow moves to a later incarnation, if the statement says so. Nothing that is served changes: the heads of the new
// incarnation do that. From here on heads of earlier ones are refused, also after a restart.
func (s *Store) follow(ctx context.Context, signed *fleet.SignedIncarnation) {
	if signed == nil {
		return
	}
	log := s.options.Telemetry.Logger
	a, err := s.verifyAnchor(*signed)
	if err != nil {
		log.WarnContext(ctx, "statement of an incarnation refused", "err", err)
		return
	}
	if a.number <= s.incarnation().number {
		return
	}
	before := s.anchors
	s.anchors = append(slices.Clone(before), a)
	if err := s.persist(); err != nil {
		s.anchors = before
		log.WarnContext(ctx, "incarnation not stored, it is tried again", "incarnation", a.number, "err", err)
		return
	}
	log.InfoContext(ctx, "new incarnation of the control plane", "incarnation", a.number, "before", before[len(before)-1].number)
}

func (s *Store) verifyAnchor(signed fleet.SignedIncarnation) (anchor, error) {
	i, err := head.VerifyIncarnation(signed, s.options.RecoveryKey, s.options.Cluster)
	if err != nil {
		return anchor{}, err
	}
	a := anchor{number: i.Number, signed: &signed}
	for _, k := range i.HeadKeys {
		a.keys = append(a.keys, ed25519.PublicKey(k))
	}
	return a, nil
}

// ofThisIncarnation verifies a head that was offered: only the current incarnation's keys sign, and only for it. A key
// that was stolen signs neither for an earlier incarnation nor for one that the recovery key did not begin.
func (s *Store) ofThisIncarnation(signed fleet.SignedHead) (head.Head, error) {
	a := s.incarnation()
	h, err := head.Verify(signed, a.keys)
	switch {
	case err != nil:
		return head.Head{}, err
	case h.Version.Incarnation > a.number:
		return h, fleet.NewError(fleet.ErrDenied, "incarnation", "the head is of incarnation %d, this node follows %d: a later one begins with a statement of the recovery key", h.Version.Incarnation, a.number)
	case h.Version.Incarnation < a.number:
		return h, fleet.NewError(fleet.ErrStale, "incarnation", "the head is of incarnation %d, which ended: this node follows %d", h.Version.Incarnation, a.number)
	}
	return h, nil
}

// ofAnyIncarnation verifies a head from disk: what was served when its incarnation was the current one is still good.
func (s *Store) ofAnyIncarnation(signed fleet.SignedHead) (head.Head, error) {
	var failed error
	for _, a := range slices.Backward(s.anchors) {
		h, err := head.Verify(signed, a.keys)
		if err == nil && h.Version.Incarnation == a.number {
			return h, nil
		}
		if failed == nil {
			failed = err
		}
	}
	if failed == nil {
		failed = fleet.NewError(fleet.ErrDenied, "incarnation", "the stored head is of an incarnation that this node has no statement of")
	}
	return head.Head{}, failed
}

// restoreAnchors takes the statements from disk.
func (s *Store) restoreAnchors(ctx context.Context, records []record) {
	for _, r := range records {
		for _, signed := range r.Incarnations {
			a, err := s.verifyAnchor(signed)
			if err != nil {
				s.options.Telemetry.Logger.ErrorContext(ctx, "stored statement of an incarnation does not verify", "err", err)
				continue
			}
			if !slices.ContainsFunc(s.anchors, func(known anchor) bool { return known.number == a.number }) {
				s.anchors = append(s.anchors, a)
			}
		}
	}
	slices.SortFunc(s.anchors, func(a, b anchor) int { return cmp.Compare(a.number, b.number) })
}

// statements are what goes to disk: the current one, and those of the heads that are kept.
func (s *Store) statements() []fleet.SignedIncarnation {
	needed := map[uint64]bool{s.incarnation().number: true}
	for _, trees := range []map[fleet.HeadKind]*tree{s.current, s.previous} {
		for _, t := range trees {
			needed[t.head.Version.Incarnation] = true
		}
	}
	var out []fleet.SignedIncarnation
	for _, a := range s.anchors {
		if a.signed != nil && needed[a.number] {
			out = append(out, *a.signed)
		}
	}
	return out
}
