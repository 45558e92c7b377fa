package spool

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/edgefleet/edgefleet/fleet"
)

const (
	lockFile = "lock"
	// maxSegmentRead bounds what is read of a segment; the writer makes none of this size.
	maxSegmentRead = 4 * segmentBytes
)

// claim creates the directory of a new boot and locks it.
func claim(root, boot string) (string, *os.File, error) {
	unlock, err := lockRoot(root)
	if err != nil {
		return "", nil, err
	}
	defer unlock()
	name := boot
	for n := 2; ; n++ {
		err := os.Mkdir(filepath.Join(root, name), 0o700)
		if err == nil {
			break
		}
		if !errors.Is(err, fs.ErrExist) {
			return "", nil, err
		}
		suffix := "-" + strconv.Itoa(n)
		name = boot[:min(len(boot), 63-len(suffix))] + suffix
	}
	lock, err := lockDir(filepath.Join(root, name))
	if err == nil {
		err = syncDir(root)
	}
	return name, lock, err
}

// lockRoot keeps workers from adopting a directory that another one is just creating.
func lockRoot(root string) (unlock func(), err error) {
	f, err := os.OpenFile(filepath.Join(root, lockFile), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return func() { _ = f.Close() }, nil // closing the only descriptor unlocks
}

var errInUse = errors.New("in use by another worker")

// lockDir takes a boot's directory; errInUse when its worker lives, or it was deleted meanwhile.
func lockDir(dir string) (*os.File, error) {
	path := filepath.Join(dir, lockFile)
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errInUse
	}
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, errors.Join(errInUse, f.Close())
	}
	held, err := f.Stat()
	named, err2 := os.Stat(path)
	if err != nil || err2 != nil || !os.SameFile(held, named) {
		return nil, errors.Join(errInUse, f.Close())
	}
	return f, nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// adopt takes over the directories of boots whose workers are gone, and measures the others. Only one goroutine calls it.
func (s *Spool) adopt(ctx context.Context) error {
	found, foreign, err := s.claimLeft()
	s.mu.Lock()
	s.foreign = foreign
	s.mu.Unlock()
	for _, j := range found {
		damaged, loadErr := s.load(j)
		if loadErr != nil {
			err = errors.Join(err, fmt.Errorf("adopt %s: %w", j.dir, loadErr), j.close())
			continue
		}
		s.mu.Lock()
		left := j.unreleased()
		if left > 0 {
			s.journals = slices.Insert(s.journals, 0, j)
		}
		s.mu.Unlock()
		if left == 0 {
			err = errors.Join(err, j.remove())
		}
		s.met.dropN(ctx, DropDamaged, damaged)
		s.log().InfoContext(ctx, "took over the spool of an earlier worker", "boot", j.boot, "events", left, "damaged", damaged)
		s.nudge()
	}
	return err
}

// claimLeft locks the directories that can be taken over; foreign is the size of those that cannot.
func (s *Spool) claimLeft() (found []*journal, foreign int64, err error) {
	unlock, err := lockRoot(s.o.Dir)
	if err != nil {
		return nil, 0, err
	}
	defer unlock()
	dirs, err := os.ReadDir(s.o.Dir)
	if err != nil {
		return nil, 0, err
	}
	for _, d := range dirs {
		if !d.IsDir() || fleet.ValidateID("boot", d.Name()) != nil || s.holds(d.Name()) {
			continue
		}
		dir := filepath.Join(s.o.Dir, d.Name())
		lock, err := lockDir(dir)
		if err != nil {
			foreign += dirSize(dir)
			continue
		}
		found = append(found, &journal{dir: dir, boot: d.Name(), lock: lock, acks: map[fleet.MemberID]fleet.EventAck{}})
	}
	return found, foreign, nil
}

func (s *Spool) holds(boot string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.ContainsFunc(s.journals, func(j *journal) bool { return j.boot == boot })
}

func dirSize(dir string) (n int64) {
	files, err := os.ReadDir(dir)
	if err != nil {
		return 0
	}
	for _, f := range files {
		if info, err := f.Info(); err == nil {
			n += info.Size()
		}
	}
	return n
}

