package consensus

import (
	"context"
	"errors"

	"github.com/hashicorp/raft"

	"github.com/edgefleet/edgefleet/fleet"
)

// Seams take the place of a member's network, and of its disk, in fault tests, which break both on fake time. Nothing
// else opens a member with them.
type Seams struct {
	// Stream carries Raft; it is closed when the member stops.
	Stream raft.StreamLayer
	// Logs, Stable and Snapshots take the place of the files in Dir, which is not used then.
	Logs      raft.LogStore
	Stable    raft.StableStore
	Snapshots raft.SnapshotStore
	// Applied is how far the state machine had come, as the mark on a disk would say.
	Applied uint64
}

// OpenOn starts a member as Open does, on the seams.
func OpenOn(o Options, s Seams) (*Node, error) {
	o = o.withDefaults()
	if err := o.validate(); err != nil {
		return nil, err
	}
	if s.Logs == nil {
		return openOnDisk(o, s)
	}
	transport, disconnect := overNetwork(s.Stream, newLogger(o.Telemetry.Logger))
	stable := &stableStore{StableStore: s.Stable}
	n, err := open(o, parts{
		logs: s.Logs, stable: stable, snapshots: s.Snapshots, transport: transport, marked: s.Applied,
		disconnect: disconnect, release: func() error { stable.end(); return nil },
	})
	if err != nil {
		return nil, errors.Join(err, disconnect())
	}
	return n, nil
}

func openOnDisk(o Options, s Seams) (*Node, error) {
	if o.Dir == "" {
		return nil, fleet.Invalid("dir", "a directory for the log is needed")
	}
	log := newLogger(o.Telemetry.Logger)
	d, err := openDisk(o, log)
	if err != nil {
		return nil, err
	}
	transport, disconnect := overNetwork(s.Stream, log)
	stable := &stableStore{StableStore: d.wal}
	n, err := open(o, parts{
		logs: d.wal, stable: stable, snapshots: d.snaps, transport: transport, mark: d.mark, applied: d.applied, marked: d.marked,
		disconnect: disconnect, release: func() error { stable.end(); return d.close() },
	})
	if err != nil {
		return nil, errors.Join(err, disconnect(), d.close())
	}
	return n, nil
}

// Crash stops the member as a crash looks to the others: nothing is handed over. It is for fault tests.
func (n *Node) Crash(ctx context.Context) error {
	n.closeOnce.Do(func() { n.closeErr = n.stop(ctx, false) })
	return n.closeErr
}
