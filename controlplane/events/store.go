// Package events is a member's event store: attack events in SQLite, and the projection that fills it from JetStream and
// acknowledges to the nodes what is durable.
//
// It owns the event files (one for each UTC day of event time), the watermark of each node's boot, and the stream's
// configuration. It does not mask and does not decide who may read: callers pass the tenant. It does not copy events from
// other members: what a member never got is counted, and the majority that released it holds it.
//
// JetStream is a buffer only: when it is away, or lost its disk, nodes keep what was not acknowledged and send it again.
// When the member's disk fails, nothing is acknowledged, and writing is tried again until it works.
package events

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/observability"
)

// Options configure a Store.
type Options struct {
	// Dir holds the files; it is created.
	Dir string
	// Retention is how long events are kept; 90 days if 0. Whole days are deleted.
	Retention time.Duration
	// Telemetry receives metrics and logs; none if nil.
	Telemetry *observability.Telemetry
	// Now is the clock; time.Now if nil.
	Now func() time.Time
}

// DefaultRetention is how long events are kept unless the options say otherwise.
const DefaultRetention = 90 * 24 * time.Hour

func (o Options) withDefaults() Options {
	if o.Retention == 0 {
		o.Retention = DefaultRetention
	}
	if o.Telemetry == nil {
		o.Telemetry = observability.Discard()
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return o
}

func (o Options) validate() error {
	if o.Dir == "" {
		return fleet.Invalid("dir", "the event store needs a directory")
	}
	if o.Retention < 24*time.Hour {
		return fleet.Invalid("retention", "events would be kept for %s: give at least a day", o.Retention)
	}
	return nil
}

// Store is an open event store. All methods may be called concurrently.
type Store struct {
	o   Options
	met instruments

	// writing serialises Put and Skip.
	writing sync.Mutex
	marks   *marks
	tail    tail

	// files guards days: queries hold it shared, so that no file is deleted under them.
	files  sync.RWMutex
	days   map[string]*day
	pruned string
	closed bool
}

// Open opens or creates the store in o.Dir, and deletes days that are past retention.
func Open(o Options) (*Store, error) {
	o = o.withDefaults()
	if err := o.validate(); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("open event store: %w", err)
	}
	s := &Store{o: o, days: map[string]*day{}, met: newInstruments(o.Telemetry)}
	s.tail.skipped = s.met.tailSkipped
	names, err := dayNames(o.Dir)
	if err != nil {
		return nil, fmt.Errorf("open event store: %w", err)
	}
	for _, name := range names {
		if s.days[name], err = openDay(o.Dir, name); err != nil {
			return nil, errors.Join(fmt.Errorf("open event store: %w", err), s.Close())
		}
	}
	if s.marks, err = openMarks(o.Dir, o.Now); err != nil {
		return nil, errors.Join(fmt.Errorf("open event store: %w", err), s.Close())
	}
	if err := s.prune(context.Background()); err != nil {
		return nil, errors.Join(fmt.Errorf("open event store: %w", err), s.Close())
	}
	gaugeGaps(o.Telemetry, s.marks)
	return s, nil
}

// Put stores events and returns when they are synced to disk. Events that are held already are left as they are. A batch
// that spans days is one transaction a day; after an error, put the whole batch again.
func (s *Store) Put(ctx context.Context, evs []fleet.Event) error {
	s.writing.Lock()
	defer s.writing.Unlock()
	began := s.o.Now()
	if err := s.prune(ctx); err != nil {
		s.o.Telemetry.Logger.WarnContext(ctx, "cannot delete events that are past retention", "err", err)
	}
	byDay := map[string][]fleet.Event{}
	spans := make([]Span, 0, len(evs))
	for _, ev := range evs {
		if err := ev.Validate(); err != nil {
			return fmt.Errorf("put event: %w", err)
		}
		name := dayOf(ev.Time)
		byDay[name] = append(byDay[name], ev)
		spans = append(spans, Span{ev.NodeID, ev.Boot, ev.Seq, ev.Seq})
	}
	var fresh []fleet.Event
	for _, name := range slices.Sorted(maps.Keys(byDay)) {
		d, err := s.day(name)
		if err != nil {
			return fmt.Errorf("put events: %w", err)
		}
		added, err := d.put(ctx, byDay[name])
		if err != nil {
			return fmt.Errorf("put events of %s: %w", name, err)
		}
		fresh = append(fresh, added...)
	}
	// The watermark follows the events: after a crash between the two it is behind, and a resend moves it.
	if _, err := s.marks.cover(ctx, spans); err != nil {
		return fmt.Errorf("put events: %w", err)
	}
	s.met.stored(ctx, len(fresh), len(evs)-len(fresh), s.o.Now().Sub(began))
	s.tail.publish(ctx, fresh)
	return nil
}

// Span is a range of sequence numbers of one boot of a node, From and To included.
type Span struct {
	Node     fleet.NodeID
	Boot     string
	From, To uint64
}

// Skip moves watermarks over sequence numbers that this store will never hold, and returns how many those are.
func (s *Store) Skip(ctx context.Context, spans ...Span) (uint64, error) {
	s.writing.Lock()
	defer s.writing.Unlock()
	n, err := s.marks.cover(ctx, spans)
	if err != nil {
		return 0, fmt.Errorf("skip events: %w", err)
	}
	return n, nil
}

// Through returns the watermark of a node's boot: every sequence number up to it is stored or skipped. It is 0 for a boot
// never heard of.
func (s *Store) Through(ctx context.Context, node fleet.NodeID, boot string) (uint64, error) {
	n, err := s.marks.through(ctx, node, boot)
	if err != nil {
		return 0, fmt.Errorf("read watermark: %w", err)
	}
	return n, nil
}

// Close closes the files and ends every subscription.
func (s *Store) Close() error {
	s.writing.Lock()
	defer s.writing.Unlock()
	s.files.Lock()
	defer s.files.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	s.tail.close()
	var errs []error
	for _, d := range s.days {
		if d != nil {
			errs = append(errs, d.db.Close())
		}
	}
	if s.marks != nil {
		errs = append(errs, s.marks.db.Close())
	}
	return errors.Join(errs...)
}

// day returns the file of a day, created if need be.
func (s *Store) day(name string) (*day, error) {
	s.files.Lock()
	defer s.files.Unlock()
	if s.closed {
		return nil, fleet.NewError(fleet.ErrUnavailable, "", "the event store is closed")
	}
	if d := s.days[name]; d != nil {
		return d, nil
	}
	d, err := openDay(s.o.Dir, name)
	if err != nil {
		return nil, err
	}
	s.days[name] = d
	return d, nil
}

// prune deletes the days that are past retention, at most once a day.
func (s *Store) prune(ctx context.Context) error {
	s.files.Lock()
	defer s.files.Unlock()
	now := s.o.Now()
	if s.closed || s.pruned == dayOf(now) {
		return nil
	}
	oldest := dayOf(now.Add(-s.o.Retention))
	var errs []error
	for name, d := range s.days {
		if name < oldest {
			errs = append(errs, d.remove())
			delete(s.days, name)
		}
	}
	errs = append(errs, s.marks.prune(ctx))
	s.pruned = dayOf(now)
	return errors.Join(errs...)
}

func decodeBody(body []byte) (fleet.Event, error) {
	var ev fleet.Event
	if err := json.Unmarshal(body, &ev); err != nil {
		return fleet.Event{}, fleet.NewError(fleet.ErrCorrupt, "event", "stored event is damaged: %v", err)
	}
	return ev, nil
}
