package fleet_test

import (
	"testing"
	"time"

	"github.com/edgefleet/edgefleet/fleet"
)

func TestOrdersOfAnAuthorityCountUntilTheirWindowIsOver(t *testing.T) {
	t0 := time.Date(2026, 11, 22, 10, 1, 0, 0, time.UTC)
	var a fleet.Authority
	for _, at := range []time.Duration{0, time.Minute, 30 * time.Minute, 31 * time.Minute, 32 * time.Minute} {
		a = a.Count(t0.Add(at))
	}
	if len(a.Orders) != 2 {
		t.Fatalf("%+v", a.Orders)
	}
	now := t0.Add(time.Hour)
	for _, tc := range []struct {
		limit int
		free  time.Duration // after 10:00
	}{{5, 3*time.Hour + 10*time.Minute}, {4, 3*time.Hour + 10*time.Minute}, {3, 3*time.Hour + 40*time.Minute}, {6, 0}} {
		n, free := a.Ordered(now, tc.limit)
		want := time.Time{}
		if tc.free > 0 {
			want = t0.Add(tc.free - time.Minute)
		}
		if n != 5 || !free.Equal(want) {
			t.Errorf("limit %d: %d orders, free at %s, want %s", tc.limit, n, free, want)
		}
		if !free.IsZero() {
			if n, _ := a.Ordered(free, tc.limit); n >= tc.limit {
				t.Errorf("limit %d: still %d orders at %s", tc.limit, n, free)
			}
		}
	}
	if a = a.Count(t0.Add(24 * time.Hour)); len(a.Orders) != 1 {
		t.Errorf("what is over stays: %+v", a.Orders)
	}
}

func TestAnAuthorityIsNamedByItsHost(t *testing.T) {
	for in, want := range map[string]string{"https://ca.example:14000/dir": "ca.example:14000", "https://acme.example/directory": "acme.example", "odd": "odd"} {
		if got := fleet.AuthorityName(in); got != want {
			t.Errorf("%s: %s", in, got)
		}
	}
}
