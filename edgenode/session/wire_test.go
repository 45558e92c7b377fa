package session_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/edgefleet/edgefleet/edgenode/config"
	"github.com/edgefleet/edgefleet/edgenode/session"
	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/observability"
	"github.com/edgefleet/edgefleet/tls/mtls"
)

// world is a cluster's authorities, a node's identity, and a store that fetches what it is told to.
type world struct {
	t                  *testing.T
	members, nodes, ap *mtls.CA
	source, member     *mtls.Source
	store              *fetchingStore
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, store: &fetchingStore{got: make(chan result, 64)}}
	for _, ca := range []**mtls.CA{&w.members, &w.nodes, &w.ap} {
		var err error
		if *ca, err = mtls.NewCA("test", time.Now(), time.Hour); err != nil {
			t.Fatal(err)
		}
	}
	w.source = w.identity("node", func(pub any) ([]byte, error) { return w.nodes.SignNode(cluster, node, pub, time.Now()) })
	w.member = w.identity("member", func(pub any) ([]byte, error) { return w.members.SignMember(cluster, "m1", pub, time.Now()) })
	return w
}

func (w *world) identity(name string, sign func(pub any) ([]byte, error)) *mtls.Source {
	w.t.Helper()
	key, err := mtls.NewKey()
	if err != nil {
		w.t.Fatal(err)
	}
	cert, err := sign(key.Public())
	if err != nil {
		w.t.Fatal(err)
	}
	keyPEM, err := mtls.EncodeKey(key)
	if err != nil {
		w.t.Fatal(err)
	}
	certFile, keyFile := filepath.Join(w.t.TempDir(), name+".crt"), filepath.Join(w.t.TempDir(), name+".key")
	if err := mtls.WriteIdentity(certFile, keyFile, cert, keyPEM); err != nil {
		w.t.Fatal(err)
	}
	s, err := mtls.OpenSource(certFile, keyFile)
	if err != nil {
		w.t.Fatal(err)
	}
	return s
}

// start runs a session with the given members until the test ends.
func (w *world) start(change func(*session.Options), members ...fleet.Endpoints) *session.Session {
	w.t.Helper()
	o := session.Options{
		Node: node, Group: group, Cluster: cluster, Boot: "b1", Dir: w.t.TempDir(), Members: members,
		Source: w.source, MemberRoots: w.members.Pool(), APIRoots: w.ap.Pool(), Store: w.store, Telemetry: observability.Discard(),
		PollInterval: time.Second, HeartbeatInterval: time.Second,
	}
	if change != nil {
		change(&o)
	}
	s, err := session.New(o)
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(w.t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	w.t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			w.t.Error(err)
		}
	})
	return s
}

type result struct {
	data []byte
	err  error
}

// fetchingStore fetches the digest that a head set's first head carries as its key id.
type fetchingStore struct{ got chan result }

func (s *fetchingStore) Apply(ctx context.Context, set fleet.HeadSet, fetch config.Fetch) []fleet.HeadReport {
	for _, h := range set.Heads {
		b, err := fetch(ctx, fleet.Digest(h.KeyID))
		s.got <- result{b, err}
	}
	return make([]fleet.HeadReport, len(set.Heads))
}

func (s *fetchingStore) Reports() []fleet.HeadReport { return nil }

// next waits for a fetch.
func (s *fetchingStore) next(t *testing.T) result {
	t.Helper()
	select {
	case r := <-s.got:
		return r
	case <-time.After(30 * time.Second):
		t.Fatal("nothing was fetched")
		return result{}
	}
}

func headSet(d fleet.Digest) []byte {
	b, err := json.Marshal(fleet.HeadSet{Heads: []fleet.SignedHead{{Head: json.RawMessage("{}"), KeyID: string(d)}}})
	if err != nil {
		panic(err)
	}
	return b
}

// nodeAuth admits members with everything and nodes with their own subjects, as the control plane does.
type nodeAuth struct {
	srv     *server.Server
	account string
}

func (a *nodeAuth) Check(c server.ClientAuthentication) bool {
	st := c.GetTLSConnectionState()
	if st == nil || len(st.PeerCertificates) == 0 {
		return false
	}
	id, err := fleet.ParseSPIFFE(st.PeerCertificates[0].URIs[0].String())
	if err != nil {
		return false
	}
	acc, err := a.srv.LookupAccount(a.account)
	if err != nil {
		return false
	}
	u := &server.User{Username: "x", Account: acc}
	if n := id.Node; n != "" {
		u.Permissions = &server.Permissions{
			Publish:   &server.SubjectPermission{Allow: []string{n.ReportSubject(), n.PollSubject(), "blob.>", n.EventSubject()}},
			Subscribe: &server.SubjectPermission{Allow: []string{n.HeadSubject(), group.HeadSubject(), n.AckSubject(), n.InboxPrefix() + ".>"}},
		}
	}
	c.RegisterUser(u)
	return true
}

