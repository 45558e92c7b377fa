package consensus

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"sync/atomic"
	"syscall"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	wal "github.com/hashicorp/raft-wal"
	"github.com/hashicorp/raft-wal/metadb"

	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/observability"
)

// healthLog is the name under which the state of the log is reported.
const healthLog = "raft_log"

// disk is everything a member keeps in its directory: the lock, the write-ahead log with its metadata and mark, and
// the snapshots.
type disk struct {
	lock  *os.File
	meta  *metadb.BoltMetaDB
	wal   *wal.WAL
	mark  *mark
	snaps sealedSnapshots
	// applied is the mark of the state machine, marked what it said.
	applied *mark
	marked  uint64
}

// openDisk locks the directory, opens what is there and reads all of it once, so that damage is met here, by a
// person, and not later by Raft, which panics.
func openDisk(o Options, log hclog.Logger) (_ *disk, err error) {
	walDir := filepath.Join(o.Dir, "wal")
	if err := os.MkdirAll(walDir, 0o700); err != nil {
		return nil, fmt.Errorf("create the directory of the log: %w", err)
	}
	d := &disk{}
	defer func() {
		if err != nil {
			err = errors.Join(err, d.close())
		}
	}()
	if d.lock, err = lockDir(o.Dir); err != nil {
		return nil, err
	}
	var marked uint64
	if d.mark, marked, err = openMark(filepath.Join(o.Dir, "mark")); err != nil {
		return nil, fmt.Errorf("open the mark of the log: %w", err)
	}
	if d.applied, d.marked, err = openMark(filepath.Join(o.Dir, "applied")); err != nil {
		return nil, fmt.Errorf("open the mark of the state machine: %w", err)
	}
	d.meta = &metadb.BoltMetaDB{}
	if d.wal, err = openWAL(walDir, d.meta, o.segmentBytes, log); err != nil {
		return nil, o.corruptUnlessSystem(err)
	}
	snaps, err := raft.NewFileSnapshotStoreWithLogger(o.Dir, retainSnapshots, log.Named("snapshot"))
	if err != nil {
		return nil, fmt.Errorf("open the snapshot store: %w", err)
	}
	d.snaps = sealedSnapshots{snaps, filepath.Join(o.Dir, "snapshots")}
	if err := d.check(o, walDir, marked); err != nil {
		return nil, err
	}
	return d, nil
}

// lockDir refuses a directory that another process has open. The lock goes with the process, however it ends.
func lockDir(dir string) (*os.File, error) {
	path := filepath.Join(dir, "lock")
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the lock of the log: %w", err)
	}
	switch err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); {
	case errors.Is(err, syscall.EWOULDBLOCK):
		return nil, errors.Join(fleet.NewError(fleet.ErrConflict, "dir", "%s is in use by another process: stop the controlplane that runs on it, or use another data directory", dir), f.Close())
	case err != nil:
		return nil, errors.Join(fmt.Errorf("lock %s: %w", path, err), f.Close())
	}
	return f, nil
}

// openWAL turns panics of the metadata store (bbolt, on a damaged page) into errors, and so the fault of the machine that
// comes when its file is mapped and shorter than it says.
func openWAL(dir string, meta *metadb.BoltMetaDB, segmentBytes int, log hclog.Logger) (w *wal.WAL, err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			w, err = nil, fmt.Errorf("%w: %v", fleet.ErrCorrupt, p)
		}
	}()
	segments := newSegments(dir)
	if err := finishRotation(dir, segments); err != nil {
		return nil, err
	}
	return wal.Open(dir, wal.WithMetaStore(meta), wal.WithSegmentFiler(segments), wal.WithSegmentSize(segmentBytes), wal.WithLogger(log.Named("wal")))
}

// check reads every entry and the newest snapshot, and that no entry is missing: at the end, where the mark says the
// log once reached further, or between the snapshot and the first entry.
func (d *disk) check(o Options, walDir string, marked uint64) error {
	first, err := d.wal.FirstIndex()
	if err != nil {
		return fmt.Errorf("read first index of the log: %w", err)
	}
	last, err := d.wal.LastIndex()
	if err != nil {
		return fmt.Errorf("read last index of the log: %w", err)
	}
	for i := first; i <= last && last > 0; i++ {
		if err := getLog(d.wal, i, new(raft.Log)); err != nil {
			return o.corrupt("segment %s, entry %d: %v", segmentOf(walDir, i), i, err)
		}
	}
	if last < marked {
		return o.corrupt("segment %s ends at entry %d, but entry %d was stored", segmentOf(walDir, last+1), last, marked)
	}
	snapshot, err := d.checkSnapshot(o)
	if err != nil {
		return err
	}
	switch {
	case last == 0:
		return nil
	case first > snapshot+1:
		return o.corrupt("entries %d to %d are in neither a snapshot nor a segment", snapshot+1, first-1)
	case last < snapshot:
		// A crash after a snapshot was received and before the log it replaces was dropped. Raft goes on behind the
		// snapshot, which the write-ahead log would refuse as a hole.
		if err := d.mark.lower(0); err != nil {
			return err
		}
		if err := d.wal.DeleteRange(first, last); err != nil {
			return fmt.Errorf("drop entries that the snapshot replaced: %w", err)
		}
	}
	return nil
}

