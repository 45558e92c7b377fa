package bus

import (
	"context"
	"encoding/json"
	"errors"
	"strconv"
	"strings"

	"github.com/nats-io/nats.go"

	"github.com/edgefleet/edgefleet/fleet"
)

// memberQueue is the queue group of members: one of them answers a request.
const memberQueue = "members"

// anyInbox begins the reply subjects of nodes and members; the subject of a blob does not say which node asks.
const anyInbox = "_INBOX"

// maxMessage bounds what is decoded from a node, maxBlobRequest a request for a blob.
const (
	maxMessage     = 256 << 10
	maxBlobRequest = 1 << 10
)

// Library is what a member answers nodes from. It is nil-safe to ask for what is not there: ErrNotFound.
type Library interface {
	// HeadSet returns all heads of the node, signed, and its group key: ErrSealed on a member without the KEK.
	HeadSet(n fleet.NodeID) (fleet.HeadSet, error)
	// Blob returns a blob of the current or previous trees.
	Blob(d fleet.Digest) ([]byte, error)
}

// Serve answers nodes until ctx ends: polls and blobs from the library, and hands each report to report.
func (b *Bus) Serve(ctx context.Context, lib Library, report func(fleet.Report)) error {
	var subs []*nats.Subscription
	others := newOthers(b)
	defer func() {
		for _, s := range subs {
			_ = s.Unsubscribe()
		}
	}()
	for subj, h := range map[string]nats.MsgHandler{
		"poll.*": func(m *nats.Msg) { b.poll(m, lib) },
		"blob.*": func(m *nats.Msg) { others.blob(ctx, m, lib) },
	} {
		s, err := b.conn.QueueSubscribe(subj, memberQueue, h)
		if err != nil {
			return err
		}
		subs = append(subs, s)
	}
	for subj, h := range map[string]nats.MsgHandler{
		// Every member hears every report, so that whoever leads knows who is alive.
		"st.*":           func(m *nats.Msg) { b.report(m, "st.", report) },
		heldPrefix + "*": func(m *nats.Msg) { others.held(m, lib) },
	} {
		s, err := b.conn.Subscribe(subj, h)
		if err != nil {
			return err
		}
		subs = append(subs, s)
	}
	<-ctx.Done()
	return nil
}

// report decodes a report; the subject, which the server checked, says who sent it.
func (b *Bus) report(m *nats.Msg, prefix string, report func(fleet.Report)) (fleet.NodeID, bool) {
	node := fleet.NodeID(strings.TrimPrefix(m.Subject, prefix))
	var r fleet.Report
	if len(m.Data) > maxMessage {
		return node, false
	}
	if err := fleet.DecodeStrict(m.Data, &r); err != nil || r.Node != node {
		b.log.Warn("report refused", "node", node, "err", err)
		return node, false
	}
	report(r)
	return node, true
}

// answerable reports whether the sender asks for the answer in an inbox of its own. Members may publish anything, so
// that a node must not choose where: with $JS.API.STREAM.DELETE as reply subject, a member would delete a stream for it.
func answerable(m *nats.Msg, inbox string) bool { return strings.HasPrefix(m.Reply, inbox) }

func (b *Bus) poll(m *nats.Msg, lib Library) {
	if !answerable(m, fleet.NodeID(strings.TrimPrefix(m.Subject, "poll.")).InboxPrefix()+".") {
		return
	}
	node, ok := b.report(m, "poll.", func(r fleet.Report) {
		// A poll is answered by one member; the leader hears of it like of any report.
		if data, err := json.Marshal(r); err == nil {
			_ = b.conn.Publish(r.Node.ReportSubject(), data)
		}
	})
	if !ok {
		return
	}
	set, err := lib.HeadSet(node)
	if err != nil {
		b.log.Debug("poll not answered", "node", node, "err", err)
		refuse(m, err)
		return
	}
	data, err := json.Marshal(set)
	if err != nil {
		refuse(m, err)
		return
	}
	_ = m.Respond(data)
}

// blobs is where a blob is taken from.
type blobs interface {
	Blob(d fleet.Digest) ([]byte, error)
}

// chunk is the answer to a request for a part of a blob.
func chunk(m *nats.Msg, prefix string, lib blobs) (*nats.Msg, error) {
	var r fleet.BlobRequest
	d := fleet.Digest("sha256:" + strings.TrimPrefix(m.Subject, prefix))
	if len(m.Data) > maxBlobRequest {
		return nil, fleet.NewError(fleet.ErrTooLarge, "request", "a request of %d bytes; the limit is %d", len(m.Data), maxBlobRequest)
	}
	if err := errors.Join(d.Validate(), fleet.DecodeStrict(m.Data, &r)); err != nil {
		return nil, err
	}
	data, err := lib.Blob(d)
	if err == nil && (r.Offset < 0 || r.Offset > int64(len(data))) {
		err = fleet.Invalid("offset", "offset %d is outside of the blob of %d bytes", r.Offset, len(data))
	}
	if err != nil {
		return nil, err
	}
	reply := nats.NewMsg(m.Reply)
	reply.Header.Set(fleet.BlobSizeHeader, strconv.Itoa(len(data)))
	reply.Data = data[r.Offset:min(int64(len(data)), r.Offset+fleet.BlobChunkBytes)]
	return reply, nil
}

func refuse(m *nats.Msg, err error) {
	reply := nats.NewMsg(m.Reply)
	reply.Header.Set(fleet.BlobErrorHeader, fleet.KindOf(err).Name)
	_ = m.RespondMsg(reply)
}