// bus starts a NATS server with mutual TLS and returns its address and a member's connection.
func (w *world) bus() (string, *nats.Conn) {
	w.t.Helper()
	clients := w.members.Pool()
	for _, ca := range []*mtls.CA{w.nodes} {
		if !clients.AppendCertsFromPEM(ca.CertPEM()) {
			w.t.Fatal("no certificate")
		}
	}
	auth := &nodeAuth{account: "FLEET"}
	o := &server.Options{
		Host: "127.0.0.1", Port: -1, TLS: true, TLSVerify: true, TLSTimeout: 5, NoSigs: true, NoLog: true, JetStream: true, StoreDir: w.t.TempDir(),
		TLSConfig: mtls.ServerTLS(w.member, clients, mtls.AnyOf(cluster)), CustomClientAuthentication: auth,
		Accounts: []*server.Account{server.NewAccount("FLEET"), server.NewAccount("$SYS")}, SystemAccount: "$SYS",
	}
	srv, err := server.NewServer(o)
	if err != nil {
		w.t.Fatal(err)
	}
	auth.srv = srv
	go srv.Start()
	w.t.Cleanup(func() { srv.Shutdown(); srv.WaitForShutdown() })
	if !srv.ReadyForConnections(10 * time.Second) {
		w.t.Fatal("the server does not start")
	}
	acc, err := srv.LookupAccount("FLEET")
	if err != nil {
		w.t.Fatal(err)
	}
	if err := acc.EnableJetStream(map[string]server.JetStreamAccountLimits{"": {MaxMemory: -1, MaxStore: -1, MaxStreams: -1, MaxConsumers: -1}}, nil); err != nil {
		w.t.Fatal(err)
	}
	address := srv.Addr().String()
	conn, err := nats.Connect("tls://"+address, nats.Secure(mtls.ClientTLS(w.member, w.members.Pool(), mtls.MemberServerName(cluster), mtls.MembersOnly(cluster))))
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(conn.Close)
	return address, conn
}

// answer subscribes a member's handler.
func (w *world) answer(conn *nats.Conn, subject string, handler func(m *nats.Msg)) {
	w.t.Helper()
	if _, err := conn.Subscribe(subject, handler); err != nil {
		w.t.Fatal(err)
	}
	if err := conn.Flush(); err != nil {
		w.t.Fatal(err)
	}
}

// chunk answers a blob request as a member does.
func chunk(m *nats.Msg, blob []byte) {
	var r fleet.BlobRequest
	if err := json.Unmarshal(m.Data, &r); err != nil || r.Offset > int64(len(blob)) {
		return
	}
	reply := nats.NewMsg(m.Reply)
	reply.Header.Set(fleet.BlobSizeHeader, strconv.Itoa(len(blob)))
	reply.Data = blob[r.Offset:min(int64(len(blob)), r.Offset+fleet.BlobChunkBytes)]
	_ = m.RespondMsg(reply)
}

func randomBlob(t *testing.T, n int) ([]byte, fleet.Digest) {
	t.Helper()
	b := make([]byte, n)
	if _, err := rand.Read(b); err != nil {
		t.Fatal(err)
	}
	return b, fleet.DigestOf(b)
}

func TestABlobComesInChunksOverNATS(t *testing.T) {
	for _, size := range []int{0, 1, fleet.BlobChunkBytes, 3*fleet.BlobChunkBytes + 17} {
		w := newWorld(t)
		address, conn := w.bus()
		blob, digest := randomBlob(t, size)
		var requests atomic.Int32
		w.answer(conn, "blob.*", func(m *nats.Msg) {
			if requests.Add(1) == 2 { // one member of the group does not have it yet
				reply := nats.NewMsg(m.Reply)
				reply.Header.Set(fleet.BlobErrorHeader, "not_found")
				_ = m.RespondMsg(reply)
				return
			}
			chunk(m, blob)
		})
		w.answer(conn, "poll.*", func(m *nats.Msg) { _ = m.Respond(headSet(digest)) })
		w.start(nil, fleet.Endpoints{Member: "m1", NATS: address})
		if r := w.store.next(t); r.err != nil || !bytes.Equal(r.data, blob) {
			t.Errorf("%d bytes: got %d bytes, %v", size, len(r.data), r.err)
		}
	}
}

