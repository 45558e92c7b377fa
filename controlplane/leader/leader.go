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
