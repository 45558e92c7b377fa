package events

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/observability"
)

// Peers are the other members.
type Peers interface {
	// Others lists them.
	Others() []fleet.MemberID
	// Held is how far a member holds each boot, one page of it: of the boots after the last of the page before.
	Held(ctx context.Context, member fleet.MemberID, after Held) ([]Held, error)
	// Part returns what a member has of a span, at most PartNumbers sequence numbers of it from its beginning.
	Part(ctx context.Context, member fleet.MemberID, s Span) (Part, error)
}

// RepairOptions configure a Repair; Store and Peers are required.
type RepairOptions struct {
	Store *Store
	Peers Peers
	// Every is the time between two rounds; 15 s if 0.
	Every time.Duration
	// Pause follows each part that is fetched, so that a repair leaves room for the events of now; 50 ms if 0.
	Pause time.Duration
	// Telemetry receives metrics and logs; none if nil.
	Telemetry *observability.Telemetry
}

const (
	repairEvery = 15 * time.Second
	repairPause = 50 * time.Millisecond
	// compareRounds is how many rounds there are from one complete comparison with the other members to the next.
	compareRounds = 20
	// quietFor is how long a boot must have been silent at the other member to be compared: what is on its way is not missing.
	quietFor = time.Minute
	// maxBatchRepair bounds the gaps that one round looks at.
	maxBatchRepair = 1000
)

// Repair gets events that this member missed, or lost with its disk, from the other members: what a node released without
// this member, and what others hold of boots that fell silent.
type Repair struct {
	o        RepairOptions
	repaired func(ctx context.Context, n int)
	missing  atomic.Uint64
	// compared is how far each silent boot of other members was compared.
	compared map[bootKey]uint64
}

// NewRepair returns a Repair; Run starts it.
func NewRepair(o RepairOptions) (*Repair, error) {
	if o.Store == nil || o.Peers == nil {
		return nil, fleet.Invalid("repair", "store and peers are both needed")
	}
	if o.Every == 0 {
		o.Every = repairEvery
	}
	if o.Pause == 0 {
		o.Pause = repairPause
	}
	if o.Telemetry == nil {
		o.Telemetry = observability.Discard()
	}
	total := o.Telemetry.Counter("edgefleet_events_repaired_total")
	r := &Repair{o: o, compared: map[bootKey]uint64{}, repaired: func(ctx context.Context, n int) { total.Add(ctx, int64(n)) }}
	o.Telemetry.Gauge("edgefleet_events_missing", func() []observability.Sample {
		return []observability.Sample{{Value: float64(r.missing.Load())}}
	})
	return r, nil
}

// Run repairs until ctx ends. A store that all members share has nothing to repair.
func (r *Repair) Run(ctx context.Context) error {
	if r.o.Store.Shared() {
		return nil
	}
	failing, complete := false, false
	for round := 0; ctx.Err() == nil; round++ {
		var err error
		if round%compareRounds == 0 || !complete {
			complete, err = r.compare(ctx)
		}
		if fillErr := r.fill(ctx); fillErr != nil {
			err = fillErr
		}
		if err != nil && !failing && ctx.Err() == nil {
			r.o.Telemetry.Logger.WarnContext(ctx, "events that this member lacks cannot all be fetched from the others yet", "err", err)
		}
		failing = err != nil
		rest(ctx, r.o.Every)
	}
	return nil
}

// compare notes what other members hold of silent boots and this one does not. It is not complete while there are
// boots that speak still.
func (r *Repair) compare(ctx context.Context) (complete bool, err error) {
	complete = true
	for _, other := range r.o.Peers.Others() {
		all, failed := r.compareWith(ctx, other)
		if failed != nil {
			err = fmt.Errorf("compare events with member %s: %w", other, failed)
		}
		complete = complete && all
	}
	return complete, err
}

