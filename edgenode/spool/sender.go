package spool

import (
	"context"
	"errors"
	"os"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/edgefleet/edgefleet/fleet"
)

const (
	// inFlight is how many messages wait for JetStream at a time.
	inFlight = 256
	// window is how far a boot is sent ahead of its watermark.
	window = 4096
	// publishTimeout bounds one Publish.
	publishTimeout = 10 * time.Second
	// minBackoff and maxBackoff bound the pause after a failed Publish.
	minBackoff = 100 * time.Millisecond
	maxBackoff = 10 * time.Second
	// maxStalls bounds the doubling of ResendAfter while nobody acknowledges.
	maxStalls = 3
)

// item is one event to send.
type item struct {
	j        *journal
	seq      uint64
	released uint64
	f        file
	entry    entry
}

// send publishes spooled events in order, and again what is not released in time. JetStream's acknowledgement alone
// releases nothing: it may lose its disk.
func (s *Spool) send(ctx context.Context, p Publisher) {
	backoff := time.Duration(0)
	for ctx.Err() == nil {
		items, wait := s.pick(ctx, s.o.Now())
		if len(items) == 0 {
			s.rest(ctx, wait, s.wake)
			continue
		}
		if err := s.publish(ctx, p, items); err == nil {
			backoff = 0
			continue
		} else if backoff == 0 && ctx.Err() == nil {
			s.log().WarnContext(ctx, "events stay in the spool: publishing fails", "err", err)
		}
		backoff = min(max(2*backoff, minBackoff), maxBackoff)
		s.rest(ctx, backoff, nil)
	}
}

// rest waits for the time, a wake-up or the end.
func (s *Spool) rest(ctx context.Context, d time.Duration, wake <-chan struct{}) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	case <-wake:
	}
}

// pick chooses what to send now; when there is nothing, wait is the time until a resend may be due.
func (s *Spool) pick(ctx context.Context, now time.Time) (items []item, wait time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	wait = s.o.ResendAfter
	resent := int64(0)
	for _, j := range s.journals {
		if due := s.rewind(j, now); due > 0 {
			wait = min(wait, due)
		}
		ahead := uint64(window)
		if j.stalls > 0 {
			ahead = inFlight
		}
		for ; len(items) < inFlight && j.next <= min(j.last, j.released+ahead); j.next++ {
			if seg, e := j.find(j.next); e != nil {
				items = append(items, item{j, j.next, j.released, seg.f, *e})
			}
			if j.next <= j.highest {
				resent++
			}
			j.highest = max(j.highest, j.next)
		}
	}
	s.met.resent(ctx, resent)
	return items, wait
}

// rewind sets j.next back to the watermark when nothing was released for too long; otherwise it returns the time left, or
// 0 when nothing is on its way.
func (s *Spool) rewind(j *journal, now time.Time) time.Duration {
	if j.next <= j.released+1 {
		j.next = j.released + 1
		j.progress = now
		return 0
	}
	patience := s.o.ResendAfter << max(0, min(j.stalls-1, maxStalls))
	if left := patience - now.Sub(j.progress); left > 0 {
		return left
	}
	j.next, j.progress = j.released+1, now
	j.stalls++
	return patience
}

// publish sends items concurrently and waits for all; those that failed are sent again.
func (s *Spool) publish(ctx context.Context, p Publisher, items []item) error {
	ctx, cancel := context.WithTimeout(ctx, publishTimeout)
	defer cancel()
	errs := make([]error, len(items))
	var wg sync.WaitGroup
	for i, it := range items {
		wg.Go(func() { errs[i] = s.publishOne(ctx, p, it) })
	}
	wg.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, it := range items {
		if errs[i] != nil {
			it.j.next = min(it.j.next, it.seq)
		}
	}
	if i := slices.IndexFunc(errs, func(err error) bool { return err != nil }); i >= 0 {
		return errs[i]
	}
	return nil
}

