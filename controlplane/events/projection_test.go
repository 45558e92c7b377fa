package events_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/edgefleet/edgefleet/controlplane/events"
	"github.com/edgefleet/edgefleet/controlplane/events/storetest"
	"github.com/edgefleet/edgefleet/edgenode/spool"
	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/observability"
)

// scrape returns the value of a metric without labels, or the sum line given with them.
func scrape(t testing.TB, tel *observability.Telemetry, series string) string {
	t.Helper()
	w := httptest.NewRecorder()
	tel.Handler().ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), "GET", "/metrics", nil))
	for line := range strings.Lines(w.Body.String()) {
		if v, ok := strings.CutPrefix(line, series+" "); ok {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.NewTimer(40 * time.Second)
	defer deadline.Stop()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-deadline.C:
			t.Fatalf("not within 40 s: %s", what)
		case <-tick.C:
		}
	}
}

// natsServer is an embedded server with JetStream; it can be stopped, wiped and started again on the same port.
type natsServer struct {
	dir  string
	port int
	srv  *server.Server
}

func startNATS(t *testing.T) *natsServer {
	t.Helper()
	n := &natsServer{dir: t.TempDir(), port: server.RANDOM_PORT}
	n.start(t)
	t.Cleanup(func() { n.stop() })
	return n
}

func (n *natsServer) start(t *testing.T) {
	t.Helper()
	srv, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: n.port, JetStream: true, StoreDir: n.dir, NoSigs: true, NoLog: true})
	if err != nil {
		t.Fatal(err)
	}
	go srv.Start()
	if !srv.ReadyForConnections(10 * time.Second) {
		t.Fatal("nats-server is not ready")
	}
	n.srv = srv
	n.port = srv.Addr().(*net.TCPAddr).Port
}

func (n *natsServer) stop() {
	n.srv.Shutdown()
	n.srv.WaitForShutdown()
}

