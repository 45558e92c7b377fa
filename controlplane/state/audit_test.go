package state_test

import (
	"math"
	"slices"
	"testing"

	"github.com/edgefleet/edgefleet/fleet"
)

func TestATenantsAuditEntriesAreFoundByAnIndexBothWays(t *testing.T) {
	v := full(t).Read()
	seqs := func(es []fleet.AuditEntry, n int) []uint64 {
		var out []uint64
		for _, e := range es[:min(n, len(es))] {
			out = append(out, e.Seq)
		}
		return out
	}
	for _, tc := range []struct {
		tenant fleet.TenantID
		from   uint64
		on     []uint64
		back   []uint64
	}{
		{"acme", 1, []uint64{1, 3, 5}, []uint64{1}},
		{"acme", 400, []uint64{401, 403, 405}, []uint64{399, 397, 395}},
		{"acme", 401, []uint64{401, 403, 405}, []uint64{401, 399, 397}},
		{"beta", 699, []uint64{700}, []uint64{698, 696, 694}},
		{"beta", math.MaxUint64, nil, []uint64{700, 698, 696}},
		{"", 699, []uint64{699, 700}, []uint64{699, 698, 697}},
		{"ac", 1, nil, nil},
		{"zeta", math.MaxUint64, nil, nil},
	} {
		if got := seqs(slices.Collect(v.AuditFrom(tc.tenant, tc.from)), 3); !slices.Equal(got, tc.on) {
			t.Errorf("%q from %d: %v, want %v", tc.tenant, tc.from, got, tc.on)
		}
		if got := seqs(slices.Collect(v.AuditBack(tc.tenant, tc.from)), 3); !slices.Equal(got, tc.back) {
			t.Errorf("%q back from %d: %v, want %v", tc.tenant, tc.from, got, tc.back)
		}
	}
}

func TestSegmentsAreFoundByTheEntriesTheyHold(t *testing.T) {
	s := full(t)
	v := s.Read()
	for seq, want := range map[uint64]uint64{0: 0, 1: 1, 300: 1, 301: 301, 600: 301, math.MaxUint64: 301} {
		if got, ok := v.AuditSegmentAt(seq); got.From != want || ok != (want > 0) {
			t.Errorf("entry %d is in the segment from %d, want %d", seq, got.From, want)
		}
	}
	if got := slices.Collect(v.AuditSegments(450)); len(got) != 1 || got[0].From != 301 {
		t.Errorf("%+v", got)
	}
	if v.AuditSealed() != 600 || v.AuditFirst() != 1 {
		t.Error(v.AuditSealed(), v.AuditFirst())
	}
	tx := s.Write()
	tx.DeleteAudit(1, 300)
	tx.DeleteAuditCheckpoints(650)
	tx.Commit()
	v = s.Read()
	if v.AuditFirst() != 301 || v.AuditHead().Seq != 700 || len(v.AuditCheckpoints()) != 0 || len(slices.Collect(v.AuditFrom("acme", 1))) != 200 {
		t.Error(v.AuditFirst(), v.AuditHead(), v.AuditCheckpoints())
	}
	if _, ok := v.AuditEntry(300); ok {
		t.Error("the entry is still there")
	}
}
