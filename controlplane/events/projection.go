package events

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/observability"
)

// ProjectionOptions configure a Projection; all fields but the last two are required.
type ProjectionOptions struct {
	Store *Store
	// Member is this member; its durable consumer is named after it.
	Member fleet.MemberID
	// Voters is the number of voters in the cluster now; while it is below 1, nothing is acknowledged.
	Voters    func() int
	JetStream jetstream.JetStream
	// Publish sends an acknowledgement by plain NATS; one that is lost comes again when the node sends again.
	Publish func(subject string, data []byte) error
	// Telemetry receives metrics and logs; none if nil.
	Telemetry *observability.Telemetry
	// Now is the clock; time.Now if nil.
	Now func() time.Time
}

const (
	// maxBatch bounds one transaction.
	maxBatch = 500
	// gatherFor is how long a batch waits for more after a message.
	gatherFor = 5 * time.Millisecond
	// fetchWait is how long one fetch stays open.
	fetchWait = time.Second
	// ackWait is when JetStream delivers again what was not stored.
	ackWait = 30 * time.Second
	// maxPending is how many messages may be delivered and not stored.
	maxPending = 4 * maxBatch
	// checkEvery is how often the stream is looked at while nothing goes wrong.
	checkEvery = 15 * time.Second
	// requestTimeout bounds one request to JetStream's API.
	requestTimeout = 2 * time.Second
	// minPause and maxPause bound the wait after a failure.
	minPause = 250 * time.Millisecond
	maxPause = 10 * time.Second
)

// Projection moves events from the stream to the store, and acknowledges them to their nodes.
type Projection struct {
	o   ProjectionOptions
	met instruments
}

