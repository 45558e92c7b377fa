package bus_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/edgefleet/edgefleet/controlplane/bus"
	"github.com/edgefleet/edgefleet/fleet"
)

// library holds a few blobs.
type library struct {
	err error

	mu    sync.Mutex
	blobs map[fleet.Digest][]byte
	asked []fleet.NodeID
}

func (l *library) drop(d fleet.Digest) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.blobs, d)
}

func (l *library) HeadSet(n fleet.NodeID) (fleet.HeadSet, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.asked = append(l.asked, n)
	return fleet.HeadSet{Members: []fleet.Endpoints{{Member: "m1", API: string("for-" + n)}}}, l.err
}

func (l *library) Blob(d fleet.Digest) ([]byte, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if b, ok := l.blobs[d]; ok {
		return b, nil
	}
	return nil, fleet.NewError(fleet.ErrNotFound, "digest", "not held")
}

func (l *library) add(b []byte) fleet.Digest {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.blobs == nil {
		l.blobs = map[fleet.Digest][]byte{}
	}
	d := fleet.DigestOf(b)
	l.blobs[d] = b
	return d
}

// serve answers nodes until the test ends, and returns the reports that arrive.
func serve(t *testing.T, b *bus.Bus, l *library) <-chan fleet.Report {
	t.Helper()
	reports := make(chan fleet.Report, 64)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- b.Serve(ctx, l, func(r fleet.Report) { reports <- r }) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	eventually(t, "serve", func() error {
		m, err := b.Conn().Request("blob.00", []byte("{}"), 100*time.Millisecond)
		if err == nil && m.Header.Get(fleet.BlobErrorHeader) == "" {
			return errors.New("no answer")
		}
		return err
	})
	return reports
}

func TestReportsAreHeardFromTheirNodeOnly(t *testing.T) {
	w := newWorld(t)
	b, _ := w.open("m1")
	reports := serve(t, b, &library{})
	n := w.connect(b, "n1")
	good := fleet.Report{Node: "n1", Boot: "last", Sent: time.Now().UTC(), Heads: []fleet.HeadReport{}}
	for name, data := range map[string][]byte{
		"another node's":   encode(t, fleet.Report{Node: "n2"}),
		"nobody's":         encode(t, fleet.Report{}),
		"an unknown field": []byte(`{"node":"n1","root":true}`),
		"no JSON":          []byte("hello"),
		"nothing":          nil,
		"too large":        encode(t, fleet.Report{Node: "n1", Boot: strings.Repeat("x", 300<<10)}),
	} {
		if err := n.Publish("st.n1", data); err != nil {
			t.Fatal(name, err)
		}
	}
	if err := n.Publish("st.n1", encode(t, good)); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(good, <-reports); diff != "" {
		t.Errorf("something else was heard first: %s", diff)
	}
	n.wantAllowed()
}

