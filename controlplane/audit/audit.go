// Package audit is a member's hold on the audit chain: sealed segments as files on its disk, and queries and exports
// over them and over the recent entries in the state.
//
// It owns the files, not the decision what is sealed (leader/audit) nor what an entry says (fsm). Files are immutable
// and named by their digest; one that is missing or damaged is fetched from another member. With the disk full, or the
// other members away, segments stay missing here and are tried again; their entries stay in the state, or with the
// members that hold them, and a query that needs one that nobody answers for is ErrUnavailable and says which.
package audit

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/edgefleet/edgefleet/controlplane/state"
	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/fleet/audit"
	"github.com/edgefleet/edgefleet/observability"
)

// Options configure a Log.
type Options struct {
	Dir   string
	State *state.Store
	// Fetch gets the file of a segment from another member; it is verified here.
	Fetch func(ctx context.Context, s fleet.AuditSegment) ([]byte, error)
	// Write stores a file durably, whole or not at all; default: to a temporary file, synced and renamed.
	Write     func(path string, b []byte) error
	Telemetry *observability.Telemetry
	// Retry is the pause before missing segments are tried again, and one that is there is read; default 10 s.
	Retry time.Duration
}

// Log is the audit chain as one member holds it.
type Log struct {
	o Options

	mu sync.Mutex
	// held are the segments on this disk, by their first entry.
	held map[uint64]*index
	// recent are the entries of segments that were read last.
	recent []cached
	scrub  uint64
}

type cached struct {
	from    uint64
	entries []fleet.AuditEntry
}

// maxRecent bounds the segments whose entries are kept decoded, for the next page of a list.
const maxRecent = 2

// Open opens the directory, which it makes if need be.
func Open(o Options) (*Log, error) {
	if o.Write == nil {
		o.Write = writeFile
	}
	if o.Retry == 0 {
		o.Retry = 10 * time.Second
	}
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("open audit segments: %w", err)
	}
	left, err := filepath.Glob(filepath.Join(o.Dir, "*.tmp"))
	if err != nil {
		return nil, fmt.Errorf("open audit segments: %w", err)
	}
	for _, f := range left {
		_ = os.Remove(f) // of a write that did not end; it is written anew
	}
	l := &Log{o: o, held: map[uint64]*index{}}
	l.instrument()
	return l, nil
}

func (l *Log) path(s fleet.AuditSegment) string {
	return filepath.Join(l.o.Dir, s.Digest.Hex()+".seg")
}

// Run keeps every segment of the state on this disk, until ctx ends.
func (l *Log) Run(ctx context.Context) error {
	said := ""
	for {
		ws := l.o.State.Watch(state.AuditSegments)
		err := l.Hold(ctx)
		if ctx.Err() != nil {
			return nil
		}
		switch {
		case err == nil:
			said = ""
		case err.Error() != said:
			said = err.Error()
			l.o.Telemetry.Logger.WarnContext(ctx, "audit segments are missing on this member, trying again", "err", err)
		}
		wait, cancel := context.WithTimeout(ctx, l.o.Retry)
		_ = ws.WatchCtx(wait) // or the pause is over
		cancel()
		if ctx.Err() != nil {
			return nil
		}
	}
}

// Hold brings the segments of the state to this disk that are not there, once; and reads one that is.
func (l *Log) Hold(ctx context.Context) error {
	names, err := os.ReadDir(l.o.Dir)
	if err != nil {
		return fmt.Errorf("list audit segments: %w", err)
	}
	there := make(map[string]bool, len(names))
	for _, n := range names {
		there[n.Name()] = true
	}
	var errs []error
	v := l.o.State.Read()
	l.forget(v, there)
	for s := range v.AuditSegments(0) {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if l.index(s) != nil {
			continue
		}
		if err := l.take(ctx, v, s, there[filepath.Base(l.path(s))]); err != nil {
			errs = append(errs, err)
		}
		if len(errs) == maxErrors {
			break
		}
	}
	l.checkOne(v)
	return errors.Join(errs...)
}

// maxErrors ends a round: what keeps four segments from being written keeps the others too.
const maxErrors = 4

// forget drops what is held no more: files that went away, and segments of a state that was replaced.
func (l *Log) forget(v *state.View, there map[string]bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for from, x := range l.held {
		s, ok := v.AuditSegmentAt(from)
		if !ok || s.Digest != x.digest || !there[filepath.Base(l.path(s))] {
			delete(l.held, from)
			l.recent = slices.DeleteFunc(l.recent, func(c cached) bool { return c.from == from })
		}
	}
}

// checkOne reads one of the held segments, the next each time, so that damage is found while others can repair it.
func (l *Log) checkOne(v *state.View) {
	s, ok := v.AuditSegmentAt(l.scrub)
	if ok {
		l.scrub = s.To + 1
	}
	if !ok || s.To+1 > v.AuditSealed() {
		l.scrub = 1
	}
	if !ok || l.index(s) == nil {
		return
	}
	if b, err := os.ReadFile(l.path(s)); err != nil || audit.CheckSegment(s, b) != nil {
		l.drop(s)
	}
}

// drop forgets a segment whose file is damaged or gone, with the index, by which it would be taken for good again.
func (l *Log) drop(s fleet.AuditSegment) {
	_ = os.Remove(l.indexPath(s)) // it is there or not
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.held, s.From)
	l.recent = slices.DeleteFunc(l.recent, func(c cached) bool { return c.from == s.From })
}