func TestHeadsAcksAndReportsTravelOverNATS(t *testing.T) {
	w := newWorld(t)
	address, conn := w.bus()
	blob, digest := randomBlob(t, 10)
	w.answer(conn, "blob.*", func(m *nats.Msg) { chunk(m, blob) })
	w.answer(conn, "poll.*", func(m *nats.Msg) { _ = m.Respond([]byte("{}")) })
	reports := make(chan fleet.Report, 64)
	w.answer(conn, "st.*", func(m *nats.Msg) {
		var r fleet.Report
		if err := fleet.DecodeStrict(m.Data, &r); err != nil {
			t.Error(err)
		}
		reports <- r
	})
	acks := make(chan fleet.EventAck, 1)
	w.start(func(o *session.Options) { o.OnAck = func(a fleet.EventAck) { acks <- a } }, fleet.Endpoints{Member: "m1", NATS: address})
	r := <-reports // the node is connected, and subscribed before that
	if r.Node != node || r.Boot != "b1" || !r.Serving {
		t.Errorf("report %+v", r)
	}
	for _, subject := range []string{node.HeadSubject(), group.HeadSubject()} {
		if err := conn.Publish(subject, headSet(digest)); err != nil {
			t.Fatal(err)
		}
		if r := w.store.next(t); r.err != nil {
			t.Error(r.err)
		}
	}
	want := fleet.EventAck{Member: "m1", Voters: 3, Boot: "b1", Through: 7}
	body, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	if err := conn.Publish(node.AckSubject(), body); err != nil {
		t.Fatal(err)
	}
	if got := <-acks; got != want {
		t.Errorf("acknowledgement %+v", got)
	}
}

func TestEventsAreStoredOnceInJetStream(t *testing.T) {
	w := newWorld(t)
	address, conn := w.bus()
	js, err := jetstream.New(conn)
	if err != nil {
		t.Fatal(err)
	}
	stream, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "EVENTS", Subjects: []string{"ev.*"}})
	if err != nil {
		t.Fatal(err)
	}
	up := make(chan struct{}, 64)
	w.answer(conn, "st.*", func(*nats.Msg) { up <- struct{}{} })
	s := w.start(nil, fleet.Endpoints{Member: "m1", NATS: address})
	if err := s.Publish(t.Context(), "edge-1:b1:1", nil); err != nil && !errors.Is(err, fleet.ErrUnavailable) {
		t.Errorf("before the connect: %v", err)
	}
	<-up
	for _, id := range []fleet.EventID{"edge-1:b1:1", "edge-1:b1:1", "edge-1:b1:2"} {
		if err := s.Publish(t.Context(), id, []byte("event")); err != nil {
			t.Fatal(err)
		}
	}
	info, err := stream.Info(t.Context())
	if err != nil || info.State.Msgs > 2 {
		t.Errorf("%d messages, %v", info.State.Msgs, err)
	}
}

// api is a member's API for nodes.
type api struct {
	mu    sync.Mutex
	heads []byte
	blobs map[string][]byte
	// breakAfter ends the first transfer after so many bytes.
	breakAfter int
	ranges     []string
	polls      int
}

func (a *api) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if r.TLS == nil || len(r.TLS.PeerCertificates) == 0 {
		rw.WriteHeader(http.StatusUnauthorized)
		return
	}
	if r.Method == http.MethodPost && r.URL.Path == "/v1/edge/poll" {
		a.polls++
		_, _ = rw.Write(a.heads)
		return
	}
	blob, ok := a.blobs[strings.TrimPrefix(r.URL.Path, "/v1/edge/blobs/")]
	if !ok {
		rw.WriteHeader(http.StatusNotFound)
		return
	}
	a.ranges = append(a.ranges, r.Header.Get("Range"))
	if n := a.breakAfter; n > 0 {
		a.breakAfter = 0
		rw.Header().Set("Content-Length", strconv.Itoa(len(blob)))
		_, _ = rw.Write(blob[:n])
		return // net/http closes the connection of a response that is too short
	}
	http.ServeContent(rw, r, "", time.Time{}, bytes.NewReader(blob))
}

