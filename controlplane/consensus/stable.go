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

	mu     sync.Mutex
	ended  bool
	writes sync.WaitGroup
}

// Set implements raft.StableStore.
func (s *stableStore) Set(key, val []byte) error {
	if !s.begin() {
		return nil
	}
	defer s.writes.Done()
	return s.StableStore.Set(key, val)
}

// SetUint64 implements raft.StableStore.
func (s *stableStore) SetUint64(key []byte, val uint64) error {
	if !s.begin() {
		return nil
	}
	defer s.writes.Done()
	return s.StableStore.SetUint64(key, val)
}

// begin reports whether a write may begin; it holds no lock while it is under way, for a disk may take its time.
func (s *stableStore) begin() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.ended {
		s.writes.Add(1)
	}
	return !s.ended
}

// end returns when no write is under way; the store below may be closed then.
func (s *stableStore) end() {
	s.mu.Lock()
	s.ended = true
	s.mu.Unlock()
	s.writes.Wait()
}
