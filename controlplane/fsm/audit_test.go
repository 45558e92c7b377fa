package fsm_test

import (
	"crypto/ed25519"
	"slices"
	"testing"
	"time"

	"github.com/edgefleet/edgefleet/controlplane/command"
	"github.com/edgefleet/edgefleet/controlplane/state"
	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/fleet/audit"
)

func auditKey() ed25519.PrivateKey { return ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize)) }

func signAudit(b []byte) ([]byte, error) { return ed25519.Sign(auditKey(), b), nil }

// segment seals the next n entries of w.
func segment(t testing.TB, w *world, n int) fleet.AuditSegment {
	t.Helper()
	v := w.state.Read()
	entries := v.AuditAfter("", v.AuditSealed(), n)
	s, _, err := audit.Seal("c1", entries)
	if err != nil {
		t.Fatal(err)
	}
	s.Checkpoint.Time = noon
	if s.Checkpoint, err = s.Checkpoint.Sign(signAudit); err != nil {
		t.Fatal(err)
	}
	return s
}

// checkpoint signs the entries since the last segment, but for the last n.
func checkpoint(t testing.TB, w *world, n int) fleet.AuditCheckpoint {
	t.Helper()
	v := w.state.Read()
	entries := v.AuditAfter("", v.AuditSealed(), 1<<20)
	s, _, err := audit.Seal("c1", entries[:len(entries)-n])
	if err != nil {
		t.Fatal(err)
	}
	s.Checkpoint.Time = noon
	c, err := s.Checkpoint.Sign(signAudit)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// housekeeping is what the leader would propose in w, as a log entry.
func housekeeping(t *testing.T, w *world, turn int) ([]byte, command.Body) {
	t.Helper()
	v := w.state.Read()
	var b command.Body
	if v.AuditHead().Seq == v.AuditSealed() {
		turn = 3 // there is nothing to sign or to seal
	}
	switch turn % 4 {
	case 0:
		b = command.AuditCheckpoint{Checkpoint: checkpoint(t, w, 0)}
	case 1:
		b = command.AuditSeal{Segment: segment(t, w, 5)}
	case 2:
		b = command.AuditDrop{From: v.AuditFirst()}
	default:
		var reap command.JoinTokensReap
		for _, j := range v.JoinTokens() {
			if j.UsedBy != "" {
				reap.IDs = append(reap.IDs, j.ID)
			}
		}
		b = reap
	}
	h := header(noon.Add(time.Hour))
	e, err := command.Encode(h, b)
	if err != nil {
		t.Fatal(err)
	}
	return e, b
}

func TestSegments(t *testing.T) {
	w := city(t)
	sealed := segment(t, w, 7)
	change := func(f func(*fleet.AuditSegment)) command.AuditSeal {
		s := sealed
		f(&s)
		return command.AuditSeal{Segment: s}
	}
	resigned := func(f func(*fleet.AuditSegment)) command.AuditSeal {
		b := change(f)
		c, err := b.Segment.Checkpoint.Sign(signAudit)
		if err != nil {
			t.Fatal(err)
		}
		b.Segment.Checkpoint = c
		return b
	}
	v := w.state.Read()
	at := func(seq uint64) fleet.AuditEntry {
		e, ok := v.AuditEntry(seq)
		if !ok {
			t.Fatal(seq)
		}
		return e
	}
	seal := command.AuditSeal{Segment: sealed}
	whole := command.AuditSeal{Segment: segment(t, w, 1000)}
	half := command.AuditCheckpoint{Checkpoint: checkpoint(t, w, 5)}
	run(t, []testCase{
		{name: "entries are sealed, and stay until the drop", when: seal, entries: -1, then: func(t *testing.T, v *state.View) {
			if v.AuditFirst() != 1 || v.AuditSealed() != 7 {
				t.Error(v.AuditFirst(), v.AuditSealed())
			}
		}},
		{name: "the drop leaves the rest and the row", given: []command.Body{seal}, when: command.AuditDrop{From: 1}, entries: -1, then: func(t *testing.T, v *state.View) {
			s, _ := v.AuditSegmentAt(3)
			if v.AuditFirst() != 8 || !s.Dropped || s.Digest != sealed.Digest || v.AuditHead().Hash != w.state.Read().AuditHead().Hash {
				t.Errorf("%d %+v", v.AuditFirst(), s)
			}
		}},
		{name: "a sealed segment that says it is dropped is not", when: change(func(s *fleet.AuditSegment) { s.Dropped = true }), entries: -1, then: func(t *testing.T, v *state.View) {
			if s, _ := v.AuditSegmentAt(1); s.Dropped {
				t.Error("dropped")
			}
		}},
		{name: "no segment twice", given: []command.Body{seal}, when: seal, refused: fleet.ErrStale, says: "begins with entry 8"},
		{name: "no drop twice", given: []command.Body{seal, command.AuditDrop{From: 1}}, when: command.AuditDrop{From: 1}, refused: fleet.ErrStale},
		{name: "no drop of what is not sealed", when: command.AuditDrop{From: 1}, refused: fleet.ErrStale},
		{name: "no drop from within a segment", given: []command.Body{seal}, when: command.AuditDrop{From: 2}, refused: fleet.ErrStale},
		{name: "the head never leaves the state", given: []command.Body{whole}, when: command.AuditDrop{From: 1}, refused: fleet.ErrInvalid, says: "stays in the state"},
		{name: "a gap", when: resigned(func(s *fleet.AuditSegment) { s.From++; s.Checkpoint.From++; s.Prev = at(1).Hash }), refused: fleet.ErrStale, says: "begins with entry 1"},
		{name: "another beginning", when: change(func(s *fleet.AuditSegment) { s.Prev = s.Hash }), refused: fleet.ErrStale},
		{name: "another hash", when: resigned(func(s *fleet.AuditSegment) { s.Hash = at(6).Hash; s.Checkpoint.Hash = s.Hash }), refused: fleet.ErrStale},
		{name: "beyond the head", when: resigned(func(s *fleet.AuditSegment) { s.To, s.Checkpoint.Seq = 900, 900 }), refused: fleet.ErrStale},
		{name: "too many", when: resigned(func(s *fleet.AuditSegment) { s.To, s.Checkpoint.Seq = 1001, 1001 }), refused: fleet.ErrInvalid, says: "1 to 1000 entries"},
		{name: "a checkpoint of other entries", when: change(func(s *fleet.AuditSegment) { s.Checkpoint.From = 2 }), refused: fleet.ErrInvalid},
		{name: "a forged checkpoint", when: change(func(s *fleet.AuditSegment) { s.Checkpoint.Signature = slices.Repeat([]byte{7}, 64) }), refused: fleet.ErrCorrupt, says: "not signed"},
		{name: "another cluster's", when: resigned(func(s *fleet.AuditSegment) { s.Checkpoint.Cluster = "c2" }), refused: fleet.ErrStale},
		{name: "no digest", when: change(func(s *fleet.AuditSegment) { s.Digest = "x" }), refused: fleet.ErrInvalid},
		{name: "a checkpoint", when: command.AuditCheckpoint{Checkpoint: checkpoint(t, w, 0)}, entries: -1, then: func(t *testing.T, v *state.View) {
			if len(v.AuditCheckpoints()) != 1 {
				t.Error(v.AuditCheckpoints())
			}
		}},
		{name: "a segment covers the checkpoints within it", given: []command.Body{half, command.AuditCheckpoint{Checkpoint: checkpoint(t, w, 0)}, whole}, when: command.TokenDelete{ID: "ta"}, of: "acme", then: func(t *testing.T, v *state.View) {
			if len(v.AuditCheckpoints()) != 0 {
				t.Error(v.AuditCheckpoints())
			}
		}},
		{name: "a checkpoint of sealed entries", given: []command.Body{seal}, when: command.AuditCheckpoint{Checkpoint: checkpoint(t, w, 0)}, refused: fleet.ErrStale, says: "begin with 8"},
	})
}

func TestSpentJoinTokensAreReaped(t *testing.T) {
	w := city(t)
	w.now = noon.Add(20 * time.Minute)
	before := len(w.audit(t))
	if r := w.apply(t, command.JoinTokensReap{IDs: []fleet.TokenID{"j1", "jm"}}); r.Err != nil {
		t.Fatal(r.Err)
	}
	left := w.audit(t)[before:]
	if len(left) != 2 || left[0].Object != "join_token/j1" || left[0].After != nil || holdsSecret(t, left[0]) {
		t.Errorf("%+v", left)
	}
	// Replayed, it is refused as one that never was.
	for _, b := range []command.Body{enrol("j1", "n9", "198.51.100.9"), command.MemberJoin{Token: "jm", Member: fleet.Member{ID: "m9"}}, command.JoinTokensReap{IDs: []fleet.TokenID{"j1"}}} {
		if r := w.apply(t, b); r.Err == nil {
			t.Errorf("%s with a reaped token is allowed", b.Type())
		}
	}
	w.now = noon
	if r := w.apply(t, command.JoinTokensReap{IDs: []fleet.TokenID{"j2"}}); r.Err == nil {
		t.Error("a token that is still good was reaped")
	}
	if r := w.apply(t, command.JoinTokensReap{IDs: make([]fleet.TokenID, 257)}); r.Err == nil {
		t.Error("no bound")
	}
}
