package events

import (
	"errors"
	"strings"
	"time"

	"github.com/edgefleet/edgefleet/fleet"
)

// reason is why a message was rejected.
type reason string

const (
	rejectedSize    reason = "size"
	rejectedFormat  reason = "format"
	rejectedNode    reason = "node"
	rejectedInvalid reason = "invalid"
	rejectedTime    reason = "time"
)

var reasons = []reason{rejectedSize, rejectedFormat, rejectedNode, rejectedInvalid, rejectedTime}

// maxAhead is how far a node's clock may be ahead; more would fill the store with files of the future.
const maxAhead = 24 * time.Hour

// nodeOf is the node that may publish on subject, as the members' authenticator holds.
func nodeOf(subject string) fleet.NodeID {
	node, _ := strings.CutPrefix(subject, fleet.NodeID("").EventSubject())
	return fleet.NodeID(node)
}

// decode reads a message that node published. The event in it is within all limits, of that node, and of a time that the
// store keeps.
func decode(node fleet.NodeID, data []byte, now time.Time, retention time.Duration) (fleet.EventMessage, reason, error) {
	var m fleet.EventMessage
	if len(data) > fleet.MaxEventBytes {
		return m, rejectedSize, fleet.NewError(fleet.ErrTooLarge, "event", "an event of %d bytes; the limit is %d", len(data), fleet.MaxEventBytes)
	}
	if err := fleet.DecodeStrict(data, &m); err != nil {
		return m, rejectedFormat, err
	}
	if m.Event.NodeID != node {
		return m, rejectedNode, fleet.NewError(fleet.ErrDenied, "node_id", "node %s sent an event of node %.63q", node, string(m.Event.NodeID))
	}
	if err := m.Event.Validate(); err != nil {
		return m, rejectedInvalid, err
	}
	if m.Released >= m.Event.Seq {
		return m, rejectedInvalid, fleet.Invalid("released", "event %d is sent although the node released up to %d", m.Event.Seq, m.Released)
	}
	if t := m.Event.Time; t.After(now.Add(maxAhead)) || t.Before(now.Add(-retention)) {
		return m, rejectedTime, fleet.Invalid("time", "an event of %s is past retention or of the future: check the node's clock", t.UTC().Format(time.DateOnly))
	}
	return m, "", nil
}

var errNoIdentity = errors.New("the message does not say which event it is")

// identify finds which event a rejected message was, so that the node's watermark can pass it: from the message id that
// the node gave, if that names the node itself.
func identify(node fleet.NodeID, messageID string) (Span, error) {
	n, boot, seq, err := fleet.ParseEventID(fleet.EventID(messageID))
	if err != nil || n != node || seq == 0 {
		return Span{}, errNoIdentity
	}
	return Span{n, boot, seq, seq}, nil
}
