// Package bus is a member's message bus: an embedded NATS server, clustered with those of the other members, and the
// member's own connection to it.
//
// It owns who may connect and on which subjects (mTLS, the certificate's SPIFFE ID, and the member's local state, so
// that nodes reconnect without quorum) and what members answer to nodes: polls, blobs, reports. It keeps nothing that
// matters: JetStream is a buffer that may be lost whole. Without the bus, nodes serve on and poll by HTTPS.
package bus

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/observability"
	"github.com/edgefleet/edgefleet/tls/mtls"
)

// Options configure a Bus.
type Options struct {
	// Dir keeps JetStream's files.
	Dir     string
	Cluster fleet.ClusterID
	Member  fleet.MemberID
	// Listen is where nodes connect, RouteListen where other members do, host:port.
	Listen, RouteListen string
	// Source is the member's certificate.
	Source *mtls.Source
	// MemberCA verifies members, ClientCAs members and nodes.
	MemberCA, ClientCAs *x509.CertPool
	// Routes are the route addresses of the other members known at the start; see SetRoutes.
	Routes []string
	// Admit says which group a node belongs to; an error refuses it.
	Admit func(fleet.NodeID) (fleet.GroupName, error)
	// AdmitMember refuses members that were removed; nil: all of the cluster's are admitted.
	AdmitMember mtls.Allow
	Telemetry   *observability.Telemetry
}

// accountName is the NATS account of nodes and members; it has JetStream.
const accountName = "FLEET"

// startTimeout is how long the embedded server may take to accept connections.
const startTimeout = 10 * time.Second

// Bus is an embedded server and the member's connection to it.
type Bus struct {
	o      Options
	log    *slog.Logger
	secret string
	conn   *nats.Conn
	js     jetstream.JetStream

	mu     sync.Mutex
	srv    *server.Server
	routes []string
}

// Open starts the server and connects to it.
func Open(o Options) (*Bus, error) {
	raw := make([]byte, 32)
	if _, err := rand.Read(raw); err != nil {
		return nil, fmt.Errorf("open bus: %w", err)
	}
	b := &Bus{o: o, log: o.Telemetry.Logger, secret: hex.EncodeToString(raw)}
	for _, addr := range []string{o.Listen, o.RouteListen} {
		if err := free(addr); err != nil {
			return nil, err
		}
	}
	if err := b.start(slices.Sorted(slices.Values(o.Routes))); err != nil {
		return nil, err
	}
	conn, err := nats.Connect("", nats.InProcessServer(b), nats.UserInfo(memberUser, b.secret), nats.Name("member "+string(o.Member)),
		nats.MaxReconnects(-1), nats.ReconnectWait(100*time.Millisecond), nats.ReconnectBufSize(-1),
		nats.ErrorHandler(func(_ *nats.Conn, s *nats.Subscription, err error) {
			b.log.Warn("bus error", "err", err, "subject", subject(s))
		}))
	if err != nil {
		b.stop()
		return nil, fmt.Errorf("connect to the embedded nats server: %w", err)
	}
	b.conn = conn
	if b.js, err = jetstream.New(conn); err != nil {
		b.Close()
		return nil, fmt.Errorf("open jetstream: %w", err)
	}
	return b, nil
}

// free reports whether addr can be bound, so that a busy port is one clear error and not a line in a log.
func free(addr string) error {
	ln, err := net.Listen("tcp", addr)
	if errors.Is(err, syscall.EADDRINUSE) {
		return fleet.NewError(fleet.ErrConflict, "nats_listen", "address %s is in use by another process: stop it, or change nats_listen or nats_route_listen", addr)
	}
	if err != nil {
		return fmt.Errorf("listen on %s: %w", addr, err)
	}
	return ln.Close()
}

func subject(s *nats.Subscription) string {
	if s == nil {
		return ""
	}
	return s.Subject
}

// Conn is the member's own connection; it survives restarts of the server.
func (b *Bus) Conn() *nats.Conn { return b.conn }

// JetStream is the member's JetStream context.
func (b *Bus) JetStream() jetstream.JetStream { return b.js }

// ClientAddr is where nodes connect; empty while the server restarts.
func (b *Bus) ClientAddr() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.srv == nil || b.srv.Addr() == nil {
		return ""
	}
	return b.srv.Addr().String()
}

// InProcessConn lets the member's connection reach whichever server runs now.
func (b *Bus) InProcessConn() (net.Conn, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.srv == nil {
		return nil, fmt.Errorf("%w: embedded nats server is stopped", fleet.ErrUnavailable)
	}
	return b.srv.InProcessConn()
}

// SetRoutes makes the server part of a cluster with the given members' route addresses, or alone without any. A
// change restarts the server; connections come back by themselves, and what JetStream buffered is sent again by the
// nodes if it does not survive.
func (b *Bus) SetRoutes(routes []string) error {
	routes = slices.Sorted(slices.Values(routes))
	b.mu.Lock()
	same := b.srv != nil && slices.Equal(routes, b.routes)
	b.mu.Unlock()
	if same {
		return nil
	}
	b.stop()
	return b.start(routes)
}

