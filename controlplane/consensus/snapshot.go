package consensus

import "github.com/hashicorp/raft"

// ownSnapshot is one that this member takes, in its time; one that a leader sends is written as it comes.
type ownSnapshot struct {
	raft.FSMSnapshot
	pace *pace
}

// Persist implements raft.FSMSnapshot.
func (s ownSnapshot) Persist(sink raft.SnapshotSink) error {
	return s.FSMSnapshot.Persist(pacedSink{sink, s.pace})
}

// pacedSink takes as long for each write as pace says.
type pacedSink struct {
	raft.SnapshotSink
	pace *pace
}

// Write implements io.Writer.
func (s pacedSink) Write(b []byte) (int, error) {
	if err := s.pace.before(); err != nil {
		return 0, err
	}
	n, err := s.SnapshotSink.Write(b)
	if err == nil {
		err = s.pace.wrote(n, s.sync)
	}
	return n, err
}

// Close implements raft.SnapshotSink.
func (s pacedSink) Close() error {
	if err := s.pace.current(); err != nil {
		return err
	}
	return s.SnapshotSink.Close()
}

// sync makes what was written so far durable, where the store can.
func (s pacedSink) sync() error {
	if f, ok := s.SnapshotSink.(interface{ sync() error }); ok {
		return f.sync()
	}
	return nil
}
