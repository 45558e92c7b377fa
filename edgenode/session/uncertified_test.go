package session_test

import (
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/edgefleet/edgefleet/edgenode/session"
	"github.com/edgefleet/edgefleet/fleet"
)

func TestAHostWithoutACertificateIsToldOfOnceAndAtOnce(t *testing.T) {
	var mu sync.Mutex
	var waiting []fleet.HostName
	change := func(o *session.Options) {
		o.HeartbeatInterval, o.PollInterval = 5*time.Second, 10*time.Minute
		o.Uncertified = func() []fleet.HostName {
			mu.Lock()
			defer mu.Unlock()
			out := waiting
			waiting = nil
			return out
		}
	}
	inBubble(t, change, func(t *testing.T, s *session.Session, b *fakeBus, _ *fakeStore) {
		time.Sleep(time.Second)
		synctest.Wait()
		mu.Lock()
		waiting = []fleet.HostName{"new.example.com"}
		mu.Unlock()
		_, before := b.seen()
		s.Beat()
		synctest.Wait()
		_, beats := b.seen()
		if len(beats) != len(before)+1 || !slices.Equal(beats[len(before)].Uncertified, []fleet.HostName{"new.example.com"}) {
			t.Fatalf("%+v", beats[len(before):])
		}
		time.Sleep(time.Minute)
		_, after := b.seen()
		if len(after) == len(beats) || slices.ContainsFunc(after[len(beats):], func(r fleet.Report) bool { return len(r.Uncertified) > 0 }) {
			t.Errorf("told again in one of %d reports", len(after)-len(beats))
		}
	})
}
