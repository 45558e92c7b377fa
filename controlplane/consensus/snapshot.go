package consensus

import (
	"fmt"

	"github.com/hashicorp/raft"

	"github.com/edgefleet/edgefleet/fleet"
)

// snapshotStore refuses snapshots of a leader that hold nothing new.
//
// A snapshot that was sent long ago can arrive late: a lost route came back, and the connection that the leader has given
// up still delivers. Raft (1.7.3 and 1.8.0) installs it all the same: it sets the state machine back and drops the whole
// log, with entries that this member has acknowledged since and that the cluster has committed because of that. Were this
// member to vote then, they could be lost. The Raft paper (section 7) keeps the log that follows.
type snapshotStore struct {
	raft.SnapshotStore
	// holds says whether this member has everything up to that entry.
	holds func(index, term uint64) bool
}

// Create implements raft.SnapshotStore, for this member's own snapshots and for those of the leader.
func (s snapshotStore) Create(v raft.SnapshotVersion, index, term uint64, c raft.Configuration, configIndex uint64, t raft.Transport) (raft.SnapshotSink, error) {
	sink, err := s.SnapshotStore.Create(v, index, term, c, configIndex, t)
	if err != nil {
		return nil, err
	}
	return &guardedSink{SnapshotSink: sink, index: index, stale: func() bool { return s.holds(index, term) }}, nil
}

// guardedSink looks at the first byte whether the snapshot is wanted: only then is known whose it is, and Raft's main loop
// writes a leader's, so that nothing can come between.
type guardedSink struct {
	raft.SnapshotSink
	index uint64
	stale func() bool
	// wanted says that it was looked at, or that it is this member's own.
	wanted bool
	// pace slows down the writer; nil for a leader's snapshot, which the member cannot do without.
	pace *pace
}

// Write implements io.Writer.
func (s *guardedSink) Write(b []byte) (int, error) {
	if !s.wanted && s.stale() {
		return 0, fmt.Errorf("%w: a snapshot up to entry %d arrived after that entry did", fleet.ErrStale, s.index)
	}
	s.wanted = true
	if s.pace != nil {
		if err := s.pace.before(); err != nil {
			return 0, err
		}
	}
	n, err := s.SnapshotSink.Write(b)
	if err == nil && s.pace != nil {
		err = s.pace.wrote(n, s.sync)
	}
	return n, err
}

// sync makes what was written so far durable, where the store can.
func (s *guardedSink) sync() error {
	if f, ok := s.SnapshotSink.(interface{ sync() error }); ok {
		return f.sync()
	}
	return nil
}

// ownSnapshot tells the sink that it is this member's: it takes its time.
type ownSnapshot struct {
	raft.FSMSnapshot
	pace *pace
}

// Persist implements raft.FSMSnapshot.
func (s ownSnapshot) Persist(sink raft.SnapshotSink) error {
	if g, ok := sink.(*guardedSink); ok {
		g.wanted, g.pace = true, s.pace
	}
	return s.FSMSnapshot.Persist(sink)
}

// holds reports whether this member has everything up to an entry of a leader's snapshot: it was applied here, or the log
// has it, and thereby all before it.
func (n *Node) holds(index, term uint64) bool {
	if n.fsm.has(index) {
		return true
	}
	var l raft.Log
	return n.logs.GetLog(index, &l) == nil && l.Term == term
}
