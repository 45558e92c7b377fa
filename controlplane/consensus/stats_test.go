package consensus_test

import (
	"testing"
	"testing/synctest"
	"time"
)

func TestALeaderThatIsCutOffSaysSinceWhenItHeardOfNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBubble(t)
		defer b.close(t)
		if s := b.nodes[0].Stats(); s.State != "leader" || !s.LastContact.IsZero() {
			t.Fatalf("before: %+v", s)
		}
		b.partition(0)
		cut := time.Now()
		settle()
		for range 3 { // elections that it cannot win do not make it younger
			settle()
			s := b.nodes[0].Stats()
			if since := s.LastContact.Sub(cut); s.State == "leader" || s.LastContact.IsZero() || since < 0 || since > time.Second {
				t.Errorf("%s after it was cut off: %+v", time.Since(cut), s)
			}
		}
		b.reconnect(0)
		settle()
		if s := b.nodes[0].Stats(); time.Since(s.LastContact) > time.Second {
			t.Errorf("back, it heard of a leader %s ago", time.Since(s.LastContact))
		}
	})
}
