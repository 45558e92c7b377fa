package spool

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"time"

	"github.com/edgefleet/edgefleet/fleet"
)

// journal is the events of one boot. Its directory lock is held for as long as it is open; the spool's mutex guards the rest.
type journal struct {
	dir, boot string
	lock      *os.File
	segments  []*segment
	// active is the segment that the writer appends to; it joins segments with its first record. Only the writer changes it.
	active *segment
	// released is the watermark: a majority holds everything up to it. last is the last synced sequence number.
	released, last uint64
	// next is the next to send, highest the highest sent so far.
	next, highest uint64
	// progress is when something was last released, or sent again; stalls counts the resends since.
	progress time.Time
	stalls   int
	acks     map[fleet.MemberID]fleet.EventAck
	// saved is the watermark on disk.
	saved uint64
}

// segment is one file of records with sequence numbers from first on.
type segment struct {
	first   uint64
	path    string
	f       file
	size    int64
	entries []entry
}

// entry says where a record is; the i-th entry of a segment has sequence number first+i.
type entry struct {
	offset uint32
	// size is that of the whole record; 0 means that it is lost.
	size    uint32
	account *Ledger
}

func segmentPath(dir string, first uint64) string {
	return filepath.Join(dir, fmt.Sprintf("%020d.seg", first))
}

// find returns the entry of seq and its segment; nil when it is lost or deleted.
func (j *journal) find(seq uint64) (*segment, *entry) {
	i := sort.Search(len(j.segments), func(i int) bool { return j.segments[i].first > seq }) - 1
	if i < 0 {
		return nil, nil
	}
	s := j.segments[i]
	if n := seq - s.first; n < uint64(len(s.entries)) && s.entries[n].size > 0 {
		return s, &s.entries[n]
	}
	return nil, nil
}

// acknowledge notes a member's acknowledgement and returns the watermark that it gives.
func (j *journal) acknowledge(a fleet.EventAck) uint64 {
	const maxMembers = 64
	if _, known := j.acks[a.Member]; !known && len(j.acks) >= maxMembers {
		return j.released
	}
	a.Through = min(a.Through, j.last)
	j.acks[a.Member] = a
	all := make([]fleet.EventAck, 0, len(j.acks))
	for _, m := range j.acks {
		all = append(all, m)
	}
	sort.Slice(all, func(x, y int) bool { return all[x].Through > all[y].Through })
	voters := 0
	for i, m := range all {
		// Members may differ about the voters while a member joins: the largest count is the safe one.
		if voters = max(voters, m.Voters); 2*(i+1) > voters {
			return max(m.Through, j.released)
		}
	}
	return j.released
}

// release moves the watermark to seq and past lost records, settles the accounts, and returns the segments that may be
// deleted and how many events were released.
func (j *journal) release(seq uint64) (done []*segment, released uint64) {
	for j.released < j.last {
		_, e := j.find(j.released + 1)
		if e == nil {
			j.released = j.nextSpooled() - 1
			continue
		}
		if j.released >= seq {
			break
		}
		e.account.Spooled--
		e.account.Stored++
		released++
		j.released++
	}
	for len(j.segments) > 0 && j.segments[0] != j.active && j.segments[0].first+uint64(len(j.segments[0].entries))-1 <= j.released {
		done = append(done, j.segments[0])
		j.segments = j.segments[1:]
	}
	return done, released
}

// nextSpooled is the first sequence number above the watermark that is not lost, or the one after the last.
func (j *journal) nextSpooled() uint64 {
	for _, s := range j.segments {
		for i, e := range s.entries {
			if seq := s.first + uint64(i); seq > j.released && e.size > 0 {
				return seq
			}
		}
	}
	return j.last + 1
}

func (j *journal) size() (n int64) {
	for _, s := range j.segments {
		n += s.size
	}
	return n
}

// unreleased counts the events that are still to be released.
func (j *journal) unreleased() uint64 { return j.last - j.released }

// watermark is the content of the file that remembers how far a journal was released.
type watermark struct {
	Released uint64 `json:"released"`
}

const watermarkFile = "watermark.json"

// saveWatermark replaces the file. It is not synced: losing it means that some events are sent again.
func saveWatermark(dir string, released uint64) error {
	b, err := json.Marshal(watermark{released})
	if err != nil {
		return err
	}
	tmp := filepath.Join(dir, watermarkFile+".tmp")
	if err := os.WriteFile(tmp, b, 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, filepath.Join(dir, watermarkFile))
}

// loadWatermark returns 0 when there is none or it cannot be read.
func loadWatermark(dir string) uint64 {
	b, err := os.ReadFile(filepath.Join(dir, watermarkFile))
	var w watermark
	if err != nil || fleet.DecodeStrict(b, &w) != nil {
		return 0
	}
	return w.Released
}

// close leaves the journal to the next worker.
func (j *journal) close() error {
	var errs []error
	for _, s := range j.segments {
		errs = append(errs, s.f.Close())
	}
	return errors.Join(append(errs, j.lock.Close())...)
}

// remove deletes the journal, which is empty.
func (j *journal) remove() error {
	err := os.RemoveAll(j.dir)
	return errors.Join(err, j.close())
}

// deleteSegments closes and deletes the files.
func deleteSegments(segments []*segment) error {
	var errs []error
	for _, s := range segments {
		errs = append(errs, s.f.Close())
		if err := os.Remove(s.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
