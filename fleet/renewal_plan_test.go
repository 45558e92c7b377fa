package fleet_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/edgefleet/edgefleet/fleet"
)

func TestRenewalsAreSpreadWithinTheirWindowAndStay(t *testing.T) {
	from := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	life := 90 * 24 * time.Hour
	ca, own := map[time.Time]bool{}, map[time.Time]bool{}
	for i := range 200 {
		c := fleet.Certificate{Host: fleet.HostName(fmt.Sprintf("h%d.example.com", i)), NotBefore: from, NotAfter: from.Add(life)}
		start, end := from.Add(59*24*time.Hour), from.Add(61*24*time.Hour)
		w := c.PlanRenewal(start, end, "")
		if w.At.Before(start) || w.At.After(end) || w.Source != fleet.RenewalCA || w != c.PlanRenewal(start, end, "") {
			t.Fatalf("in the CA's window: %+v", w)
		}
		l := c.PlanRenewal(time.Time{}, time.Time{}, "")
		if left := c.NotAfter.Sub(l.At); left > life/3 || left < life/3-life/60 || l.Source != fleet.RenewalLife {
			t.Fatalf("by life: %s left, %+v", left, l)
		}
		if c.Renewal = w; !c.RenewAt().Equal(w.At) {
			t.Fatalf("renewed at %s, planned %s", c.RenewAt(), w.At)
		}
		ca[w.At], own[l.At] = true, true
	}
	if len(ca) < 190 || len(own) < 190 {
		t.Errorf("200 certificates are renewed at %d and %d times", len(ca), len(own))
	}
}
