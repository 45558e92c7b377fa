package session

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/tls/mtls"
)

// Bus is the message bus as a session uses it. Its methods may be called at any time, and fail at once while it is not
// connected.
type Bus interface {
	// Run keeps connected until ctx ends and then returns nil.
	Run(ctx context.Context, h Handlers) error
	// SetServers replaces the addresses (host:port) to connect to, from the next connect on.
	SetServers(addresses []string)
	// Request asks whoever answers on subject.
	Request(ctx context.Context, subject string, body []byte) (Reply, error)
	// Publish sends and forgets.
	Publish(subject string, body []byte) error
	// PublishEvent stores a message in the stream of events; nil means that it is acknowledged. A repeated id is stored once.
	PublishEvent(ctx context.Context, subject, id string, payload []byte) error
}

// Handlers are called by a running bus. They must not block.
type Handlers struct {
	// Subjects are to be subscribed; Message gets what arrives on them.
	Subjects []string
	Message  func(subject string, body []byte)
	// Connected tells of each connect (true) and loss (false).
	Connected func(up bool)
}

// Reply answers a Request.
type Reply struct {
	Header nats.Header
	Data   []byte
}

var errNotConnected = fleet.NewError(fleet.ErrUnavailable, "nats", "not connected to a member")

// natsBus is the Bus over NATS with mutual TLS.
type natsBus struct {
	options Options

	mu      sync.Mutex
	servers []string
	conn    *nats.Conn
	js      jetstream.JetStream
	// known is closed when servers are known for the first time.
	known chan struct{}
}

func newNATSBus(o Options) *natsBus { return &natsBus{options: o, known: make(chan struct{})} }

// SetServers implements Bus.
func (b *natsBus) SetServers(addresses []string) {
	if len(addresses) == 0 {
		return
	}
	urls := make([]string, 0, len(addresses))
	for _, a := range addresses {
		urls = append(urls, "tls://"+a)
	}
	b.mu.Lock()
	if b.servers == nil {
		close(b.known)
	}
	b.servers = urls
	conn := b.conn
	b.mu.Unlock()
	if conn != nil {
		_ = conn.SetServerPool(urls) // fails for a closed connection only: the next one takes b.servers
	}
}

// Run implements Bus. The client reconnects by itself; a connection that it gave up on is replaced.
func (b *natsBus) Run(ctx context.Context, h Handlers) error {
	select {
	case <-ctx.Done():
		return nil
	case <-b.known:
	}
	for {
		err := b.session(ctx, h)
		if ctx.Err() != nil {
			return nil
		}
		b.options.Telemetry.Logger.WarnContext(ctx, "nats connection ended", "err", err)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(jitter(maxReconnectWait)):
		}
	}
}

// session holds one connection until it is closed for good.
func (b *natsBus) session(ctx context.Context, h Handlers) error {
	closed := make(chan struct{})
	conn, err := b.connect(ctx, h, closed)
	if err != nil {
		return err
	}
	defer conn.Close()
	js, err := jetstream.New(conn)
	if err != nil {
		return fmt.Errorf("open jetstream: %w", err)
	}
	for _, subject := range h.Subjects {
		sub, err := conn.Subscribe(subject, func(m *nats.Msg) { h.Message(m.Subject, m.Data) })
		if err == nil {
			err = sub.SetPendingLimits(maxPendingMessages, maxPendingBytes)
		}
		if err != nil {
			return fmt.Errorf("subscribe %s: %w", subject, err)
		}
	}
	b.hold(conn, js)
	defer b.hold(nil, nil)
	select {
	case <-ctx.Done():
		h.Connected(false)
		return nil
	case <-closed:
		return errors.Join(errNotConnected, conn.LastError())
	}
}

const (
	maxPendingMessages = 256
	maxPendingBytes    = 16 << 20
	minReconnectWait   = 200 * time.Millisecond
	maxReconnectWait   = 5 * time.Second
)

func (b *natsBus) connect(ctx context.Context, h Handlers, closed chan<- struct{}) (*nats.Conn, error) {
	o := b.options
	b.mu.Lock()
	servers := b.servers
	b.mu.Unlock()
	config := mtls.ClientTLS(o.Source, o.MemberRoots, mtls.MemberServerName(o.Cluster), mtls.MembersOnly(o.Cluster))
	options := nats.GetDefaultOptions()
	options.Servers = servers
	for _, set := range []nats.Option{
		nats.Name(string(o.Node)), nats.Secure(config), nats.CustomInboxPrefix(o.Node.InboxPrefix()),
		nats.RetryOnFailedConnect(true), nats.MaxReconnects(-1),
		// A member whose state lags refuses a node that it will know in a moment.
		nats.IgnoreAuthErrorAbort(),
		// Members' addresses come from head sets, which name them as this node reaches them.
		nats.IgnoreDiscoveredServers(),
		// Nothing is buffered: a late report is worse than none, and the spool sends events again.
		nats.ReconnectBufSize(-1),
		nats.Timeout(requestTimeout), nats.PingInterval(5 * time.Second), nats.MaxPingsOutstanding(2),
		nats.CustomReconnectDelay(reconnectDelay),
		nats.ConnectHandler(func(*nats.Conn) { h.Connected(true) }),
		nats.ReconnectHandler(func(*nats.Conn) { h.Connected(true) }),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			h.Connected(false)
			if ctx.Err() == nil {
				o.Telemetry.Logger.WarnContext(ctx, "nats connection lost", "err", err)
			}
		}),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
			o.Telemetry.Logger.WarnContext(ctx, "nats reports a problem", "err", err)
		}),
		nats.ClosedHandler(func(*nats.Conn) { close(closed) }),
	} {
		if err := set(&options); err != nil {
			return nil, fmt.Errorf("configure nats: %w", err)
		}
	}
	conn, err := options.Connect()
	if err != nil {
		return nil, fmt.Errorf("connect nats: %w", err)
	}
	return conn, nil
}

// reconnectDelay is the wait after all servers were tried.
func reconnectDelay(attempts int) time.Duration {
	wait := minReconnectWait << min(attempts, 5)
	return rand.N(min(wait, maxReconnectWait)) + minReconnectWait/2
}

func (b *natsBus) hold(conn *nats.Conn, js jetstream.JetStream) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.conn, b.js = conn, js
}

// live returns the connection if it is up, so that callers turn to HTTPS at once and not after a timeout.
func (b *natsBus) live() (*nats.Conn, jetstream.JetStream, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.conn == nil || !b.conn.IsConnected() {
		return nil, nil, errNotConnected
	}
	return b.conn, b.js, nil
}

// Request implements Bus.
func (b *natsBus) Request(ctx context.Context, subject string, body []byte) (Reply, error) {
	conn, _, err := b.live()
	if err != nil {
		return Reply{}, err
	}
	m, err := conn.RequestWithContext(ctx, subject, body)
	if err != nil {
		return Reply{}, err
	}
	return Reply{Header: m.Header, Data: m.Data}, nil
}

// Publish implements Bus.
func (b *natsBus) Publish(subject string, body []byte) error {
	conn, _, err := b.live()
	if err != nil {
		return err
	}
	return conn.Publish(subject, body)
}

// PublishEvent implements Bus.
func (b *natsBus) PublishEvent(ctx context.Context, subject, id string, payload []byte) error {
	_, js, err := b.live()
	if err != nil {
		return err
	}
	_, err = js.PublishMsg(ctx, &nats.Msg{Subject: subject, Data: payload}, jetstream.WithMsgID(id))
	return err
}
