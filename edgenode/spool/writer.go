package spool

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"

	"github.com/edgefleet/edgefleet/fleet"
)

const (
	// segmentBytes is the size at which a segment is closed.
	segmentBytes = 4 << 20
	// batchEvents and batchBytes bound what one sync commits.
	batchEvents = 512
	batchBytes  = 1 << 20
)

// file is an open segment.
type file interface {
	WriteAt(b []byte, off int64) (int, error)
	ReadAt(b []byte, off int64) (int, error)
	Truncate(size int64) error
	Sync() error
	Close() error
}

// fileSystem creates segments; tests put failing disks here.
type fileSystem interface {
	// create makes an empty file, durably named; an existing one is emptied.
	create(path string) (file, error)
}

type diskFiles struct{}

func (diskFiles) create(path string) (file, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syncDir(filepath.Dir(path)); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// readOnly is a segment of an earlier boot.
type readOnly struct{ *os.File }

// write commits queued events in batches: one write and one sync for all that waits.
func (s *Spool) write(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			s.flush(context.WithoutCancel(ctx))
			return
		case ev := <-s.queue:
			s.commit(ctx, s.collect(ev))
		}
	}
}

// flush commits what is queued and returns.
func (s *Spool) flush(ctx context.Context) {
	for {
		select {
		case ev := <-s.queue:
			s.commit(ctx, s.collect(ev))
		default:
			return
		}
	}
}

// collect takes what is queued behind ev, without waiting for more.
func (s *Spool) collect(ev fleet.Event) []fleet.Event {
	batch := append(make([]fleet.Event, 0, 64), ev)
	for len(batch) < batchEvents {
		select {
		case ev := <-s.queue:
			batch = append(batch, ev)
		default:
			return batch
		}
	}
	return batch
}

// commit makes a batch durable, in several syncs if it is large. Afterwards each event is spooled or dropped.
func (s *Spool) commit(ctx context.Context, batch []fleet.Event) {
	s.writing.Lock()
	defer s.writing.Unlock()
	for len(batch) > 0 {
		r := s.encode(ctx, &batch)
		if len(r.entries) == 0 {
			continue
		}
		if err := s.persist(r.bytes); err != nil {
			s.refuse(ctx, r, err)
			continue
		}
		if s.diskFailing {
			s.diskFailing = false
			s.log().InfoContext(ctx, "the spool writes to disk again")
		}
		s.index(r)
		s.nudge()
	}
}

// records are encoded events that are not on disk yet; offsets count from the start of bytes.
type records struct {
	bytes   []byte
	entries []entry
	tenants []fleet.TenantID
}

// encode numbers and encodes events from the front of batch, up to batchBytes; what cannot be kept is dropped.
func (s *Spool) encode(ctx context.Context, batch *[]fleet.Event) records {
	s.mu.Lock()
	free := s.o.MaxBytes - s.size()
	seq := s.own.last
	s.mu.Unlock()
	var r records
	for len(*batch) > 0 && len(r.bytes) < batchBytes {
		ev := (*batch)[0].Clip()
		*batch = (*batch)[1:]
		tenant := ev.Tenant
		ev.NodeID, ev.Boot, ev.Seq = s.o.Node, s.boot, seq+1
		ev.ID = fleet.NewEventID(ev.NodeID, ev.Boot, ev.Seq)
		payload, err := json.Marshal(ev)
		if err != nil || ev.Validate() != nil || len(payload) > maxPayload {
			if fleet.ValidateID("tenant", tenant) != nil {
				tenant = ""
			}
			s.drop(ctx, tenant, DropInvalid)
			continue
		}
		size := headerBytes + len(payload)
		if int64(len(r.bytes)+size) > free {
			s.drop(ctx, tenant, DropFull)
			continue
		}
		seq++
		r.entries = append(r.entries, entry{offset: uint32(len(r.bytes)), size: uint32(size)})
		r.tenants = append(r.tenants, tenant)
		r.bytes = appendRecord(r.bytes, seq, payload)
	}
	return r
}

// persist appends b to the active segment and syncs it. After an error nothing of b counts as written and the segment is
// left alone: after a failed sync nobody knows what the disk holds.
func (s *Spool) persist(b []byte) error {
	j := s.own
	if j.active != nil && j.active.size >= segmentBytes {
		s.activate(nil)
	}
	if j.active == nil {
		// After a failure this is the name of a file without a single synced record; it is emptied.
		path := segmentPath(j.dir, j.last+1)
		f, err := s.fs.create(path)
		if err != nil {
			return err
		}
		s.activate(&segment{first: j.last + 1, path: path, f: f})
	}
	seg := j.active
	_, err := seg.f.WriteAt(b, seg.size)
	if err == nil {
		err = seg.f.Sync()
	}
	if err != nil {
		// Best effort: should the records stay in the file, those of the next segment replace them when it is read.
		err = errors.Join(err, seg.f.Truncate(seg.size))
		if len(seg.entries) == 0 {
			err = errors.Join(err, seg.f.Close())
		}
		s.activate(nil)
	}
	return err
}

// activate ends the active segment and makes seg the next one; none if nil.
func (s *Spool) activate(seg *segment) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.own.active = seg
}

// refuse drops what could not be written.
func (s *Spool) refuse(ctx context.Context, r records, err error) {
	for _, t := range r.tenants {
		s.drop(ctx, t, DropDisk)
	}
	if !s.diskFailing {
		s.diskFailing = true
		s.log().ErrorContext(ctx, "the spool cannot write to disk: attack events are dropped until it can", "dir", s.own.dir, "err", err)
	}
}

// index makes synced records visible to the sender and the ledger.
func (s *Spool) index(r records) {
	s.mu.Lock()
	defer s.mu.Unlock()
	j := s.own
	seg := j.active
	if len(seg.entries) == 0 {
		j.segments = append(j.segments, seg)
	}
	for i, e := range r.entries {
		e.offset += uint32(seg.size)
		e.account = s.ledger.of(r.tenants[i])
		e.account.Detected++
		e.account.Spooled++
		seg.entries = append(seg.entries, e)
	}
	seg.size += int64(len(r.bytes))
	j.last += uint64(len(r.entries))
}

// size is what all segments take, those of other live workers included; the caller holds the mutex.
func (s *Spool) size() int64 {
	n := s.foreign
	for _, j := range s.journals {
		n += j.size()
	}
	return n
}
