// Package leader has what the leader's loops share: how they propose, and as whom.
//
// Each loop is a package below this one with a Run(ctx) that is started after a barrier when leadership is gained and
// ends with it. A loop keeps nothing in memory that a successor would miss: deadlines and progress are in the state.
package leader

import (
	"context"
	"time"

	"github.com/edgefleet/edgefleet/controlplane/command"
	"github.com/edgefleet/edgefleet/fleet"
)

// Proposer commits one command and returns the object it answers. ErrUnavailable means that leadership was lost or
// that there is no quorum; the command may or may not have been applied.
type Proposer interface {
	Propose(ctx context.Context, h command.Header, b command.Body) (any, error)
}

// Header is the header of what a loop proposes.
func Header(loop string, now time.Time) command.Header {
	return command.Header{Time: now, Actor: fleet.Actor{Name: "leader/" + loop, Party: fleet.Vendor}}
}

// Follow calls step, which does what is due and returns how long there will be nothing to do, again after that time or when
// what watch waits for has changed, whichever is first, and never sooner than after pause. It ends with ctx, or with the
// error of a step. watch is called before each step, so that no change is missed.
func Follow(ctx context.Context, pause time.Duration, watch func() (changed func(context.Context) error), step func(context.Context) (time.Duration, error)) error {
	for {
		changed := watch()
		wait, err := step(ctx)
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		until, stop := context.WithTimeout(ctx, wait)
		_ = changed(until) // what comes first
		stop()
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
		}
	}
}
