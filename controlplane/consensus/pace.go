package consensus

import (
	"os"
	"time"
)

const (
	// paceShare of the time a snapshot of this member's own is at rest: it is read from memory, encoded and written at
	// once otherwise, and on a small machine the writes of customers wait for processor and disk meanwhile.
	paceShare = 0.75
	// longestPause bounds one pause: after a write that the disk held up, the disk is the one that sets the pace.
	longestPause = 100 * time.Millisecond
	// syncBytes is after how many bytes they are synced: a large file that is synced at its end alone fills the queue of
	// the disk that the log is on, and every entry waits behind it.
	syncBytes = 4 << 20
)

// pace slows a writer down.
type pace struct {
	// hurry ends every pause: the member stops.
	hurry <-chan struct{}
	// since is when the last pause ended, unsynced what was written since the last sync.
	since    time.Time
	unsynced int
}

// wrote is called after each write, with its length; sync makes what was written durable.
func (p *pace) wrote(n int, sync func() error) error {
	if p.unsynced += n; p.unsynced >= syncBytes {
		p.unsynced = 0
		if err := sync(); err != nil {
			return err
		}
	}
	rest := time.Duration(float64(time.Since(p.since)) * paceShare / (1 - paceShare))
	if p.since.IsZero() {
		rest = 0
	}
	if rest > 0 {
		pause := time.NewTimer(min(rest, longestPause))
		defer pause.Stop()
		select {
		case <-pause.C:
		case <-p.hurry:
		}
	}
	p.since = time.Now()
	return nil
}

// syncFile syncs a file that another has open.
func syncFile(path string) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0) //nolint:gosec // the member's own directory
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	return f.Sync()
}