func (s *Spool) publishOne(ctx context.Context, p Publisher, it item) error {
	b := make([]byte, it.entry.size)
	_, err := it.f.ReadAt(b, int64(it.entry.offset))
	if errors.Is(err, os.ErrClosed) {
		return nil // released and deleted meanwhile
	}
	seq, payload, ok := decodeRecord(b)
	if err != nil || !ok || seq != it.seq {
		s.lose(ctx, it)
		return nil
	}
	return p.Publish(ctx, fleet.NewEventID(s.o.Node, it.j.boot, seq), message(it.released, payload))
}

// message is the JSON of a fleet.EventMessage around an event that is encoded already.
func message(released uint64, event []byte) []byte {
	b := make([]byte, 0, len(event)+48)
	b = append(b, `{"released":`...)
	b = strconv.AppendUint(b, released, 10)
	b = append(b, `,"event":`...)
	b = append(b, event...)
	return append(b, '}')
}

// lose accounts for a record that cannot be read back.
func (s *Spool) lose(ctx context.Context, it item) {
	s.mu.Lock()
	_, e := it.j.find(it.seq)
	if e == nil || it.seq <= it.j.released {
		s.mu.Unlock()
		return
	}
	e.size = 0
	e.account.Spooled--
	e.account.Dropped[DropDamaged]++
	s.mu.Unlock()
	s.met.drop(ctx, DropDamaged)
	s.log().ErrorContext(ctx, "a spooled event is damaged on disk and lost", "boot", it.j.boot, "seq", it.seq)
	s.settle(ctx, it.j, func() uint64 { return it.j.released })
}

// Ack takes a member's acknowledgement. An event is released when more than half of the voters hold it; what is fully
// released is deleted. Acknowledgements of unknown boots are ignored.
func (s *Spool) Ack(a fleet.EventAck) {
	if a.Voters < 1 || fleet.ValidateID("member", a.Member) != nil {
		return
	}
	s.mu.Lock()
	i := slices.IndexFunc(s.journals, func(j *journal) bool { return j.boot == a.Boot })
	if i < 0 {
		s.mu.Unlock()
		return
	}
	j := s.journals[i]
	s.mu.Unlock()
	s.settle(context.Background(), j, func() uint64 { return j.acknowledge(a) })
	s.nudge()
}

// settle releases j up to the watermark that is computed under the mutex, and deletes files outside it: a slow disk must
// not hold up Append.
func (s *Spool) settle(ctx context.Context, j *journal, watermark func() uint64) {
	s.mu.Lock()
	i := slices.Index(s.journals, j)
	if i < 0 {
		s.mu.Unlock()
		return
	}
	before := j.released
	done, released := j.release(watermark())
	if j.released > before {
		j.progress, j.stalls = s.o.Now(), 0
	}
	drained := j != s.own && j.released == j.last
	if drained {
		s.journals = slices.Delete(s.journals, i, i+1)
	}
	s.mu.Unlock()
	s.met.release(ctx, released)
	err := deleteSegments(done)
	if drained {
		err = errors.Join(err, j.remove())
	}
	if err != nil {
		s.log().WarnContext(ctx, "cannot delete what was released from the spool", "boot", j.boot, "err", err)
	}
}

// save writes the watermarks that moved.
func (s *Spool) save(ctx context.Context) {
	type mark struct {
		dir      string
		released uint64
	}
	var marks []mark
	s.mu.Lock()
	for _, j := range s.journals {
		if j.released > j.saved {
			j.saved = j.released
			marks = append(marks, mark{j.dir, j.released})
		}
	}
	s.mu.Unlock()
	for _, m := range marks {
		if err := saveWatermark(m.dir, m.released); err != nil && !errors.Is(err, os.ErrNotExist) {
			s.log().WarnContext(ctx, "cannot save the spool's watermark: events may be sent again after a restart", "err", err)
		}
	}
}