// checkSnapshot reads the newest snapshot, whose checksum Open verifies, and returns its index, 0 if there is none.
func (d *disk) checkSnapshot(o Options) (uint64, error) {
	if err := d.snaps.check(); err != nil {
		return 0, o.corruptUnlessSystem(err)
	}
	metas, err := d.snaps.List()
	if err != nil {
		return 0, fmt.Errorf("list snapshots: %w", err)
	}
	if len(metas) == 0 {
		return 0, nil
	}
	_, r, err := d.snaps.Open(metas[0].ID)
	if err != nil {
		return 0, o.corrupt("snapshot %s: %v", metas[0].ID, err)
	}
	return metas[0].Index, r.Close()
}

// corrupt says what was found and the way out, which is always the same: the other members have the data.
func (o Options) corrupt(format string, args ...any) error {
	return fleet.NewError(fleet.ErrCorrupt, "dir", "write-ahead log of member %[1]s is corrupt (%[2]s): move %[3]s aside and rejoin: fleetctl cluster remove %[1]s; controlplane join",
		o.Member, fmt.Sprintf(format, args...), o.Dir)
}

// corruptUnlessSystem tells damage from a disk that is full, read-only or not ours.
func (o Options) corruptUnlessSystem(err error) error {
	for _, system := range []error{fs.ErrPermission, syscall.ENOSPC, syscall.EDQUOT, syscall.EROFS, syscall.EMFILE, syscall.ENFILE, syscall.ENOMEM} {
		if errors.Is(err, system) {
			return fmt.Errorf("open write-ahead log of member %s in %s: %w", o.Member, o.Dir, err)
		}
	}
	return o.corrupt("%v", err)
}

// segmentOf names the segment file that holds, or should hold, entry index. Names start with the index of the
// segment's first entry, zero-padded, so they sort.
func segmentOf(dir string, index uint64) string {
	name := "that is missing"
	entries, err := os.ReadDir(dir)
	if err != nil {
		return name
	}
	bound := fmt.Sprintf("%020d~", index)
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), ".wal") && e.Name() < bound {
			name = e.Name()
		}
	}
	return name
}

// close releases what is open, the lock last. The write-ahead log does not close the metadata store it was given.
func (d *disk) close() error {
	var errs []error
	if d.wal != nil {
		errs = append(errs, d.wal.Close())
	}
	if d.meta != nil {
		errs = append(errs, d.meta.Close())
	}
	if d.mark != nil {
		errs = append(errs, d.mark.close())
	}
	if d.applied != nil {
		errs = append(errs, d.applied.close())
	}
	if d.lock != nil {
		errs = append(errs, d.lock.Close())
	}
	return errors.Join(errs...)
}

// getLog reads one entry and makes sure that it is the one asked for.
func getLog(s raft.LogStore, index uint64, l *raft.Log) error {
	if err := s.GetLog(index, l); err != nil {
		return err
	}
	if l.Index != index {
		return fmt.Errorf("%w: found entry %d instead", fleet.ErrCorrupt, l.Index)
	}
	return nil
}

// watchedLog passes on to the write-ahead log, moves the mark along, and reports the health of the disk.
type watchedLog struct {
	raft.LogStore
	// mark is nil for a log in memory.
	mark   *mark
	health *observability.Health
	log    *slog.Logger
	// damaged keeps the member unhealthy after an entry could not be read, however well appends go.
	damaged atomic.Bool
	// failed is the error of the first append since the last good one: those that follow only say that the log is sealed.
	failed atomic.Pointer[error]
}

// StoreLog implements raft.LogStore.
func (w *watchedLog) StoreLog(l *raft.Log) error { return w.StoreLogs([]*raft.Log{l}) }

// StoreLogs implements raft.LogStore. On an error Raft makes a leader step down and a follower refuse the entries.
func (w *watchedLog) StoreLogs(logs []*raft.Log) error {
	err := w.LogStore.StoreLogs(logs)
	if err != nil {
		err = fmt.Errorf("append to the write-ahead log (free the disk and restart this member): %w", err)
		w.failed.CompareAndSwap(nil, &err)
		w.health.Set(healthLog, *w.failed.Load())
		return err
	}
	w.failed.Store(nil)
	if w.mark != nil && len(logs) > 0 {
		// The entries are safe; a mark that lags only sees less.
		if err := w.mark.raise(logs[len(logs)-1].Index); err != nil {
			w.log.WarnContext(context.Background(), "mark of the write-ahead log lags", "err", err)
		}
	}
	if !w.damaged.Load() {
		w.health.Set(healthLog, nil)
	}
	return nil
}

// GetLog implements raft.LogStore.
func (w *watchedLog) GetLog(index uint64, l *raft.Log) error {
	err := getLog(w.LogStore, index, l)
	if err != nil && !errors.Is(err, raft.ErrLogNotFound) {
		w.damage(fmt.Errorf("read entry %d of the write-ahead log: %w", index, err))
	}
	return err
}

// damage makes the member unhealthy until it is started again.
func (w *watchedLog) damage(err error) {
	w.damaged.Store(true)
	w.health.Set(healthLog, err)
}

// DeleteRange implements raft.LogStore.
func (w *watchedLog) DeleteRange(from, to uint64) error {
	last, err := w.LastIndex()
	if err != nil {
		return err
	}
	if w.mark != nil && to >= last && from <= last {
		first, err := w.FirstIndex()
		if err != nil {
			return err
		}
		rest := uint64(0)
		if from > first {
			rest = from - 1
		}
		if err := w.mark.lower(rest); err != nil {
			return err
		}
	}
	return w.LogStore.DeleteRange(from, to)
}

// IsMonotonic implements raft.MonotonicLogStore: it tells Raft that a hole, as a restored snapshot leaves, is refused.
func (w *watchedLog) IsMonotonic() bool {
	m, ok := w.LogStore.(raft.MonotonicLogStore)
	return ok && m.IsMonotonic()
}