func TestAPollIsAnsweredAndHeardByEveryMemberAsAReport(t *testing.T) {
	w := newWorld(t)
	b, _ := w.open("m1")
	lib := &library{}
	reports := serve(t, b, lib)
	n := w.connect(b, "n1")
	m, err := n.Request("poll.n1", encode(t, fleet.Report{Node: "n1", Boot: "b7"}), 10*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	var set fleet.HeadSet
	if err := fleet.DecodeStrict(m.Data, &set); err != nil || set.Members[0].API != "for-n1" || m.Header.Get(fleet.BlobErrorHeader) != "" {
		t.Errorf("%s %v %v", m.Data, m.Header, err)
	}
	if r := <-reports; r.Node != "n1" || r.Boot != "b7" {
		t.Errorf("%+v", r)
	}
	if m, err := n.Request("poll.n1", encode(t, fleet.Report{Node: "n2"}), 500*time.Millisecond); err == nil {
		t.Errorf("a poll for another node is answered: %s", m.Data)
	}
	if len(lib.asked) != 1 {
		t.Errorf("the library was asked for %v", lib.asked)
	}
}

func TestAPollThatCannotBeAnsweredSaysWhy(t *testing.T) {
	w := newWorld(t)
	b, _ := w.open("m1")
	serve(t, b, &library{err: fleet.NewError(fleet.ErrSealed, "kek_file", "no KEK here: secret detail")})
	n := w.connect(b, "n1")
	m, err := n.Request("poll.n1", encode(t, fleet.Report{Node: "n1"}), 10*time.Second)
	if err != nil || m.Header.Get(fleet.BlobErrorHeader) != "sealed" || len(m.Data) != 0 {
		t.Errorf("%+v %v", m, err)
	}
}

func TestBlobsComeInChunks(t *testing.T) {
	w := newWorld(t)
	b, _ := w.open("m1")
	lib := &library{}
	serve(t, b, lib)
	n := w.connect(b, "n1")
	for _, size := range []int{0, 1, fleet.BlobChunkBytes, fleet.BlobChunkBytes + 1, 3*fleet.BlobChunkBytes + 77} {
		want := make([]byte, size)
		if _, err := rand.Read(want); err != nil {
			t.Fatal(err)
		}
		d := lib.add(want)
		var got []byte
		for first := true; first || len(got) < size; first = false {
			m, err := n.Request(fleet.BlobSubject(d), encode(t, fleet.BlobRequest{Offset: int64(len(got))}), 10*time.Second)
			if err != nil || m.Header.Get(fleet.BlobErrorHeader) != "" {
				t.Fatal(err, m)
			}
			if m.Header.Get(fleet.BlobSizeHeader) != strconv.Itoa(size) || len(m.Data) > fleet.BlobChunkBytes || (len(m.Data) == 0 && size > 0) {
				t.Fatalf("a chunk of %d bytes, size %s", len(m.Data), m.Header.Get(fleet.BlobSizeHeader))
			}
			got = append(got, m.Data...)
		}
		if !bytes.Equal(want, got) {
			t.Errorf("%d bytes came otherwise", size)
		}
	}
}

func TestWhatIsNoBlobRequestIsRefused(t *testing.T) {
	w := newWorld(t)
	b, _ := w.open("m1")
	lib := &library{}
	serve(t, b, lib)
	n := w.connect(b, "n1")
	have := fleet.BlobSubject(lib.add([]byte("four")))
	for name, tc := range map[string]struct{ subject, body, want string }{
		"a blob that is not held": {fleet.BlobSubject(fleet.DigestOf([]byte("x"))), `{}`, "not_found"},
		"no digest":               {"blob.etc-passwd", `{}`, "invalid"},
		"a digest in capitals":    {"blob." + strings.ToUpper(strings.TrimPrefix(have, "blob.")), `{}`, "invalid"},
		"an offset before it":     {have, `{"offset":-1}`, "invalid"},
		"an offset behind it":     {have, `{"offset":5}`, "invalid"},
		"a huge offset":           {have, `{"offset":9223372036854775807}`, "invalid"},
		"an unknown field":        {have, `{"length":1}`, "invalid"},
		"no JSON":                 {have, `offset 0`, "invalid"},
	} {
		m, err := n.Request(tc.subject, []byte(tc.body), 10*time.Second)
		if err != nil || m.Header.Get(fleet.BlobErrorHeader) != tc.want || len(m.Data) != 0 {
			t.Errorf("%s: %+v, %v", name, m, err)
		}
	}
	if m, err := n.Request(have, []byte(`{"offset":4}`), 10*time.Second); err != nil || len(m.Data) != 0 || m.Header.Get(fleet.BlobSizeHeader) != "4" {
		t.Errorf("the end: %+v %v", m, err)
	}
}

// TestANodeCannotMakeAMemberPublishForIt is about reply subjects: the server checks what a node publishes to, not where
// it wants the answer, and members may publish anything.
func TestANodeCannotMakeAMemberPublishForIt(t *testing.T) {
	w := newWorld(t)
	b, _ := w.open("m1")
	lib := &library{}
	serve(t, b, lib)
	if _, err := b.JetStream().CreateStream(t.Context(), jetstream.StreamConfig{Name: "OTHER", Subjects: []string{"other"}}); err != nil {
		t.Fatal(err)
	}
	n := w.connect(b, "n1")
	victim := w.connect(b, "n2")
	empty := fleet.BlobSubject(lib.add(nil)) // its answer has no payload, as the JetStream API wants it
	var heard []*nats.Subscription
	for _, s := range []string{"hd.node.n2", "ack.n2", "_INBOX_n2.>"} {
		heard = append(heard, subscribe(t, victim.Conn, s))
	}
	for _, reply := range []string{"$JS.API.STREAM.DELETE.OTHER", "hd.node.n2", "ack.n2", "other"} {
		if err := n.PublishRequest(empty, reply, []byte(`{}`)); err != nil {
			t.Fatal(err)
		}
	}
	for _, reply := range []string{"hd.node.n2", "ack.n2", "_INBOX_n2.x", "_INBOX_n11.x", "st.n2"} {
		if err := n.PublishRequest("poll.n1", reply, encode(t, fleet.Report{Node: "n1"})); err != nil {
			t.Fatal(err)
		}
	}
	// The queue group is served in order: when this is answered, so is all before.
	if _, err := n.Request("poll.n1", encode(t, fleet.Report{Node: "n1"}), 10*time.Second); err != nil {
		t.Fatal(err)
	}
	if _, err := n.Request(empty, []byte(`{}`), 10*time.Second); err != nil {
		t.Fatal(err)
	}
	for _, s := range heard {
		silent(t, victim.Conn, s)
	}
	s, err := b.JetStream().Stream(t.Context(), "OTHER")
	if err != nil {
		t.Fatal("a node deleted a stream:", err)
	}
	if info, err := s.Info(t.Context()); err != nil || info.State.Msgs != 0 {
		t.Errorf("%+v %v", info, err)
	}
	if len(lib.asked) != 1 {
		t.Errorf("%d head sets were made", len(lib.asked))
	}
}

func TestServeEndsWithItsContextAndAnswersNoMore(t *testing.T) {
	w := newWorld(t)
	b, _ := w.open("m1")
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- b.Serve(ctx, &library{}, func(fleet.Report) {}) }()
	eventually(t, "serve", func() error { _, err := b.Conn().Request("blob.00", nil, 100*time.Millisecond); return err })
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if _, err := b.Conn().Request("blob.00", nil, 5*time.Second); !errors.Is(err, nats.ErrNoResponders) {
		t.Errorf("got %v", err)
	}
	b.Close()
	if err := b.Serve(t.Context(), &library{}, nil); err == nil {
		t.Error("a closed bus serves")
	}
	if err := b.Publish("x", nil); err == nil {
		t.Error("a closed bus publishes")
	}
	if err := b.Connected(t.Context()); !errors.Is(err, fleet.ErrUnavailable) {
		t.Errorf("a closed bus is ready: %v", err)
	}
}

