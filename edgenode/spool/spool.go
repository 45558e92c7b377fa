// Package spool keeps a node's attack events until a majority of the control plane's members hold them.
//
// It owns the spool directory: one sub-directory for each boot of a worker, in it append-only segments of checked records.
// An event is written and synced to disk before it is sent, and leaves the disk only when more than half of the voters
// acknowledged it. Every event that Append takes is accounted for: stored, spooled, or dropped for a counted reason.
//
// It does not mask: what reaches Append is masked already. It knows neither NATS nor the members: it sends through a
// Publisher and is told of acknowledgements by Ack.
//
// While the publisher or the members are away, events stay on disk up to Options.MaxBytes and later ones are dropped and
// counted. While the disk fails, events are dropped and counted, and writing is tried again with each batch. A worker that
// died leaves its directory behind; the next one sends it under its own boot and then deletes it.
package spool

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/observability"
)

// Options configure a Spool.
type Options struct {
	// Dir is the spool root, shared by the workers of one host; this worker writes to Dir/<boot>/.
	Dir string
	// Node is the node whose events these are.
	Node fleet.NodeID
	// Boot names this worker's life; if its directory exists, a suffix is added: a sequence number is never used twice.
	Boot string
	// MaxBytes bounds all boots' segments together; 256 MiB if 0.
	MaxBytes int64
	// ResendAfter is how long the spool waits for progress before it sends again; 10 s if 0.
	ResendAfter time.Duration
	// Telemetry receives metrics and logs; none if nil.
	Telemetry *observability.Telemetry
	// Now is the clock; time.Now if nil.
	Now func() time.Time
}

func (o Options) withDefaults() Options {
	if o.MaxBytes == 0 {
		o.MaxBytes = 256 << 20
	}
	if o.ResendAfter == 0 {
		o.ResendAfter = 10 * time.Second
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
		return fleet.Invalid("dir", "the spool needs a directory")
	}
	if o.MaxBytes < minBytes {
		return fleet.Invalid("max_bytes", "a spool of %d bytes; give at least %d", o.MaxBytes, minBytes)
	}
	if o.ResendAfter < 0 {
		return fleet.Invalid("resend_after", "a negative time")
	}
	if err := fleet.ValidateID("node", o.Node); err != nil {
		return err
	}
	return fleet.ValidateID("boot", o.Boot)
}

const (
	// minBytes is the smallest spool: a segment and a batch.
	minBytes = 1 << 20
	// queueLength bounds the events between Append and the writer.
	queueLength = 4096
	// adoptEvery is how often Run looks for directories that other workers left.
	adoptEvery = 5 * time.Second
	// saveEvery is how often watermarks are written down.
	saveEvery = time.Second
)

// Publisher hands one message to the control plane.
type Publisher interface {
	// Publish returns nil when JetStream acknowledged the message, and an error when it did not or is away. It is called
	// concurrently; the same id may come again. The payload is an encoded fleet.EventMessage and is not kept.
	Publish(ctx context.Context, id fleet.EventID, payload []byte) error
}

// Spool is an open spool directory. All methods may be called concurrently.
type Spool struct {
	o    Options
	boot string
	fs   fileSystem
	met  instruments

	queue chan fleet.Event
	// closing guards closed: Append holds it shared, so that no event enters the queue after the last flush.
	closing sync.RWMutex
	closed  bool

	// writing serialises writers: Run's goroutine, and Close's last flush.
	writing     sync.Mutex
	diskFailing bool

	mu     sync.Mutex
	ledger ledger
	// own is this worker's journal, the last of journals; the others are drained.
	own      *journal
	journals []*journal
	// foreign is the size of directories that other workers have open.
	foreign int64
	// sent wakes the sender.
	wake chan struct{}
}

// Open creates this worker's directory and takes over those that earlier workers left.
func Open(o Options) (*Spool, error) {
	return open(o, diskFiles{})
}

func open(o Options, fs fileSystem) (*Spool, error) {
	o = o.withDefaults()
	if err := o.validate(); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("open spool: %w", err)
	}
	s := &Spool{o: o, fs: fs, queue: make(chan fleet.Event, queueLength), wake: make(chan struct{}, 1), ledger: ledger{}}
	boot, lock, err := claim(o.Dir, o.Boot)
	if err != nil {
		return nil, fmt.Errorf("open spool: %w", err)
	}
	s.boot = boot
	s.own = &journal{dir: filepath.Join(o.Dir, boot), boot: boot, lock: lock, acks: map[fleet.MemberID]fleet.EventAck{}}
	s.journals = []*journal{s.own}
	s.met = newInstruments(s)
	if err := s.adopt(context.Background()); err != nil {
		// What cannot be read now is tried again while running; it must not keep this worker from recording.
		s.log().Warn("cannot take over the spool of an earlier worker", "err", err)
	}
	return s, nil
}

// Boot is the boot that this worker's events carry: Options.Boot, or with a suffix if that was used before.
func (s *Spool) Boot() string { return s.boot }

// Append takes an event; it never blocks and never fails. It sets the node, the boot, the sequence number and the id, and
// clips the event to its limits. The caller must not change the event's slices afterwards. An event that cannot be kept is
// dropped and counted by reason.
func (s *Spool) Append(ev fleet.Event) {
	s.closing.RLock()
	defer s.closing.RUnlock()
	if s.closed {
		s.drop(context.Background(), ev.Tenant, DropClosed)
		return
	}
	select {
	case s.queue <- ev:
	default:
		s.drop(context.Background(), ev.Tenant, DropQueue)
	}
}

// Run writes queued events and sends spooled ones until ctx ends; what is queued then is written before it returns.
func (s *Spool) Run(ctx context.Context, p Publisher) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { s.write(ctx); return nil })
	g.Go(func() error { s.send(ctx, p); return nil })
	g.Go(func() error { s.tend(ctx); return nil })
	return g.Wait()
}

// tend saves watermarks and adopts what other workers left.
func (s *Spool) tend(ctx context.Context) {
	save, adopt := time.NewTicker(saveEvery), time.NewTicker(adoptEvery)
	defer save.Stop()
	defer adopt.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-save.C:
			s.save(ctx)
		case <-adopt.C:
			if err := s.adopt(ctx); err != nil {
				s.log().WarnContext(ctx, "cannot look for spools of earlier workers", "err", err)
			}
		}
	}
}

// Close writes what is still queued and releases the directory; call it after Run has returned. Unreleased events stay on
// disk for the next worker.
func (s *Spool) Close() error {
	s.closing.Lock()
	if s.closed {
		s.closing.Unlock()
		return nil
	}
	s.closed = true
	s.closing.Unlock()
	ctx := context.Background()
	s.flush(ctx)
	s.save(ctx)
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	for _, j := range s.journals {
		if j == s.own && j.released == j.last {
			errs = append(errs, j.remove())
			continue
		}
		errs = append(errs, j.close())
	}
	s.journals = nil
	return errors.Join(errs...)
}

func (s *Spool) log() *slog.Logger { return s.o.Telemetry.Logger }

// nudge wakes the sender.
func (s *Spool) nudge() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}
