package consensus

import (
	"sync"

	"github.com/hashicorp/raft"
)

// stableStore keeps Raft's term and vote, and forgets what comes after its end. Raft answers heartbeats on goroutines of
// its transport, for which its shutdown does not wait: one that is late finds a new term and panics if it cannot store
// it. Nobody hears the answer, for every connection was broken before.
type stableStore struct {
	raft.StableStore

	mu    sync.RWMutex
	ended bool
}

// Set implements raft.StableStore.
func (s *stableStore) Set(key, val []byte) error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.ended {
		return nil
	}
	return s.StableStore.Set(key, val)
}

// SetUint64 implements raft.StableStore.
func (s *stableStore) SetUint64(key []byte, val uint64) error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.ended {
		return nil
	}
	return s.StableStore.SetUint64(key, val)
}

// end returns when no write is under way; the store below may be closed then.
func (s *stableStore) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = true
}