func TestAMemberThatDoesNotHoldABlobAsksTheOthers(t *testing.T) {
	w := newWorld(t)
	b1, o1 := w.open("m1")
	b2, o2 := w.open("m2")
	form(t, []*bus.Bus{b1, b2}, []bus.Options{o1, o2})
	has := &library{}
	serve(t, b1, &library{})
	serve(t, b2, has)
	n := w.connect(b1, "n1") // the requests of which come to either
	want := make([]byte, fleet.BlobChunkBytes+7)
	if _, err := rand.Read(want); err != nil {
		t.Fatal(err)
	}
	d := has.add(want)
	for _, offset := range []int{0, fleet.BlobChunkBytes} {
		var got *nats.Msg
		eventually(t, "a chunk through the member that does not hold it", func() error {
			m, err := n.Request(fleet.BlobSubject(d), encode(t, fleet.BlobRequest{Offset: int64(offset)}), 10*time.Second)
			if err == nil && m.Header.Get(fleet.BlobErrorHeader) != "" {
				err = errors.New(m.Header.Get(fleet.BlobErrorHeader)) // the route is not there yet
			}
			got = m
			return err
		})
		if size := got.Header.Get(fleet.BlobSizeHeader); size != strconv.Itoa(len(want)) || !bytes.Equal(got.Data, want[offset:min(len(want), offset+fleet.BlobChunkBytes)]) {
			t.Errorf("at %d: %d bytes of %s", offset, len(got.Data), size)
		}
	}
	small := has.add([]byte("small"))
	inbox := n.NewRespInbox()
	answers := subscribe(t, n.Conn, inbox)
	const nodes = 50 // all at one moment
	for range nodes {
		if err := n.PublishRequest(fleet.BlobSubject(small), inbox, []byte(`{}`)); err != nil {
			t.Fatal(err)
		}
	}
	for range nodes {
		if m := next(t, answers); string(m.Data) != "small" {
			t.Fatalf("%q %v", m.Data, m.Header)
		}
	}
	has.drop(small) // half of the requests came to m1, which has it from m2 now
	for range nodes {
		m, err := n.Request(fleet.BlobSubject(small), []byte(`{"offset":2}`), 10*time.Second)
		if err != nil || string(m.Data) != "all" {
			t.Fatalf("what it learned: %+v, %v", m, err)
		}
	}
	if m, err := n.Request(fleet.BlobSubject(fleet.DigestOf([]byte("x"))), []byte(`{}`), 10*time.Second); err != nil || m.Header.Get(fleet.BlobErrorHeader) != "not_found" {
		t.Errorf("a blob that nobody holds: %+v, %v", m, err)
	}
	if err := n.Publish("held."+d.Hex(), []byte(`{}`)); err != nil {
		t.Fatal(err)
	}
	n.wantRefused("publish", "held."+d.Hex())
}
