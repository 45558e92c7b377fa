package hosts

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/edgefleet/edgefleet/controlplane/command"
	"github.com/edgefleet/edgefleet/controlplane/leader"
	"github.com/edgefleet/edgefleet/fleet"
)

// TakeLock implements certstore.Locks.
func (a *Accounts) TakeLock(ctx context.Context, lock, holder string, lease time.Duration) (bool, error) {
	now := a.Now()
	if a.lockedByAnother(lock, holder, now) {
		return false, nil // who waits writes nothing
	}
	_, err := a.Proposer.Propose(ctx, leader.Header(name, now), command.LockTake{Name: lock, Holder: holder, Until: now.Add(lease)})
	if errors.Is(err, fleet.ErrConflict) && fleet.AsError(err).Field == "lock" {
		return false, nil // somebody was faster; a conflict about something else is not about the lock
	}
	if err != nil {
		return false, fmt.Errorf("take lock: %w", err)
	}
	return true, nil
}

func (a *Accounts) lockedByAnother(lock, holder string, now time.Time) bool {
	l, ok := a.State.Read().StorageLock(lock)
	return ok && l.Holder != holder && l.Until.After(now)
}

// ReleaseLock implements certstore.Locks.
func (a *Accounts) ReleaseLock(ctx context.Context, lock, holder string) error {
	if _, err := a.Proposer.Propose(ctx, leader.Header(name, a.Now()), command.LockRelease{Name: lock, Holder: holder}); err != nil {
		return fmt.Errorf("release lock: %w", err)
	}
	return nil
}
