package bus

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/edgefleet/edgefleet/fleet"
)

const (
	// heldPrefix begins the subjects on which members ask each other for a blob; nodes may not use them.
	heldPrefix = "held."
	// passTimeout is how long other members have to answer, passed how many requests wait for them at one time.
	passTimeout = 500 * time.Millisecond
	passed      = 256
)

// blob answers a node. A member that does not hold the blob asks the others for it: while much changes, followers do not
// derive every tree that the leader made a head of, and the server prefers the member that the node is connected to.
func (b *Bus) blob(ctx context.Context, m *nats.Msg, lib Library, waiting chan struct{}) {
	if !answerable(m, anyInbox) {
		return
	}
	reply, err := chunk(m, "blob.", lib)
	if err == nil {
		_ = m.RespondMsg(reply)
		return
	}
	if !errors.Is(err, fleet.ErrNotFound) || !b.clustered() {
		refuse(m, err)
		return
	}
	select {
	case waiting <- struct{}{}:
	default:
		refuse(m, err)
		return
	}
	go func() { // ends soon after Serve
		defer func() { <-waiting }()
		b.passOn(ctx, m, err)
	}()
}

// passOn asks the other members; without an answer the node gets refusal.
func (b *Bus) passOn(ctx context.Context, m *nats.Msg, refusal error) {
	ctx, cancel := context.WithTimeout(ctx, passTimeout)
	defer cancel()
	held, err := b.conn.RequestWithContext(ctx, heldPrefix+strings.TrimPrefix(m.Subject, "blob."), m.Data)
	if err != nil {
		refuse(m, refusal)
		return
	}
	reply := nats.NewMsg(m.Reply)
	reply.Header, reply.Data = held.Header, held.Data
	_ = m.RespondMsg(reply)
}

// held answers another member, if the blob is here.
func held(m *nats.Msg, lib Library) {
	if !answerable(m, anyInbox) {
		return
	}
	if reply, err := chunk(m, heldPrefix, lib); err == nil {
		_ = m.RespondMsg(reply)
	}
}

// clustered reports whether there are other members.
func (b *Bus) clustered() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.routes) > 0
}
