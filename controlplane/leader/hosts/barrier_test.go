package hosts_test

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/edgefleet/edgefleet/controlplane/state"
	"github.com/edgefleet/edgefleet/fleet"
)

// outs notes which edges challenges took out of DNS until ctx ends.
func (w *world) outs() <-chan fleet.Challenge {
	seen := make(chan fleet.Challenge, 16)
	w.background(func(ctx context.Context) error {
		var known []string
		for ctx.Err() == nil {
			ws := w.state.Watch(state.Challenges)
			for _, c := range w.state.Read().Challenges() {
				if c.Out != nil && !slices.Contains(known, c.Token) {
					known = append(known, c.Token)
					seen <- c
				}
			}
			_ = ws.WatchCtx(ctx) // the loop looks at ctx
		}
		return nil
	})
	return seen
}

func TestAnEdgeThatIsLateIsOutOfDNSForTheTimeOfTheChallenge(t *testing.T) {
	w := newWorld(t)
	w.quiet("n2", true)
	outs := w.outs()
	w.background(w.loop(nil).Run)
	h := w.host(t, "acme", "late.example.com", "l3")
	w.set(h.Records(zone)[1])
	got := w.wait(t, h.Name, "a certificate on one of two edges", func(_ *state.View, h fleet.Host) bool {
		return h.Observed.Phase == fleet.PhaseDeploying && h.Observed.Certificate.Reason == fleet.ReasonDeployPartial
	})
	if c := got.Observed.Certificate; c.State != fleet.ConditionWaiting || c.Message == "" {
		t.Errorf("certificate %+v", c)
	}
	select {
	case c := <-outs:
		if d := cmp.Diff([]fleet.NodeID{"n2"}, c.Out.Nodes); d != "" || !c.Out.Until.After(w.now()) || c.Out.Until.After(w.now().Add(fleet.MaxChallengeOutTime)) {
			t.Errorf("%s until %s", d, c.Out.Until)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("the late edge was in DNS when the CA looked")
	}
	w.wait(t, h.Name, "the edge is back in DNS", func(v *state.View, _ fleet.Host) bool { return len(v.Challenges()) == 0 })
	if edges, _ := (source{w.state}).Label("l3"); len(edges) != 2 {
		t.Errorf("DNS answers with %d edges after the challenge", len(edges))
	}
	w.quiet("n2", false)
	w.wait(t, h.Name, "active", active)
	if n := w.ca.Orders(); n != 1 {
		t.Errorf("%d orders at the CA", n)
	}
}

func TestWhenTooManyEdgesAreLateTheOrderFallsBackToDNS01(t *testing.T) {
	w := newWorld(t)
	w.quiet("n1", true)
	w.quiet("n2", true)
	outs := w.outs()
	w.background(w.loop(nil).Run)
	h := w.host(t, "acme", "fallback.example.com", "l4")
	w.set(h.Records(zone)[1])
	w.wait(t, h.Name, "an answer that no edge has", func(v *state.View, _ fleet.Host) bool {
		return len(v.ChallengesOf(h.Name, fleet.ChallengeHTTP01)) == 1
	})
	w.set(h.Records(zone)[0]) // the certificate record comes while edges are waited for
	w.wait(t, h.Name, "a certificate", func(v *state.View, h fleet.Host) bool {
		_, ok := v.Certificate(h.Name)
		return ok
	})
	if n := w.ca.Orders(); n != 1 {
		t.Errorf("%d orders at the CA, want the one that was begun with HTTP-01", n)
	}
	select {
	case c := <-outs:
		t.Errorf("edges %v left DNS, although nobody would be left", c.Out.Nodes)
	default:
	}
	w.quiet("n1", false)
	w.quiet("n2", false)
	w.wait(t, h.Name, "active", active)
}
