package supervise_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/edgefleet/edgefleet/edgenode/supervise"
)

func TestAClockThatIsSetRightLaterDelaysNoRenewal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		wrong := func() time.Time {
			if time.Since(start) < time.Hour {
				return start.AddDate(-50, 0, 0)
			}
			return time.Now()
		}
		if !supervise.Until(t.Context(), wrong, start.Add(30*time.Minute)) {
			t.Fatal("gave up")
		}
		if waited := time.Since(start); waited < time.Hour || waited > 90*time.Minute {
			t.Errorf("waited for %s, although the clock was right after an hour", waited)
		}
	})
}
