package consensus

import (
	"fmt"
	"os"

	"github.com/edgefleet/edgefleet/controlplane/pacing"
	"github.com/edgefleet/edgefleet/fleet"
)

// syncBytes is after how many bytes they are synced: a large file that is synced at its end alone fills the queue of the
// disk that the log is on, and every entry waits behind it.
const syncBytes = 1 << 20

// pace slows down who writes a snapshot of this member's own, which is read from memory, encoded and written at once
// otherwise, while the writes of customers wait for processor and disk; and ends it when it is of no use any more.
type pace struct {
	// closing is closed when the member stops, which waits for its snapshot.
	closing <-chan struct{}
	// hurry reports that there is no time to rest: the log grows faster than the snapshot that would shorten it.
	hurry func() bool
	// replaced reports that the state is another one: the leader sent its snapshot.
	replaced func() bool
	rests    pacing.Pace
	// unsynced is what was written since the last sync.
	unsynced int
}

// before is called before each write: with an error, the snapshot is given up.
func (p *pace) before() error {
	select {
	case <-p.closing:
		return fmt.Errorf("snapshot given up: %w", errClosed)
	default:
	}
	return p.current()
}

// current is called before the snapshot is put in place too: Raft would go on from an older one than the leader's, behind
// entries that the log does not have.
func (p *pace) current() error {
	if p.replaced() {
		return fmt.Errorf("%w: snapshot given up: the leader's took the place of the state", fleet.ErrStale)
	}
	return nil
}

// wrote is called after each write, with its length; sync makes what was written durable.
func (p *pace) wrote(n int, sync func() error) error {
	if p.unsynced += n; p.unsynced >= syncBytes {
		p.unsynced = 0
		if err := sync(); err != nil {
			return fmt.Errorf("sync the snapshot: %w", err)
		}
	}
	if p.hurry() {
		p.rests.Skip()
	} else {
		p.rests.Rest(p.closing)
	}
	return nil
}

// syncFile syncs a file that another has open.
func syncFile(path string) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0) //nolint:gosec // the member's own directory
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // it was opened for its sync only
	return f.Sync()
}
