package consensus

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"maps"
	"net"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/hashicorp/raft"

	"github.com/edgefleet/edgefleet/fleet"
)

const (
	// handshakeTimeout is how long a connection may take to prove that it is a member.
	handshakeTimeout = 3 * time.Second
	// maxHandshakes is how many connections may be about to prove it; more wait in the kernel's queue.
	maxHandshakes = 256
	// acceptBackoff is the pause after the system refused to hand out a connection, say for want of descriptors.
	acceptBackoff = 50 * time.Millisecond
	// refusalLogInterval spaces log lines about refused connections: a port scanner must not fill the log.
	refusalLogInterval = time.Second
)

// streamLayer carries Raft over mutually authenticated TLS. Raft sees only connections whose other end has proven to
// be a member, in either direction. It tracks every connection, because Raft's transport leaves them open when it closes.
type streamLayer struct {
	listener       net.Listener
	advertise      advertised
	server, client *tls.Config
	log            *slog.Logger
	refused        func()

	ready  chan net.Conn
	slots  chan struct{}
	done   chan struct{}
	owned  sync.WaitGroup
	closer sync.Once

	mu          sync.Mutex
	open        map[net.Conn]struct{}
	closed      bool
	lastRefusal time.Time
}

// advertised is the address that other members are told, which may be a name.
type advertised string

func (advertised) Network() string  { return "tcp" }
func (a advertised) String() string { return string(a) }

// listen binds the Raft port and starts accepting.
func listen(o Options, refused func()) (*streamLayer, error) {
	l, err := net.Listen("tcp", o.Bind)
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fleet.NewError(fleet.ErrConflict, "raft_listen", "raft_listen: address %s is in use by another process: stop it, or change raft_listen", o.Bind)
	}
	if err != nil {
		return nil, fleet.Invalid("bind", "listen for members on %s: %v", o.Bind, err)
	}
	s := &streamLayer{
		listener: l, advertise: advertised(o.Advertise), server: o.ServerTLS, client: o.ClientTLS,
		log: o.Telemetry.Logger, refused: refused,
		ready: make(chan net.Conn), slots: make(chan struct{}, maxHandshakes), done: make(chan struct{}),
		open: make(map[net.Conn]struct{}),
	}
	if s.advertise == "" {
		if ip := l.Addr().(*net.TCPAddr).IP; ip.IsUnspecified() {
			return nil, errors.Join(fleet.Invalid("advertise", "listening on every address (%s) needs the one that other members reach: set it", o.Bind), l.Close())
		}
		s.advertise = advertised(l.Addr().String())
	}
	s.owned.Go(s.serve)
	return s, nil
}

// serve accepts connections until the listener closes and proves each on a goroutine of its own, so that a silent
// client holds up nobody.
func (s *streamLayer) serve() {
	for {
		select {
		case s.slots <- struct{}{}:
		case <-s.done:
			return
		}
		conn, err := s.listener.Accept()
		if err != nil {
			<-s.slots
			select {
			case <-s.done:
				return
			case <-time.After(acceptBackoff):
				continue
			}
		}
		s.owned.Go(func() {
			defer func() { <-s.slots }()
			s.admit(conn)
		})
	}
}

// admit hands conn to Raft once it has proven to be a member's.
func (s *streamLayer) admit(raw net.Conn) {
	conn, err := s.handshake(raw, tls.Server(raw, s.server), true, handshakeTimeout)
	if err != nil {
		s.refuse(raw.RemoteAddr(), err)
		return
	}
	select {
	case s.ready <- conn:
	case <-s.done:
		// Close closes it.
	}
}

func (s *streamLayer) refuse(from net.Addr, err error) {
	s.refused()
	s.mu.Lock()
	now := time.Now()
	quiet := s.closed || now.Sub(s.lastRefusal) < refusalLogInterval
	if !quiet {
		s.lastRefusal = now
	}
	s.mu.Unlock()
	if !quiet {
		s.log.WarnContext(context.Background(), "refused a raft connection that did not prove to be a member", "remote", from.String(), "err", err)
	}
}

// handshake tracks raw, completes TLS on it within timeout, and closes it if that fails.
func (s *streamLayer) handshake(raw net.Conn, secured *tls.Conn, inbound bool, timeout time.Duration) (net.Conn, error) {
	conn := &trackedConn{Conn: secured, layer: s, inbound: inbound}
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil, errors.Join(net.ErrClosed, raw.Close())
	}
	s.open[conn] = struct{}{}
	s.mu.Unlock()

	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	if err := secured.HandshakeContext(ctx); err != nil {
		// What closing a connection that failed says is of no interest.
		_ = conn.Close()
		return nil, err
	}
	return conn, nil
}

// recheck ends the connections whose other end would not be admitted now.
func (s *streamLayer) recheck() {
	s.mu.Lock()
	open := slices.Collect(maps.Keys(s.open))
	s.mu.Unlock()
	for _, c := range open {
		conn := c.(*trackedConn)
		state := conn.Conn.(*tls.Conn).ConnectionState()
		verify := s.client.VerifyConnection
		if conn.inbound {
			verify = s.server.VerifyConnection
		}
		if !state.HandshakeComplete || verify == nil {
			continue
		}
		if err := verify(state); err != nil {
			s.refuse(conn.RemoteAddr(), err)
			_ = conn.NetConn().Close() // its reader closes the rest
		}
	}
}

// Dial implements raft.StreamLayer.
func (s *streamLayer) Dial(address raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	start := time.Now()
	raw, err := net.DialTimeout("tcp", string(address), timeout)
	if err != nil {
		return nil, err
	}
	return s.handshake(raw, tls.Client(raw, s.client), false, timeout-time.Since(start))
}

// Accept implements net.Listener.
func (s *streamLayer) Accept() (net.Conn, error) {
	select {
	case conn := <-s.ready:
		return conn, nil
	case <-s.done:
		return nil, net.ErrClosed
	}
}

// Addr implements net.Listener with the advertised address.
func (s *streamLayer) Addr() net.Addr { return s.advertise }

// Close implements net.Listener: it frees the port, closes every connection and waits for its goroutines.
func (s *streamLayer) Close() error {
	var err error
	s.closer.Do(func() {
		close(s.done)
		err = s.listener.Close()
		s.mu.Lock()
		s.closed = true
		open := s.open
		s.open = nil
		s.mu.Unlock()
		for conn := range open {
			// A connection that is already broken is as closed as it gets.
			_ = conn.(*trackedConn).NetConn().Close()
		}
	})
	s.owned.Wait()
	return err
}

// trackedConn leaves the layer's set when it is closed.
type trackedConn struct {
	net.Conn
	layer *streamLayer
	// inbound: the other end dialled.
	inbound bool
}

// NetConn is the connection below TLS; closing it does not wait for the other end.
func (c *trackedConn) NetConn() net.Conn { return c.Conn.(*tls.Conn).NetConn() }

// Close implements net.Conn.
func (c *trackedConn) Close() error {
	c.layer.mu.Lock()
	delete(c.layer.open, c)
	c.layer.mu.Unlock()
	return c.Conn.Close()
}
