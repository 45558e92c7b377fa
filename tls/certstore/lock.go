package certstore

import (
	"context"
	"fmt"
	"sync"

	"github.com/edgefleet/edgefleet/fleet"
)

// locks are named locks of this process. held maps a name to a channel that is closed when the lock is free again.
type locks struct {
	mu   sync.Mutex
	held map[string]chan struct{}
}

// Lock takes the named lock, waiting for it as long as ctx lasts.
func (s *Store) Lock(ctx context.Context, name string) error {
	for {
		s.locks.mu.Lock()
		released, taken := s.locks.held[name]
		if !taken {
			s.locks.held[name] = make(chan struct{})
			s.locks.mu.Unlock()
			return nil
		}
		s.locks.mu.Unlock()
		select {
		case <-released:
		case <-ctx.Done():
			return fmt.Errorf("wait for lock %s: %w", name, context.Cause(ctx))
		}
	}
}

// Unlock frees the named lock; a lock that is not held is fleet.ErrConflict.
func (s *Store) Unlock(_ context.Context, name string) error {
	s.locks.mu.Lock()
	defer s.locks.mu.Unlock()
	released, taken := s.locks.held[name]
	if !taken {
		return fleet.NewError(fleet.ErrConflict, "lock", "lock %s is not held", name)
	}
	delete(s.locks.held, name)
	close(released)
	return nil
}
