package bus

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/edgefleet/edgefleet/fleet"
)

const (
	// heldPrefix begins the subjects on which members ask each other for a blob; nodes may not use them.
	heldPrefix = "held."
	// passTimeout is how long other members have to answer, passed how many questions a member has to them at one time, and
	// queued how many requests of nodes wait for the answers.
	passTimeout = 500 * time.Millisecond
	passed      = 256
	queued      = 4096
	// learnedBytes bounds the blobs of others that a member keeps for the nodes that come next.
	learnedBytes = 16 << 20
)

// others asks the other members for blobs: while much changes, followers do not derive every tree that the leader made a
// head of, and a request of a node comes to any member. All nodes ask for the same blobs at one moment: the others are
// asked once, and what they said is kept for a while.
type others struct {
	bus *Bus

	mu sync.Mutex
	// waiting are the requests by what they ask for, answered together.
	waiting map[string][]*nats.Msg
	queue   int
	// learned are whole blobs; kept has them by age, the oldest first.
	learned map[fleet.Digest][]byte
	kept    []fleet.Digest
	size    int
}

func newOthers(b *Bus) *others {
	return &others{bus: b, waiting: map[string][]*nats.Msg{}, learned: map[fleet.Digest][]byte{}}
}

// blob answers a node from lib, or from what another member says.
func (o *others) blob(ctx context.Context, m *nats.Msg, lib Library) {
	if !answerable(m, anyInbox) {
		return
	}
	reply, err := chunk(m, "blob.", lib)
	if errors.Is(err, fleet.ErrNotFound) && o.bus.clustered() {
		if reply, err = chunk(m, "blob.", o); errors.Is(err, fleet.ErrNotFound) {
			o.ask(ctx, m, err)
			return
		}
	}
	if err != nil {
		refuse(m, err)
		return
	}
	_ = m.RespondMsg(reply)
}

// ask has m answered when the others did; refusal is what it gets if they did not.
func (o *others) ask(ctx context.Context, m *nats.Msg, refusal error) {
	what := m.Subject + " " + string(m.Data)
	o.mu.Lock()
	defer o.mu.Unlock()
	first := o.waiting[what] == nil
	if o.queue >= queued || first && len(o.waiting) >= passed {
		refuse(m, refusal)
		return
	}
	o.waiting[what] = append(o.waiting[what], m)
	o.queue++
	if first {
		go o.passOn(ctx, m, what, refusal) // ends soon after Serve
	}
}

// passOn asks the others for what m asks for, and answers all who want to know the same.
func (o *others) passOn(ctx context.Context, m *nats.Msg, what string, refusal error) {
	ctx, cancel := context.WithTimeout(ctx, passTimeout)
	defer cancel()
	hex := strings.TrimPrefix(m.Subject, "blob.")
	held, err := o.bus.conn.RequestWithContext(ctx, heldPrefix+hex, m.Data)
	o.mu.Lock()
	if err == nil {
		o.learn(fleet.Digest("sha256:"+hex), held)
	}
	answered := o.waiting[what]
	delete(o.waiting, what)
	o.queue -= len(answered)
	o.mu.Unlock()
	for _, m := range answered {
		if err != nil {
			refuse(m, refusal)
			continue
		}
		reply := nats.NewMsg(m.Reply)
		reply.Header, reply.Data = held.Header, held.Data
		_ = m.RespondMsg(reply)
	}
}

// learn keeps a blob that came whole.
func (o *others) learn(d fleet.Digest, m *nats.Msg) {
	if _, known := o.learned[d]; known || m.Header.Get(fleet.BlobSizeHeader) != strconv.Itoa(len(m.Data)) || fleet.DigestOf(m.Data) != d {
		return
	}
	o.learned[d], o.kept, o.size = m.Data, append(o.kept, d), o.size+len(m.Data)
	for o.size > learnedBytes {
		oldest := o.kept[0]
		o.kept, o.size = o.kept[1:], o.size-len(o.learned[oldest])
		delete(o.learned, oldest)
	}
}

// Blob returns a blob that another member said, else ErrNotFound.
func (o *others) Blob(d fleet.Digest) ([]byte, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if b, ok := o.learned[d]; ok {
		return b, nil
	}
	return nil, fleet.NewError(fleet.ErrNotFound, "digest", "blob %s is not held by this member, and no other answers for it (now)", d.Short())
}

// held answers another member, if the blob is here.
func (o *others) held(m *nats.Msg, lib Library) {
	if !answerable(m, anyInbox) {
		return
	}
	reply, err := chunk(m, heldPrefix, lib)
	if errors.Is(err, fleet.ErrNotFound) {
		reply, err = chunk(m, heldPrefix, o)
	}
	if err == nil {
		_ = m.RespondMsg(reply)
	}
}

// clustered reports whether there are other members.
func (b *Bus) clustered() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.routes) > 0
}