// serve starts the API with a certificate of ca and returns its address.
func (w *world) serve(ca *mtls.CA, h http.Handler) string {
	w.t.Helper()
	src := w.identity("api", func(pub any) ([]byte, error) { return ca.SignServer([]string{"127.0.0.1"}, pub, time.Now()) })
	s := httptest.NewUnstartedServer(h)
	s.TLS = &tls.Config{Certificates: []tls.Certificate{*src.Certificate()}, ClientAuth: tls.VerifyClientCertIfGiven, ClientCAs: w.nodes.Pool()}
	s.StartTLS()
	w.t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

func TestWithNATSAwayHeadsAndBlobsComeByHTTPS(t *testing.T) {
	w := newWorld(t)
	blob, digest := randomBlob(t, 300<<10)
	one := &api{heads: headSet(digest), blobs: map[string][]byte{string(digest): blob}, breakAfter: 100 << 10}
	two := &api{heads: headSet(digest), blobs: map[string][]byte{string(digest): blob}}
	closed, err := net.Listen("tcp", "127.0.0.1:0") // a member that is down
	if err != nil {
		t.Fatal(err)
	}
	down := closed.Addr().String()
	if err := closed.Close(); err != nil {
		t.Fatal(err)
	}
	w.start(nil,
		fleet.Endpoints{Member: "m1", API: w.serve(w.ap, one), NATS: down},
		fleet.Endpoints{Member: "m2", API: down},
		fleet.Endpoints{Member: "m3", API: "https://" + w.serve(w.ap, two)})
	for range 3 { // whoever is asked first
		if r := w.store.next(t); r.err != nil || !bytes.Equal(r.data, blob) {
			t.Fatalf("got %d bytes, %v", len(r.data), r.err)
		}
	}
	one.mu.Lock()
	two.mu.Lock()
	defer one.mu.Unlock()
	defer two.mu.Unlock()
	if one.breakAfter != 0 {
		t.Fatal("the transfer was never broken")
	}
	resumed := false
	for _, r := range append(one.ranges, two.ranges...) {
		resumed = resumed || strings.HasPrefix(r, "bytes=") && r != "bytes=0-"
	}
	if !resumed {
		t.Errorf("no transfer was resumed: %q and %q", one.ranges, two.ranges)
	}
}

func TestWithNATSAwayReportsComeByHTTPSAtTheirInterval(t *testing.T) {
	w := newWorld(t)
	a := &api{heads: []byte("{}")}
	w.start(func(o *session.Options) { o.PollInterval = time.Hour }, fleet.Endpoints{Member: "m1", API: w.serve(w.ap, a), NATS: "127.0.0.1:1"})
	wait(t, func() bool {
		a.mu.Lock()
		defer a.mu.Unlock()
		return a.polls >= 3
	})
}

func TestAnAPIServerOfAnotherAuthorityIsNotTrusted(t *testing.T) {
	w := newWorld(t)
	_, digest := randomBlob(t, 1)
	imposter, genuine := &api{heads: headSet(digest)}, &api{heads: []byte("{}")}
	foreign, err := mtls.NewCA("foreign", time.Now(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	w.start(nil, fleet.Endpoints{API: w.serve(foreign, imposter)}, fleet.Endpoints{API: w.serve(w.ap, genuine)})
	wait(t, func() bool {
		genuine.mu.Lock()
		defer genuine.mu.Unlock()
		return genuine.polls >= 2
	})
	if imposter.polls != 0 {
		t.Error("the imposter was asked")
	}
}

func TestABlobThatIsTooLargeOrWrongIsNotTaken(t *testing.T) {
	w := newWorld(t)
	address, conn := w.bus()
	_, digest := randomBlob(t, 10)
	size, body := "99999999999", []byte("x")
	var mu sync.Mutex
	w.answer(conn, "blob.*", func(m *nats.Msg) {
		mu.Lock()
		defer mu.Unlock()
		reply := nats.NewMsg(m.Reply)
		reply.Header.Set(fleet.BlobSizeHeader, size)
		reply.Data = body
		_ = m.RespondMsg(reply)
	})
	w.answer(conn, "poll.*", func(m *nats.Msg) { _ = m.Respond(headSet(digest)) })
	w.start(nil, fleet.Endpoints{Member: "m1", NATS: address})
	if r := w.store.next(t); !errors.Is(r.err, fleet.ErrTooLarge) {
		t.Errorf("a blob of 100 GB: %v", r.err)
	}
	mu.Lock()
	size, body = "1", []byte("y")
	mu.Unlock()
	wait(t, func() bool { return errors.Is(w.store.next(t).err, fleet.ErrCorrupt) })
}

func wait(t *testing.T, ok func() bool) {
	t.Helper()
	deadline := time.After(30 * time.Second)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-deadline:
			t.Fatal("not in time")
		case <-tick.C:
		}
	}
}