func (r *Repair) compareWith(ctx context.Context, other fleet.MemberID) (complete bool, err error) {
	complete = true
	for after := (Held{}); ; {
		page, err := r.o.Peers.Held(ctx, other, after)
		if err != nil {
			return false, err
		}
		for _, h := range page {
			k := bootKey{h.Node, h.Boot}
			if fleet.ValidateID("node_id", h.Node) != nil || fleet.ValidateID("boot", h.Boot) != nil || h.Through <= r.compared[k] {
				continue
			}
			if r.o.Store.o.Now().Sub(h.Updated) < quietFor {
				complete = false
				continue
			}
			if err := r.o.Store.note(ctx, Span{h.Node, h.Boot, 1, h.Through}); err != nil {
				return false, err
			}
			r.compared[k] = h.Through
		}
		if len(page) < heldPage {
			return complete, nil
		}
		after = page[len(page)-1]
	}
}

// fill goes through the gaps, the oldest first.
func (r *Repair) fill(ctx context.Context) error {
	gaps, total, err := r.o.Store.gaps(ctx, maxBatchRepair)
	if err != nil {
		return err
	}
	r.missing.Store(total)
	if len(r.o.Peers.Others()) == 0 {
		return nil // nobody to ask: it may be that others are not known yet
	}
	var failed error
	for _, gap := range gaps {
		for gap.From <= gap.To && ctx.Err() == nil {
			part := Span{gap.Node, gap.Boot, gap.From, min(gap.To, gap.From+PartNumbers-1)}
			if err := r.fillPart(ctx, part); err != nil {
				failed = err
				break
			}
			if err := r.o.Store.closeGap(ctx, part); err != nil {
				return err
			}
			gap.From = part.To + 1
			r.missing.Store(r.missing.Load() - min(r.missing.Load(), part.To-part.From+1))
			rest(ctx, r.o.Pause)
		}
	}
	return failed
}

// fillPart returns nil when all events of the part are here, or every other member was asked.
func (r *Repair) fillPart(ctx context.Context, part Span) error {
	if held, err := r.o.Store.has(ctx, part); err != nil || held == part.To-part.From+1 {
		return err // it came by itself
	}
	var failed error
	for _, other := range r.o.Peers.Others() {
		for from := part.From; from <= part.To && ctx.Err() == nil; {
			got, err := r.o.Peers.Part(ctx, other, Span{part.Node, part.Boot, from, part.To})
			if err == nil && (got.Through < from || got.Through > part.To) {
				err = fleet.NewError(fleet.ErrCorrupt, "", "it answers up to number %d when asked for %d to %d", got.Through, from, part.To)
			}
			if err == nil {
				err = r.keep(ctx, got.Events, Span{part.Node, part.Boot, from, got.Through})
			}
			if err != nil {
				failed = fmt.Errorf("events %d to %d of node %s from member %s: %w", from, part.To, part.Node, other, err)
				break
			}
			from = got.Through + 1
		}
		held, err := r.o.Store.has(ctx, part)
		if err != nil || held == part.To-part.From+1 {
			return err
		}
	}
	return failed
}

// keep stores events that another member sent, if they are what was asked for.
func (r *Repair) keep(ctx context.Context, evs []fleet.Event, asked Span) error {
	now, kept := r.o.Store.o.Now(), evs[:0:0]
	for _, ev := range evs {
		if ev.NodeID != asked.Node || ev.Boot != asked.Boot || ev.Seq < asked.From || ev.Seq > asked.To {
			return fleet.NewError(fleet.ErrCorrupt, "event", "event %.100q is not one that was asked for", string(ev.ID))
		}
		if ev.Time.Before(now.Add(-r.o.Store.o.Retention)) || ev.Time.After(now.Add(maxAhead)) {
			continue // past retention here
		}
		kept = append(kept, ev)
	}
	if len(kept) == 0 {
		return nil
	}
	if err := r.o.Store.Put(ctx, kept); err != nil {
		return err
	}
	r.repaired(ctx, len(kept))
	return nil
}
