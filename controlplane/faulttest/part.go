package faulttest

import (
	"context"
	"slices"
	"time"

	"github.com/edgefleet/edgefleet/fleet"
)

// part breaks the network around the victim, and heals it.
func (n *Network) part(ctx context.Context, ids []fleet.MemberID, s Step, victim fleet.MemberID) {
	near := []fleet.MemberID{victim}
	if s.Fault == Split {
		for _, i := range s.Order {
			if id := ids[i]; id != victim && len(near) < (len(ids)-1)/2 {
				near = append(near, id)
			}
		}
	}
	set := func(out, in Way) {
		for _, a := range near {
			for _, b := range ids {
				if !slices.Contains(near, b) {
					n.Set(a, b, out)
					n.Set(b, a, in)
				}
			}
		}
	}
	open, stalled := n.base, Way{Stalled: true}
	if flaps, ok := map[Fault][2]Way{Flap: {stalled, stalled}, FlapDeaf: {open, stalled}, FlapMute: {stalled, open}}[s.Fault]; ok {
		for left := s.For; left > 0 && ctx.Err() == nil; left -= 400 * time.Millisecond {
			set(flaps[0], flaps[1])
			_ = sleep(ctx, 300*time.Millisecond)
			set(open, open)
			_ = sleep(ctx, 100*time.Millisecond)
		}
		return
	}
	ways := map[Fault][2]Way{
		Pause: {stalled, stalled}, Split: {stalled, stalled}, Deaf: {open, stalled}, Mute: {stalled, open},
		Isolate: {{Refused: true}, {Refused: true}}, SlowNet: {{Delay: s.By}, {Delay: s.By}},
	}[s.Fault]
	set(ways[0], ways[1])
	_ = sleep(ctx, s.For)
	set(open, open)
}
