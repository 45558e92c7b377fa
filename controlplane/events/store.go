// Package events is the event store: attack events in a member's own SQLite or in a PostgreSQL that all members share, and
// the projection that fills it from JetStream and acknowledges to the nodes what is durable.
//
// It owns the event files or tables (one for each UTC day of event time), the watermark of each node's boot, and the
// stream's configuration. It does not mask and does not decide who may read: callers pass the tenant. What a
// member never got, or lost with its disk, a Repair fetches from the other members.
//
// JetStream is a buffer only: when it is away, or lost its disk, nodes keep what was not acknowledged and send it again.
// When the member's disk fails or PostgreSQL is away, nothing is acknowledged, and writing is tried again until it works.
package events

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/observability"
)

// Options configure a Store.
type Options struct {
	// Dir holds the files of a store that is this member's own; it is created.
	Dir string
	// Postgres, if not nil, is a PostgreSQL that all members share instead.
	Postgres *Postgres
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
	if o.Dir == "" && o.Postgres == nil {
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
	engine  engine
	marks   *marks
	tail    tail
	pruned  string
	closed  bool
}

// Open opens or creates the store, and deletes days that are past retention. A PostgreSQL need not be there yet: until it
// is, every call says that it is away.
func Open(o Options) (*Store, error) {
	o = o.withDefaults()
	if err := o.validate(); err != nil {
		return nil, err
	}
	s := &Store{o: o, met: newInstruments(o.Telemetry)}
	s.tail.skipped = s.met.tailSkipped
	if err := s.openEngine(); err != nil {
		return nil, fmt.Errorf("open event store: %w", err)
	}
	if !s.Shared() {
		if err := s.prune(context.Background()); err != nil {
			return nil, errors.Join(fmt.Errorf("open event store: %w", err), s.Close())
		}
	}
	gaugeGaps(o.Telemetry, s.marks)
	return s, nil
}

func (s *Store) openEngine() error {
	if s.o.Postgres != nil {
		pg, err := openPostgres(*s.o.Postgres, s.o.Telemetry.Logger)
		if err != nil {
			return err
		}
		s.marks = &marks{db: pg.db, now: s.o.Now, lock: lockMarks, gaps: map[bootKey]gap{}}
		pg.opened = s.marks.read
		s.engine = pg
		return nil
	}
	e, err := openSQLite(s.o.Dir)
	if err != nil {
		return err
	}
	s.engine = e
	if s.marks, err = openMarks(s.o.Dir, s.o.Now); err != nil {
		return errors.Join(err, e.close())
	}
	return nil
}

// Shared reports whether all members share one store outside of them: what it has committed is safe by itself, and counts
// for all members.
func (s *Store) Shared() bool { return s.o.Postgres != nil }

// Put stores events and returns when they are synced to disk. Events that are held already are left as they are. A batch
// that spans days may be several transactions; after an error, put the whole batch again.
func (s *Store) Put(ctx context.Context, evs []fleet.Event) error {
	s.writing.Lock()
	defer s.writing.Unlock()
	began := s.o.Now()
	spans := make([]Span, 0, len(evs))
	for _, ev := range evs {
		if err := ev.Validate(); err != nil {
			return fmt.Errorf("put event: %w", err)
		}
		spans = append(spans, Span{ev.NodeID, ev.Boot, ev.Seq, ev.Seq})
	}
	if err := s.engine.ready(ctx); err != nil {
		return fmt.Errorf("put events: %w", err)
	}
	if err := s.prune(ctx); err != nil {
		s.o.Telemetry.Logger.WarnContext(ctx, "cannot delete events that are past retention", "err", err)
	}
	fresh, err := s.engine.put(ctx, evs)
	if err != nil {
		return fmt.Errorf("put events: %w", s.engine.fail(err))
	}
	// The watermark follows the events: after a crash between the two it is behind, and a resend moves it.
	if _, err := s.marks.cover(ctx, spans, false); err != nil {
		return fmt.Errorf("put events: %w", s.engine.fail(err))
	}
	s.met.stored(ctx, len(fresh), len(evs)-len(fresh), s.o.Now().Sub(began))
	if s.Shared() {
		fresh = s.tail.unseen(evs) // another member may have stored them first
	}
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
	return s.skip(ctx, spans, false)
}

// Miss is Skip of what other members hold: it is remembered until a Repair has fetched it from them.
func (s *Store) Miss(ctx context.Context, spans ...Span) (uint64, error) {
	return s.skip(ctx, spans, true)
}

func (s *Store) skip(ctx context.Context, spans []Span, missed bool) (uint64, error) {
	s.writing.Lock()
	defer s.writing.Unlock()
	if err := s.engine.ready(ctx); err != nil {
		return 0, fmt.Errorf("skip events: %w", err)
	}
	n, err := s.marks.cover(ctx, spans, missed)
	if err != nil {
		return 0, fmt.Errorf("skip events: %w", s.engine.fail(err))
	}
	return n, nil
}

// Through returns the watermark of a node's boot: every sequence number up to it is stored or skipped. It is 0 for a boot
// never heard of.
func (s *Store) Through(ctx context.Context, node fleet.NodeID, boot string) (uint64, error) {
	if err := s.engine.ready(ctx); err != nil {
		return 0, fmt.Errorf("read watermark: %w", err)
	}
	n, err := s.marks.through(ctx, node, boot)
	if err != nil {
		return 0, fmt.Errorf("read watermark: %w", s.engine.fail(err))
	}
	return n, nil
}

// Close closes the files or connections and ends every subscription.
func (s *Store) Close() error {
	s.writing.Lock()
	defer s.writing.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	s.tail.close()
	errs := []error{s.engine.close()}
	if !s.Shared() {
		errs = append(errs, s.marks.db.Close())
	}
	return errors.Join(errs...)
}

// prune deletes the days that are past retention, at most once a day; the caller holds writing, or is alone.
func (s *Store) prune(ctx context.Context) error {
	now := s.o.Now()
	if s.closed || s.pruned == dayOf(now) {
		return nil
	}
	err := errors.Join(s.engine.prune(ctx, dayOf(now.Add(-s.o.Retention))), s.marks.prune(ctx))
	s.pruned = dayOf(now)
	return err
}

func decodeBody(body []byte) (fleet.Event, error) {
	var ev fleet.Event
	if err := json.Unmarshal(body, &ev); err != nil {
		return fleet.Event{}, fleet.NewError(fleet.ErrCorrupt, "event", "stored event is damaged: %v", err)
	}
	return ev, nil
}