// NewProjection returns a Projection; Run starts it.
func NewProjection(o ProjectionOptions) (*Projection, error) {
	if o.Telemetry == nil {
		o.Telemetry = observability.Discard()
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Store == nil || o.Voters == nil || o.JetStream == nil || o.Publish == nil {
		return nil, fleet.Invalid("projection", "store, voters, jetstream and publish are all needed")
	}
	if err := fleet.ValidateID("member", o.Member); err != nil {
		return nil, err
	}
	return &Projection{o: o, met: newInstruments(o.Telemetry)}, nil
}

// Run projects until ctx ends. It makes the stream and its consumer whenever they are missing, at the start or later.
func (p *Projection) Run(ctx context.Context) error {
	log := p.o.Telemetry.Logger
	pause, failing := minPause, false
	for ctx.Err() == nil {
		cons, err := p.consumer(ctx)
		if err == nil {
			if failing {
				log.InfoContext(ctx, "the stream of events is back")
			}
			pause, failing = minPause, false
			err = p.consume(ctx, cons)
		}
		if err == nil || ctx.Err() != nil {
			continue
		}
		if !failing {
			log.WarnContext(ctx, "the stream of events is away: nodes keep their events", "err", err)
		}
		failing = true
		rest(ctx, pause)
		pause = min(2*pause, maxPause)
	}
	return nil
}

func rest(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// consumer returns this member's durable consumer, made anew if it or the stream is missing.
func (p *Projection) consumer(ctx context.Context) (jetstream.Consumer, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	if err := ensureStream(ctx, p.o.JetStream, p.o.Voters()); err != nil {
		return nil, err
	}
	cons, err := p.o.JetStream.CreateOrUpdateConsumer(ctx, Stream, jetstream.ConsumerConfig{
		Durable:       "store-" + string(p.o.Member),
		DeliverPolicy: jetstream.DeliverAllPolicy,
		AckPolicy:     jetstream.AckExplicitPolicy,
		AckWait:       ackWait,
		MaxAckPending: maxPending,
	})
	if err != nil {
		return nil, fmt.Errorf("ensure consumer of events: %w", err)
	}
	return cons, nil
}

// consume stores messages until something fails, or it is time to look at the stream again.
func (p *Projection) consume(ctx context.Context, cons jetstream.Consumer) error {
	for until := p.o.Now().Add(checkEvery); ctx.Err() == nil && p.o.Now().Before(until); {
		batch, err := cons.Fetch(maxBatch, jetstream.FetchMaxWait(fetchWait))
		if err != nil {
			return fmt.Errorf("fetch events: %w", err)
		}
		for more := true; more; {
			var msgs []jetstream.Msg
			if msgs, more = gather(ctx, batch.Messages()); len(msgs) > 0 {
				p.project(ctx, msgs)
			}
		}
		if err := batch.Error(); err != nil && ctx.Err() == nil {
			return fmt.Errorf("fetch events: %w", err)
		}
	}
	return nil
}

// gather takes what arrives together; more is false when the fetch or ctx has ended.
func gather(ctx context.Context, from <-chan jetstream.Msg) (msgs []jetstream.Msg, more bool) {
	var idle <-chan time.Time
	for len(msgs) < maxBatch {
		select {
		case <-ctx.Done():
			return nil, false
		case m, ok := <-from:
			if !ok {
				return msgs, false
			}
			msgs = append(msgs, m)
			if idle == nil {
				idle = time.After(gatherFor)
			}
		case <-idle:
			return msgs, true
		}
	}
	return msgs, true
}

// project stores one batch, however long the disk takes to let it, and acknowledges it: first to JetStream, then to the
// nodes.
func (p *Projection) project(ctx context.Context, msgs []jetstream.Msg) {
	b := p.read(ctx, msgs)
	for pause := minPause; ; pause = min(2*pause, maxPause) {
		err := p.store(ctx, b)
		if err == nil {
			break
		}
		if ctx.Err() != nil {
			return
		}
		p.o.Telemetry.Logger.ErrorContext(ctx, "cannot store events: nodes keep them", "events", len(b.events), "err", err)
		rest(ctx, pause)
	}
	for _, m := range b.stored {
		_ = m.Ack() // if it is lost, JetStream delivers again and the store recognises it
	}
	for _, m := range b.rejected {
		_ = m.Term()
	}
	for _, k := range b.order {
		if err := p.acknowledge(ctx, k); err != nil && ctx.Err() == nil {
			p.o.Telemetry.Logger.WarnContext(ctx, "cannot acknowledge events", "node", k.node, "err", err)
		}
	}
}

// batch is what a group of messages asks for.
type batch struct {
	events           []fleet.Event
	stored, rejected []jetstream.Msg
	// order lists the boots that are touched, released what their nodes released already.
	order    []bootKey
	released map[bootKey]uint64
	// skipped are the sequence numbers of rejected messages.
	skipped []Span
}

func (b *batch) touch(k bootKey, released uint64) {
	if _, ok := b.released[k]; !ok {
		b.order = append(b.order, k)
	}
	b.released[k] = max(b.released[k], released)
}

func (p *Projection) read(ctx context.Context, msgs []jetstream.Msg) batch {
	b := batch{released: map[bootKey]uint64{}}
	for _, m := range msgs {
		node := nodeOf(m.Subject())
		em, why, err := decode(node, m.Data(), p.o.Now(), p.o.Store.o.Retention)
		if err == nil {
			b.events = append(b.events, em.Event)
			b.stored = append(b.stored, m)
			b.touch(bootKey{node, em.Event.Boot}, em.Released)
			continue
		}
		p.met.rejected(ctx, why)
		if len(b.rejected) == 0 { // one line a batch: a node may send many
			p.o.Telemetry.Logger.WarnContext(ctx, "rejected a message on the stream of events", "node", node, "reason", string(why), "err", err)
		}
		b.rejected = append(b.rejected, m)
		if span, err := identify(node, m.Headers().Get(jetstream.MsgIDHeader)); err == nil {
			b.skipped = append(b.skipped, span)
			b.touch(bootKey{span.Node, span.Boot}, 0)
		}
	}
	return b
}

func (p *Projection) store(ctx context.Context, b batch) error {
	if len(b.events) > 0 {
		if err := p.o.Store.Put(ctx, b.events); err != nil {
			return err
		}
	}
	if len(b.skipped) > 0 {
		if _, err := p.o.Store.Skip(ctx, b.skipped...); err != nil {
			return err
		}
	}
	var missed []Span
	for _, k := range b.order {
		through, err := p.o.Store.Through(ctx, k.node, k.boot)
		if err != nil {
			return err
		}
		if r := b.released[k]; r > through {
			missed = append(missed, Span{k.node, k.boot, 1, r})
		}
	}
	if len(missed) == 0 {
		return nil
	}
	n, err := p.o.Store.Miss(ctx, missed...)
	p.met.missed(ctx, n)
	return err
}

// acknowledge tells a node how far this member holds a boot, also when the batch brought nothing new: that is how a node
// that sends again learns of an acknowledgement that it lost.
func (p *Projection) acknowledge(ctx context.Context, k bootKey) error {
	voters := p.o.Voters()
	if p.o.Store.Shared() {
		voters = 1 // it is the majority by itself
	}
	if voters < 1 {
		return errors.New("the number of voters is not known yet")
	}
	through, err := p.o.Store.Through(ctx, k.node, k.boot)
	if err != nil {
		return err
	}
	data, err := json.Marshal(fleet.EventAck{Member: p.o.Member, Voters: voters, Boot: k.boot, Through: through})
	if err != nil {
		return err
	}
	return p.o.Publish(k.node.AckSubject(), data)
}