// load reads the segments of a journal and enters their events in the ledger. Nothing is repaired on disk: what is damaged
// or torn is skipped again should this worker die too.
func (s *Spool) load(j *journal) (damaged uint64, err error) {
	names, err := filepath.Glob(filepath.Join(j.dir, "*.seg"))
	if err != nil {
		return 0, err
	}
	var firsts []uint64
	for _, name := range names { // sorted, because the numbers have leading zeros
		first, err := strconv.ParseUint(strings.TrimSuffix(filepath.Base(name), ".seg"), 10, 63)
		if err == nil && first > 0 {
			firsts = append(firsts, first)
		}
	}
	for i, first := range firsts {
		limit := uint64(math.MaxUint64)
		if i+1 < len(firsts) {
			limit = firsts[i+1]
		}
		seg, lost, err := s.loadSegment(j, first, limit)
		if err != nil {
			return 0, err
		}
		damaged += lost
		j.segments = append(j.segments, seg)
		j.last = first + uint64(len(seg.entries)) - 1
	}
	if len(firsts) > 0 {
		j.released = max(firsts[0]-1, min(loadWatermark(j.dir), j.last))
		j.saved = j.released
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.enter(j, damaged)
	return damaged, nil
}

// enter opens the accounts of a loaded journal.
func (s *Spool) enter(j *journal, damaged uint64) {
	for _, seg := range j.segments {
		for i, e := range seg.entries {
			if e.size > 0 && seg.first+uint64(i) > j.released {
				e.account.Detected++
				e.account.Spooled++
			}
		}
	}
	if damaged > 0 {
		a := s.ledger.of("")
		a.Detected += damaged
		a.Dropped[DropDamaged] += damaged
	}
	done, _ := j.release(j.released) // step over lost records at the start
	if err := deleteSegments(done); err != nil {
		s.log().Warn("cannot delete a segment of the spool", "err", err)
	}
}

// loadSegment indexes the records of one segment with sequence numbers in [first, limit) and counts the lost ones between.
func (s *Spool) loadSegment(j *journal, first, limit uint64) (*segment, uint64, error) {
	f, err := os.Open(segmentPath(j.dir, first))
	if err != nil {
		return nil, 0, err
	}
	data, err := io.ReadAll(io.LimitReader(f, maxSegmentRead))
	if err != nil {
		return nil, 0, errors.Join(err, f.Close())
	}
	seg := &segment{first: first, path: segmentPath(j.dir, first), f: readOnly{f}, size: int64(len(data))}
	// A segment cannot hold more records than headers fit, whatever a record claims.
	limit = min(limit, first+uint64(len(data))/headerBytes)
	var lost uint64
	end := 0
	scan(data, func(offset int, seq uint64, payload []byte) {
		end = offset + headerBytes + len(payload)
		next := first + uint64(len(seg.entries))
		if seq < next || seq >= limit {
			return
		}
		lost += seq - next
		seg.entries = append(seg.entries, make([]entry, seq-next)...)
		e := entry{offset: uint32(offset), size: uint32(headerBytes + len(payload))}
		if e.account = s.accountOf(j, seq, payload); e.account == nil {
			e = entry{}
			lost++
		}
		seg.entries = append(seg.entries, e)
	})
	if wholeButDamaged(data[end:]) {
		lost++
	}
	return seg, lost, nil
}

// accountOf finds the account of a record; nil when the record is not an event of this node and boot.
func (s *Spool) accountOf(j *journal, seq uint64, payload []byte) *Ledger {
	var ev fleet.Event
	if fleet.DecodeStrict(payload, &ev) != nil || ev.NodeID != s.o.Node || ev.Boot != j.boot || ev.Seq != seq {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ledger.of(ev.Tenant)
}

// wholeButDamaged tells a record that was complete once from one that a crash tore: the latter was never spooled.
func wholeButDamaged(b []byte) bool {
	return len(b) >= headerBytes && string(b[:4]) == string(magic) && uint64(binary.LittleEndian.Uint32(b[4:])) <= uint64(len(b)-headerBytes)
}
