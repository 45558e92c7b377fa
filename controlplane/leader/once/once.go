// Package once is the leader's loop that forgets idempotency keys whose time is over.
//
// It owns when, not what a key means (package fsm). Without a quorum keys stay until there is one; a key whose time is
// over is not honoured meanwhile.
package once

import (
	"context"
	"fmt"
	"time"

	"github.com/edgefleet/edgefleet/controlplane/command"
	"github.com/edgefleet/edgefleet/controlplane/leader"
	"github.com/edgefleet/edgefleet/controlplane/state"
)

// every is the pause between two looks, batch how many keys one command forgets.
const (
	every = time.Minute
	batch = 4096
)

// Loop forgets keys.
type Loop struct {
	State    *state.Store
	Proposer leader.Proposer
	Now      func() time.Time
}

// Run forgets keys until ctx ends; an error is one of proposing.
func (l *Loop) Run(ctx context.Context) error {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		if err := l.forget(ctx); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func (l *Loop) forget(ctx context.Context) error {
	for ctx.Err() == nil {
		now := l.Now()
		if len(l.State.Read().OnceExpired(now, 1)) == 0 {
			return nil
		}
		if _, err := l.Proposer.Propose(ctx, leader.Header("once", now), command.KeysExpire{Before: now, Limit: batch}); err != nil {
			return fmt.Errorf("forget idempotency keys: %w", err)
		}
	}
	return nil
}
