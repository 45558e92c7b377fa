package certstore

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/caddyserver/certmagic"

	"github.com/edgefleet/edgefleet/fleet"
)

const (
	// lease is how long a lock outlives a holder that died. A holder that lives renews it three times as often.
	lease = 30 * time.Second
	// poll is how often who waits for a lock looks at it, which costs a look into memory.
	poll = 250 * time.Millisecond
	// unlockTimeout bounds giving a lock back, also when the caller's context has ended.
	unlockTimeout = 5 * time.Second
)

var (
	_ certmagic.TryLocker        = (*Store)(nil)
	_ certmagic.LockLeaseRenewer = (*Store)(nil)
)

// Locks are named locks with leases. Times are those of the member that leads.
type Locks interface {
	// TakeLock gives the named lock to holder, or extends holder's lease, durably; false means that somebody else's
	// lease lasts.
	TakeLock(ctx context.Context, name, holder string, lease time.Duration) (bool, error)
	// ReleaseLock gives it back; it is fleet.ErrConflict if holder has it no more.
	ReleaseLock(ctx context.Context, name, holder string) error
}

// locks are those that this Store holds.
type locks struct {
	mu   sync.Mutex
	held map[string]*hold
}

// hold is one acquisition. Its lease is renewed until stop is called, or the context of Lock ends.
type hold struct {
	holder string
	stop   context.CancelFunc
	done   chan struct{}
}

// Lock takes the named lock, waiting for it as long as ctx lasts. It is held, by renewing its lease, until Unlock or until
// ctx ends; a holder that dies loses it when its lease is over.
func (s *Store) Lock(ctx context.Context, name string) error {
	tick := time.NewTicker(poll)
	defer tick.Stop()
	for {
		taken, err := s.TryLock(ctx, name)
		if taken || err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("wait for lock %s: %w", name, context.Cause(ctx))
		}
	}
}

// TryLock takes the named lock if it is free, as Lock does.
func (s *Store) TryLock(ctx context.Context, name string) (bool, error) {
	key, err := clean(name)
	if err != nil {
		return false, err
	}
	if ctx.Err() != nil {
		return false, fmt.Errorf("take lock %s: %w", name, context.Cause(ctx))
	}
	holder := rand.Text()
	taken, err := s.kv.TakeLock(ctx, key, holder, lease)
	if err != nil {
		return false, fmt.Errorf("take lock %s: %w", name, err)
	}
	if !taken {
		return false, nil
	}
	renewing, stop := context.WithCancel(ctx)
	h := &hold{holder: holder, stop: stop, done: make(chan struct{})}
	s.locks.mu.Lock()
	before := s.locks.held[key]
	s.locks.held[key] = h
	s.locks.mu.Unlock()
	if before != nil {
		before.stop() // its lease was over, or the lock would not have been free
	}
	go func() {
		defer close(h.done)
		s.renew(renewing, key, holder)
	}()
	return true, nil
}

// renew extends a lease until ctx ends or the lock is lost.
func (s *Store) renew(ctx context.Context, key, holder string) {
	tick := time.NewTicker(lease / 3)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if taken, err := s.kv.TakeLock(ctx, key, holder, lease); err == nil && !taken {
			return
		}
	}
}

// RenewLockLease makes the lease of a lock that this Store holds last at least that much longer.
func (s *Store) RenewLockLease(ctx context.Context, lockKey string, leaseDuration time.Duration) error {
	key, err := clean(lockKey)
	if err != nil {
		return err
	}
	s.locks.mu.Lock()
	h := s.locks.held[key]
	s.locks.mu.Unlock()
	if h == nil {
		return errNotHeld(lockKey)
	}
	taken, err := s.kv.TakeLock(ctx, key, h.holder, min(max(leaseDuration, lease), fleet.MaxLockLease))
	if err != nil {
		return fmt.Errorf("renew lock %s: %w", lockKey, err)
	}
	if !taken {
		return fleet.NewError(fleet.ErrConflict, "lock", "lock %s was lost: its lease was over, and somebody else took it", lockKey)
	}
	return nil
}

// Unlock frees the named lock, also when ctx has ended; a lock that this Store does not hold is fleet.ErrConflict.
func (s *Store) Unlock(ctx context.Context, name string) error {
	key, err := clean(name)
	if err != nil {
		return err
	}
	s.locks.mu.Lock()
	h := s.locks.held[key]
	delete(s.locks.held, key)
	s.locks.mu.Unlock()
	if h == nil {
		return errNotHeld(name)
	}
	h.stop()
	<-h.done
	ctx, cancel := context.WithTimeoutCause(context.WithoutCancel(ctx), unlockTimeout, errors.New("the lock ends with its lease"))
	defer cancel()
	if err := s.kv.ReleaseLock(ctx, key, h.holder); err != nil {
		return fmt.Errorf("unlock %s: %w", name, err)
	}
	return nil
}

func errNotHeld(name string) error {
	return fleet.NewError(fleet.ErrConflict, "lock", "lock %s is not held", name)
}