func (b *Bus) start(routes []string) error {
	o, err := b.serverOptions(routes)
	if err != nil {
		return err
	}
	auth := &authenticator{bus: b}
	o.CustomClientAuthentication = auth
	srv, err := server.NewServer(o)
	if err != nil {
		return fmt.Errorf("start nats server: %w", err)
	}
	auth.srv = srv
	srv.SetLogger(&logger{b.log}, false, false)
	go srv.Start()
	if !srv.ReadyForConnections(startTimeout) {
		srv.Shutdown()
		return fmt.Errorf("%w: nats server did not accept connections on %s within %s", fleet.ErrTimeout, b.o.Listen, startTimeout)
	}
	if err := enableJetStream(srv); err != nil {
		srv.Shutdown()
		return err
	}
	b.mu.Lock()
	b.srv, b.routes = srv, routes
	b.mu.Unlock()
	return nil
}

func enableJetStream(srv *server.Server) error {
	acc, err := srv.LookupAccount(accountName)
	if err != nil {
		return fmt.Errorf("nats account: %w", err)
	}
	limits := server.JetStreamAccountLimits{MaxMemory: -1, MaxStore: -1, MaxStreams: -1, MaxConsumers: -1}
	if err := acc.EnableJetStream(map[string]server.JetStreamAccountLimits{"": limits}, nil); err != nil {
		return fmt.Errorf("enable jetstream: %w", err)
	}
	return nil
}

func (b *Bus) serverOptions(routes []string) (*server.Options, error) {
	host, port, err := hostPort(b.o.Listen)
	if err != nil {
		return nil, err
	}
	o := &server.Options{
		ServerName: string(b.o.Member), Host: host, Port: port,
		TLS: true, TLSVerify: true, TLSTimeout: 5, TLSConfig: mtls.ServerTLS(b.o.Source, b.o.ClientCAs, mtls.AnyOf(b.o.Cluster)),
		JetStream: true, StoreDir: filepath.Join(b.o.Dir, "single"), JetStreamMaxStore: 4 << 30, JetStreamMaxMemory: 64 << 20,
		NoSigs: true, NoSystemAccount: false, SystemAccount: "$SYS",
		Accounts:   []*server.Account{server.NewAccount(accountName), server.NewAccount("$SYS")},
		MaxPayload: 1 << 20, MaxPending: 64 << 20, PingInterval: 20 * time.Second, MaxPingsOut: 2,
		AuthTimeout: 5,
	}
	if len(routes) == 0 {
		return o, nil
	}
	// JetStream keeps a standalone server's files and a cluster's apart: they do not mix.
	o.StoreDir = filepath.Join(b.o.Dir, "cluster")
	if err := b.cluster(o, routes); err != nil {
		return nil, err
	}
	return o, nil
}

func (b *Bus) cluster(o *server.Options, routes []string) error {
	host, port, err := hostPort(b.o.RouteListen)
	if err != nil {
		return err
	}
	// One configuration both accepts and solicits routes; either end must be a member.
	allow := b.o.AdmitMember
	if allow == nil {
		allow = mtls.MembersOnly(b.o.Cluster)
	}
	tc := mtls.ServerTLS(b.o.Source, b.o.MemberCA, allow)
	client := mtls.ClientTLS(b.o.Source, b.o.MemberCA, mtls.MemberServerName(b.o.Cluster), allow)
	tc.RootCAs, tc.ServerName, tc.GetClientCertificate = client.RootCAs, client.ServerName, client.GetClientCertificate
	o.Cluster = server.ClusterOpts{Name: string(b.o.Cluster), Host: host, Port: port, TLSConfig: tc, TLSTimeout: 5, NoAdvertise: true, PoolSize: -1}
	for _, r := range routes {
		u, err := url.Parse("nats://" + r)
		if err != nil {
			return fmt.Errorf("route %q: %w", r, err)
		}
		o.Routes = append(o.Routes, u)
	}
	return nil
}

func hostPort(addr string) (string, int, error) {
	host, p, err := net.SplitHostPort(addr)
	if err != nil {
		return "", 0, fleet.Invalid("nats_listen", "%q is not host:port", addr)
	}
	port, err := strconv.Atoi(p)
	if err != nil {
		return "", 0, fleet.Invalid("nats_listen", "%q: %q is not a port", addr, p)
	}
	if port == 0 {
		port = server.RANDOM_PORT
	}
	return host, port, nil
}

func (b *Bus) stop() {
	b.mu.Lock()
	srv := b.srv
	b.srv = nil
	b.mu.Unlock()
	if srv != nil {
		srv.Shutdown()
		srv.WaitForShutdown()
	}
}

// Close ends the connection and the server.
func (b *Bus) Close() {
	if b.conn != nil {
		b.conn.Close()
	}
	b.stop()
}

// Publish sends a message as this member.
func (b *Bus) Publish(subject string, data []byte) error {
	if err := b.conn.Publish(subject, data); err != nil {
		return fmt.Errorf("publish on %s: %w", subject, err)
	}
	return nil
}

// Connected reports whether the member's own connection is up; it is a readiness check.
func (b *Bus) Connected(context.Context) error {
	if s := b.conn.Status(); s != nats.CONNECTED {
		return fmt.Errorf("%w: connection to the embedded nats server is %s", fleet.ErrUnavailable, s)
	}
	return nil
}
