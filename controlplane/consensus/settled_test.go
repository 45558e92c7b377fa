package consensus_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/edgefleet/edgefleet/fleet"
)

func TestALeaderIsSettledOnceItHoldsWhatWasCommittedBeforeItLed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBubble(t)
		held := make(chan struct{})
		b.fsms[1].mu.Lock()
		b.fsms[1].held = held
		b.fsms[1].mu.Unlock()
		if err := b.nodes[1].Settled(t.Context()); !errors.Is(err, fleet.ErrNotLeader) {
			t.Errorf("a follower is settled: %v", err)
		}
		if _, _, err := b.nodes[0].Apply(t.Context(), []byte("x")); err != nil {
			t.Fatal(err)
		}
		if err := b.nodes[0].TransferLeadership(t.Context(), "m2"); err != nil {
			t.Fatal(err)
		}
		settle()
		short, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := b.nodes[1].Settled(short); !errors.Is(err, fleet.ErrTimeout) {
			t.Errorf("without what was committed: %v", err)
		}
		close(held)
		if err := b.nodes[1].Settled(t.Context()); err != nil || !b.fsms[1].holds("x")() {
			t.Errorf("settled: %v, with %v", err, b.fsms[1].all())
		}
		before := b.nodes[1].Stats().LastIndex
		for range 100 {
			if err := b.nodes[1].Settled(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if after := b.nodes[1].Stats().LastIndex; after != before {
			t.Errorf("a leader that is settled wrote %d entries to stay so", after-before)
		}
		b.close(t)
	})
}