// index is what is known of a held segment; nil if it is not held.
func (l *Log) index(s fleet.AuditSegment) *index {
	l.mu.Lock()
	defer l.mu.Unlock()
	if x := l.held[s.From]; x != nil && x.digest == s.Digest {
		return x
	}
	return nil
}

// Holds reports whether the file of a segment is on this disk.
func (l *Log) Holds(s fleet.AuditSegment) bool { return l.index(s) != nil }

// take makes a segment held: from its file, else from the state's entries, else from another member.
func (l *Log) take(ctx context.Context, v *state.View, s fleet.AuditSegment, there bool) error {
	if there {
		if x := l.loadIndex(s); x != nil {
			l.keep(s, x, nil)
			return nil
		}
		if b, err := os.ReadFile(l.path(s)); err == nil {
			if entries, err := audit.OpenSegment(s, b); err == nil {
				l.indexed(s, entries)
				return nil
			}
		}
	}
	entries, file := l.fromState(v, s)
	if file == nil {
		var err error
		if file, err = l.o.Fetch(ctx, s); err != nil {
			return fmt.Errorf("fetch audit entries %d to %d: %w", s.From, s.To, err)
		}
		if entries, err = audit.OpenSegment(s, file); err != nil {
			return fmt.Errorf("audit entries %d to %d: %w", s.From, s.To, err)
		}
	}
	if err := l.o.Write(l.path(s), file); err != nil {
		return fmt.Errorf("store audit entries %d to %d: %w", s.From, s.To, err)
	}
	l.indexed(s, entries)
	return nil
}

// fromState are the entries that are still in the state, and the file made of them; nil if they are not there, or are
// others than were sealed and signed: they need not be read back from the file for that.
func (l *Log) fromState(v *state.View, s fleet.AuditSegment) ([]fleet.AuditEntry, []byte) {
	entries := v.AuditAfter("", s.From-1, int(s.To-s.From+1)) //nolint:gosec // at most MaxAuditSegment
	if len(entries) == 0 || entries[0].Seq != s.From {
		return nil, nil
	}
	made, file, err := audit.SealSlowly(s.Checkpoint.Cluster, entries, func() { time.Sleep(time.Millisecond) })
	if err != nil || made.Digest != s.Digest || made.Checkpoint.Root != s.Checkpoint.Root {
		return nil, nil
	}
	return entries, file
}

func (l *Log) indexed(s fleet.AuditSegment, entries []fleet.AuditEntry) {
	x := newIndex(s, entries)
	_ = x.save(l.indexPath(s)) // it is made again from the segment
	l.keep(s, x, entries)
}

func (l *Log) keep(s fleet.AuditSegment, x *index, entries []fleet.AuditEntry) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.held[s.From] = x
	if entries == nil {
		return
	}
	if len(l.recent) == maxRecent {
		l.recent = slices.Delete(l.recent, 0, 1)
	}
	l.recent = append(l.recent, cached{s.From, entries})
}

// Held lists the segments on this disk whose entries are still in the state.
func (l *Log) Held() []fleet.Digest {
	held := []fleet.Digest{}
	v := l.o.State.Read()
	for s := range v.AuditSegments(v.AuditFirst()) {
		if !s.Dropped && l.Holds(s) {
			held = append(held, s.Digest)
		}
	}
	return held
}

// File is the file of a segment for another member; ErrNotFound if it is not held, or not by that digest.
func (l *Log) File(d fleet.Digest) ([]byte, error) {
	for s := range l.o.State.Read().AuditSegments(0) {
		if s.Digest != d || !l.Holds(s) {
			continue
		}
		b, err := os.ReadFile(l.path(s))
		if err == nil {
			err = audit.CheckSegment(s, b)
		}
		if err == nil {
			return b, nil
		}
		l.drop(s)
	}
	return nil, fleet.NewError(fleet.ErrNotFound, "digest", "this member does not hold the audit segment %s", d.Short())
}

// read returns the entries of a segment, of which the file is repaired if need be.
func (l *Log) read(ctx context.Context, s fleet.AuditSegment) ([]fleet.AuditEntry, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	l.mu.Lock()
	for _, c := range l.recent {
		if c.from == s.From && l.held[s.From] != nil && l.held[s.From].digest == s.Digest {
			l.mu.Unlock()
			return c.entries, nil
		}
	}
	l.mu.Unlock()
	b, err := os.ReadFile(l.path(s))
	if err == nil {
		var entries []fleet.AuditEntry
		if entries, err = audit.ReadSegment(s, b); err == nil {
			l.indexed(s, entries)
			return entries, nil
		}
	}
	l.drop(s)
	if got, fetchErr := l.o.Fetch(ctx, s); fetchErr == nil {
		if entries, err := audit.OpenSegment(s, got); err == nil {
			if l.o.Write(l.path(s), got) == nil {
				l.indexed(s, entries)
			}
			return entries, nil
		}
	}
	why := "its file is damaged here"
	if errors.Is(err, os.ErrNotExist) {
		why = "its file is not here"
	}
	return nil, fleet.NewError(fleet.ErrUnavailable, "audit", "the audit segment with the entries %d to %d cannot be read: %s, and no other member that answers has it (%s)", s.From, s.To, why, strings.TrimPrefix(l.path(s), l.o.Dir+"/"))
}

// writeFile writes a file durably: it is there whole or not at all.
func writeFile(path string, b []byte) error {
	tmp, err := os.OpenFile(path+".tmp", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = tmp.Write(b)
	if err = errors.Join(err, tmp.Sync(), tmp.Close()); err == nil {
		err = os.Rename(path+".tmp", path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(path+".tmp"))
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