func (n *natsServer) connect(t *testing.T) (*nats.Conn, jetstream.JetStream) {
	t.Helper()
	nc, err := nats.Connect(n.srv.ClientURL(), nats.MaxReconnects(-1), nats.ReconnectWait(50*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	return nc, js
}

// member is a store and its projection.
type member struct {
	id    fleet.MemberID
	store *events.Store
	tel   *observability.Telemetry
	stop  func()
}

func startMember(t *testing.T, n *natsServer, id fleet.MemberID, voters int, dir string, change ...func(*events.Options)) *member {
	t.Helper()
	m := &member{id: id, tel: observability.Discard()}
	m.store = openStore(t, dir, append(change, func(o *events.Options) { o.Telemetry, o.Now = m.tel, nil })...)
	nc, js := n.connect(t)
	p, err := events.NewProjection(events.ProjectionOptions{
		Store: m.store, Member: id, Voters: func() int { return voters }, JetStream: js, Publish: nc.Publish, Telemetry: m.tel,
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	m.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(m.stop)
	return m
}

// through is the watermark of boot b1 of a node.
func (m *member) through(t *testing.T, node fleet.NodeID) uint64 {
	t.Helper()
	n, err := m.store.Through(t.Context(), node, "b1")
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// count counts the stored events.
func (m *member) count(t *testing.T) (n int) {
	t.Helper()
	q := events.Query{Limit: events.MaxLimit}
	for {
		p, err := m.store.Query(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		n += len(p.Events)
		if q.Cursor = p.Next; q.Cursor == "" {
			return n
		}
	}
}

// recent is an event of this moment: the projection looks at the real clock.
func recent(node fleet.NodeID, boot string, seq uint64) fleet.Event {
	ev := storetest.Event(node, boot, seq, "acme", 0)
	ev.Time = time.Now().UTC()
	return ev
}

// send publishes as node n1 until JetStream acknowledges: the stream may not exist yet.
func send(t *testing.T, js jetstream.JetStream, id string, v any) {
	t.Helper()
	data, ok := v.([]byte)
	if !ok {
		var err error
		if data, err = json.Marshal(v); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "JetStream takes "+id, func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := js.Publish(ctx, "ev.n1", data, jetstream.WithMsgID(id))
		return err == nil
	})
}

func message(ev fleet.Event) fleet.EventMessage { return fleet.EventMessage{Event: ev} }

func TestProjectionStoresAndAcknowledges2000EventsWithDuplicates(t *testing.T) {
	n := startNATS(t)
	nc, js := n.connect(t)
	acks := make(chan fleet.EventAck, 10_000)
	if _, err := nc.Subscribe("ack.n1", func(m *nats.Msg) {
		var a fleet.EventAck
		if err := fleet.DecodeStrict(m.Data, &a); err != nil {
			t.Error(err)
		}
		acks <- a
	}); err != nil {
		t.Fatal(err)
	}
	m := startMember(t, n, "m1", 3, t.TempDir())
	send(t, js, "n1:b1:1", message(recent("n1", "b1", 1)))
	for seq := uint64(2000); seq >= 2; seq-- { // backwards: the worst order
		for copies := range 1 + seq%2 {
			data, err := json.Marshal(message(recent("n1", "b1", seq)))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := js.PublishAsync("ev.n1", data, jetstream.WithMsgID(fmt.Sprint(seq, copies))); err != nil {
				t.Fatal(err)
			}
		}
	}
	var last fleet.EventAck
	for last.Through < 2000 {
		next := <-acks
		if next.Through < last.Through || next.Member != "m1" || next.Voters != 3 || next.Boot != "b1" {
			t.Fatalf("%+v after %+v", next, last)
		}
		last = next
	}
	if got := m.count(t); got != 2000 {
		t.Errorf("%d events", got)
	}
	// A resend of what is stored brings the acknowledgement again.
	for len(acks) > 0 {
		<-acks
	}
	send(t, js, "again", message(recent("n1", "b1", 7)))
	if a := <-acks; a.Through != 2000 {
		t.Errorf("%+v", a)
	}
	if diff := m.tel.Undeclared(); len(diff) != 0 {
		t.Error(diff)
	}
}

func TestABadMessageIsRejectedAndHoldsUpNothing(t *testing.T) {
	n := startNATS(t)
	_, js := n.connect(t)
	m := startMember(t, n, "m1", 1, t.TempDir())
	future, old, unreal, ahead := recent("n1", "b1", 5), recent("n1", "b1", 6), recent("n1", "b1", 7), message(recent("n1", "b1", 8))
	future.Time = time.Now().Add(48 * time.Hour)
	old.Time = time.Now().Add(-2 * events.DefaultRetention)
	unreal.Status = "maybe"
	ahead.Released = 8
	send(t, js, "n1:b1:1", message(recent("n1", "b1", 1)))
	send(t, js, "n1:b1:2", []byte("poison"))
	send(t, js, "n1:b1:3", []byte(`{"event":{"surprise":1}}`))
	send(t, js, "n1:b1:4", make([]byte, fleet.MaxEventBytes+1))
	send(t, js, "n1:b1:5", message(future))
	send(t, js, "n1:b1:6", message(old))
	send(t, js, "n1:b1:7", message(unreal))
	send(t, js, "n1:b1:8", ahead)
	send(t, js, "n2:b1:9", message(recent("n2", "b1", 9))) // another node's event
	send(t, js, "n2:b1:10", []byte("poison"))              // another node's id
	send(t, js, "", []byte("poison without an id"))        // nobody's
	send(t, js, "n1:b1:9", message(recent("n1", "b1", 9)))
	eventually(t, "the good event after the bad ones is stored", func() bool { return m.through(t, "n1") == 9 })
	if got := m.count(t); got != 2 {
		t.Errorf("%d events", got)
	}
	if got := m.through(t, "n2"); got != 0 {
		t.Errorf("node n1 moved the watermark of n2 to %d", got)
	}
	if _, err := m.store.Get(t.Context(), "", "n2:b1:9"); err == nil {
		t.Error("node n1 wrote an event of n2")
	}
	for reason, want := range map[string]string{"format": "4", "size": "1", "time": "2", "invalid": "2", "node": "1"} {
		if got := scrape(t, m.tel, `edgefleet_events_rejected_total{reason="`+reason+`"}`); got != want {
			t.Errorf("%s rejected for %s, want %s", got, reason, want)
		}
	}
	eventually(t, "nothing is left to deliver", func() bool {
		c, err := js.Consumer(t.Context(), events.Stream, "store-m1")
		if err != nil {
			return false
		}
		info := c.CachedInfo()
		return info.NumAckPending == 0 && info.NumPending == 0
	})
	if diff := m.tel.Undeclared(); len(diff) != 0 {
		t.Error(diff)
	}
}

func TestAMemberDoesNotWaitForWhatTheNodeReleased(t *testing.T) {
	n := startNATS(t)
	_, js := n.connect(t)
	m := startMember(t, n, "m1", 3, t.TempDir())
	send(t, js, "n1:b1:501", fleet.EventMessage{Released: 490, Event: recent("n1", "b1", 501)})
	eventually(t, "the watermark is the node's", func() bool { return m.through(t, "n1") == 490 })
	if got := scrape(t, m.tel, "edgefleet_events_missed_total"); got != "490" {
		t.Errorf("%s missed", got)
	}
}

func TestTheStreamComesBackAfterItWasDeleted(t *testing.T) {
	n := startNATS(t)
	_, js := n.connect(t)
	m := startMember(t, n, "m1", 1, t.TempDir())
	for seq := uint64(1); seq <= 10; seq++ {
		send(t, js, fmt.Sprint(seq), message(recent("n1", "b1", seq)))
	}
	eventually(t, "the first are stored", func() bool { return m.through(t, "n1") == 10 })
	if err := js.DeleteStream(t.Context(), events.Stream); err != nil {
		t.Fatal(err)
	}
	for seq := uint64(11); seq <= 20; seq++ {
		send(t, js, fmt.Sprint(seq), message(recent("n1", "b1", seq)))
	}
	eventually(t, "the others are stored", func() bool { return m.through(t, "n1") == 20 })
	info, err := js.Stream(t.Context(), events.Stream)
	if err != nil {
		t.Fatal(err)
	}
	if c := info.CachedInfo().Config; c.Duplicates != 2*time.Second || c.MaxAge != time.Hour || c.MaxBytes != 1<<30 || c.Storage != jetstream.FileStorage {
		t.Errorf("%+v", c)
	}
}

func TestProjectionOptionsAreChecked(t *testing.T) {
	if _, err := events.NewProjection(events.ProjectionOptions{Member: "m1"}); err == nil {
		t.Error("no store, no error")
	}
}

// publisher is a node's connection.
type publisher struct {
	js   jetstream.JetStream
	node fleet.NodeID
}

func (p publisher) Publish(ctx context.Context, id fleet.EventID, payload []byte) error {
	_, err := p.js.Publish(ctx, p.node.EventSubject(), payload, jetstream.WithMsgID(string(id)))
	return err
}

// startNode runs a spool whose events go to n.
func startNode(t *testing.T, n *natsServer, dir, boot string) (*spool.Spool, func()) {
	t.Helper()
	s, err := spool.Open(spool.Options{Dir: dir, Node: "n1", Boot: boot, ResendAfter: 3 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	nc, js := n.connect(t)
	if _, err := nc.Subscribe("ack.n1", func(m *nats.Msg) {
		var a fleet.EventAck
		if err := fleet.DecodeStrict(m.Data, &a); err != nil {
			t.Error(err)
		}
		s.Ack(a)
	}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx, publisher{js, "n1"}) }()
	stop := sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	return s, stop
}

func ledger(s *spool.Spool) (sum spool.Ledger) {
	for _, l := range s.Ledger() {
		sum.Detected += l.Detected
		sum.Stored += l.Stored
		sum.Spooled += l.Spooled
	}
	return sum
}

func TestFromTheSpoolToAMajorityOfStores(t *testing.T) {
	if testing.Short() {
		t.Skip("real time")
	}
	n := startNATS(t)
	m1 := startMember(t, n, "m1", 3, t.TempDir())
	dir2 := t.TempDir()
	m2 := startMember(t, n, "m2", 3, dir2)
	dir := t.TempDir()
	s, stop := startNode(t, n, dir, "b1")
	appendTo := func(s *spool.Spool, count int) {
		for range count {
			s.Append(recent("", "", 0))
		}
	}
	appendTo(s, 1000)
	eventually(t, "two of three stores hold all, and the spool is empty", func() bool { return ledger(s).Stored == 1000 })
	if m1.count(t) != 1000 || m2.count(t) != 1000 {
		t.Errorf("%d and %d events", m1.count(t), m2.count(t))
	}

	// One of three is no majority.
	m2.stop()
	if err := m2.store.Close(); err != nil {
		t.Fatal(err)
	}
	appendTo(s, 500)
	eventually(t, "the first store has them", func() bool { return m1.through(t, "n1") == 1500 })
	if got := ledger(s); got.Stored != 1000 || got.Spooled != 500 {
		t.Fatalf("released by one of three: %+v", got)
	}

	// JetStream loses its disk, and so does the second member's consumer.
	n.stop()
	n.dir = t.TempDir()
	n.start(t)
	m2 = startMember(t, n, "m2", 3, dir2)
	eventually(t, "the spool sent again what JetStream lost", func() bool { return ledger(s).Stored == 1500 })
	if got := m2.count(t); got != 1500 {
		t.Errorf("the second member holds %d events", got)
	}

	// A new member joins with an empty store; then the second one is gone for good.
	m3 := startMember(t, n, "m3", 3, t.TempDir())
	m2.stop()
	appendTo(s, 100)
	eventually(t, "an old and a new member are a majority", func() bool { return ledger(s).Stored == 1600 })
	if got := m3.through(t, "n1"); got != 1600 {
		t.Errorf("the new member's watermark is %d", got)
	}

	// The worker dies with events in its spool; the next one delivers them.
	m3.stop()
	appendTo(s, 50)
	eventually(t, "they are spooled", func() bool { return ledger(s).Detected == 1650 })
	stop()
	startMember(t, n, "m4", 3, t.TempDir())
	next, _ := startNode(t, n, dir, "b2")
	eventually(t, "the next worker delivered what was left", func() bool { l := ledger(next); return l.Stored == 50 && l.Spooled == 0 })
	if got := m1.count(t); got != 1650 {
		t.Errorf("the first member holds %d events", got)
	}
}
