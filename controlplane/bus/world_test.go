package bus_test

import (
	"crypto/x509"
	"encoding/json"
	"errors"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/edgefleet/edgefleet/controlplane/bus"
	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/observability"
	"github.com/edgefleet/edgefleet/tls/mtls"
)

const cluster fleet.ClusterID = "c1"

// world is the authorities of one cluster and the nodes that its members admit.
type world struct {
	t              *testing.T
	member, node   *mtls.CA
	members, peers *x509.CertPool

	mu    sync.Mutex
	nodes map[fleet.NodeID]fleet.GroupName
}

func ca(t *testing.T, name string) *mtls.CA {
	t.Helper()
	c, err := mtls.NewCA(name, time.Now(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, member: ca(t, "member CA"), node: ca(t, "node CA"), nodes: map[fleet.NodeID]fleet.GroupName{"n1": "default", "n2": "second", "n3": "default"}}
	var err error
	if w.members, err = mtls.PoolFromPEM(w.member.CertPEM()); err != nil {
		t.Fatal(err)
	}
	if w.peers, err = mtls.PoolFromPEM(w.member.CertPEM(), w.node.CertPEM()); err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *world) admit(id fleet.NodeID) (fleet.GroupName, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if g, ok := w.nodes[id]; ok {
		return g, nil
	}
	return "", fleet.NewError(fleet.ErrDenied, "node", "node %s is not part of this fleet", id)
}

func (w *world) revoke(id fleet.NodeID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.nodes, id)
}

// source is an identity: of a member, or of a node, by any authority and of any cluster.
func (w *world) source(authority *mtls.CA, c fleet.ClusterID, member fleet.MemberID, node fleet.NodeID) *mtls.Source {
	w.t.Helper()
	key, err := mtls.NewKey()
	if err != nil {
		w.t.Fatal(err)
	}
	var cert []byte
	if member != "" {
		cert, err = authority.SignMember(c, member, key.Public(), time.Now())
	} else {
		cert, err = authority.SignNode(c, node, key.Public(), time.Now())
	}
	if err != nil {
		w.t.Fatal(err)
	}
	pem, err := mtls.EncodeKey(key)
	if err != nil {
		w.t.Fatal(err)
	}
	dir := w.t.TempDir()
	certFile, keyFile := filepath.Join(dir, "cert"), filepath.Join(dir, "key")
	if err := mtls.WriteIdentity(certFile, keyFile, cert, pem); err != nil {
		w.t.Fatal(err)
	}
	src, err := mtls.OpenSource(certFile, keyFile)
	if err != nil {
		w.t.Fatal(err)
	}
	return src
}

// freeAddr is an address that nobody listens on now: routes must be known before the servers start.
func freeAddr(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ln.Close() }()
	return ln.Addr().String()
}

func (w *world) options(id fleet.MemberID) bus.Options {
	w.t.Helper()
	return bus.Options{
		Dir: w.t.TempDir(), Cluster: cluster, Member: id, Listen: freeAddr(w.t), RouteListen: freeAddr(w.t), Source: w.source(w.member, cluster, id, ""),
		MemberCA: w.members, ClientCAs: w.peers, Admit: w.admit, Telemetry: observability.Discard(),
	}
}

func (w *world) open(id fleet.MemberID) (*bus.Bus, bus.Options) {
	w.t.Helper()
	o := w.options(id)
	b, err := bus.Open(o)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(b.Close)
	return b, o
}

// dial connects with an identity; a nil one shows no certificate.
func (w *world) dial(b *bus.Bus, src *mtls.Source, more ...nats.Option) (*nats.Conn, error) {
	tc := mtls.ClientTLS(src, w.members, mtls.MemberServerName(cluster), nil)
	return nats.Connect("tls://"+b.ClientAddr(), append([]nats.Option{nats.Secure(tc), nats.Timeout(5 * time.Second)}, more...)...)
}

// edge is the connection of a node and what the server refused it.
type edge struct {
	*nats.Conn
	t       *testing.T
	refused chan string
}

func (w *world) connect(b *bus.Bus, id fleet.NodeID) *edge {
	w.t.Helper()
	e := &edge{t: w.t, refused: make(chan string, 64)}
	nc, err := w.dial(b, w.source(w.node, cluster, "", id), nats.CustomInboxPrefix(id.InboxPrefix()), nats.MaxReconnects(-1), nats.ReconnectWait(50*time.Millisecond),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
			if errors.Is(err, nats.ErrPermissionViolation) {
				e.refused <- err.Error()
			}
		}))
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(nc.Close)
	e.Conn = nc
	return e
}

// wantRefused waits for the server's refusal of a subject.
func (e *edge) wantRefused(what, subject string) {
	e.t.Helper()
	if err := e.Flush(); err != nil {
		e.t.Fatal(err)
	}
	select {
	case said := <-e.refused:
		if !strings.Contains(strings.ToLower(said), what) || !strings.Contains(said, `"`+subject+`"`) {
			e.t.Errorf("%s %s: the server refused %s", what, subject, said)
		}
	case <-time.After(10 * time.Second):
		e.t.Errorf("%s %s was allowed", what, subject)
	}
}

// wantAllowed holds that nothing was refused until now.
func (e *edge) wantAllowed() {
	e.t.Helper()
	if err := e.Flush(); err != nil { // the server answers in order
		e.t.Fatal(err)
	}
	select {
	case said := <-e.refused:
		e.t.Error(said)
	default:
	}
}

// next waits for a message.
func next(t *testing.T, s *nats.Subscription) *nats.Msg {
	t.Helper()
	m, err := s.NextMsg(10 * time.Second)
	if err != nil {
		t.Fatalf("%s: %v", s.Subject, err)
	}
	return m
}

// silent holds that the subscription has got nothing although its connection is up to date.
func silent(t *testing.T, c *nats.Conn, s *nats.Subscription) {
	t.Helper()
	if err := c.Flush(); err != nil {
		t.Fatal(err)
	}
	if n, _, err := s.Pending(); err != nil || n != 0 {
		t.Errorf("%d messages on %s: %v", n, s.Subject, err)
	}
}

func subscribe(t *testing.T, c *nats.Conn, subject string) *nats.Subscription {
	t.Helper()
	s, err := c.SubscribeSync(subject)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Flush(); err != nil {
		t.Fatal(err)
	}
	return s
}

func encode(t *testing.T, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// eventually repeats try until it returns nil.
func eventually(t *testing.T, what string, try func() error) {
	t.Helper()
	var err error
	deadline, tick := time.After(60*time.Second), time.NewTicker(50*time.Millisecond)
	defer tick.Stop()
	for {
		if err = try(); err == nil {
			return
		}
		select {
		case <-deadline:
			t.Fatalf("%s: %v", what, err)
		case <-tick.C:
		}
	}
}
