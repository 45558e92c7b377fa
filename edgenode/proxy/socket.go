package proxy

import (
	"encoding/binary"
	"net"
	"sync"
	"time"
)

// goingAway is a WebSocket close frame with status 1001 (RFC 6455 sections 5.5.1 and 7.4.1).
var goingAway = []byte{0x88, 0x02, 0x03, 0xe9}

// goAwayTimeout bounds the sending of goingAway.
const goAwayTimeout = time.Second

// sockets are the open WebSockets: net/http forgets a connection that was hijacked, so draining must know them.
type sockets struct {
	mu     sync.Mutex
	open   map[*socket]struct{}
	closed bool
}

func (s *sockets) add(conn net.Conn, progress time.Duration) *socket {
	c := &socket{Conn: conn, progress: progress, owner: s}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed { // too late: it breaks off at its first use
		c.closed = true
		_ = conn.Close()
		return c
	}
	if s.open == nil {
		s.open = map[*socket]struct{}{}
	}
	s.open[c] = struct{}{}
	return c
}

func (s *sockets) remove(c *socket) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.open, c)
}

// goAway closes all, telling those clients why that are between two frames.
func (s *sockets) goAway() {
	s.mu.Lock()
	s.closed = true
	open := make([]*socket, 0, len(s.open))
	for c := range s.open {
		open = append(open, c)
	}
	s.mu.Unlock()
	var wg sync.WaitGroup
	for _, c := range open {
		wg.Go(c.goAway)
	}
	wg.Wait()
}

// socket is the client's side of a WebSocket.
type socket struct {
	net.Conn
	progress time.Duration
	owner    *sockets

	mu     sync.Mutex
	frames frames
	closed bool
}

// Write sends what the origin sent.
func (c *socket) Write(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return 0, net.ErrClosed
	}
	if err := c.SetWriteDeadline(time.Now().Add(c.progress)); err != nil {
		return 0, err
	}
	n, err := c.Conn.Write(b)
	c.frames.advance(b[:n])
	return n, err
}

// Close implements net.Conn.
func (c *socket) Close() error {
	c.owner.remove(c)
	return c.Conn.Close()
}

func (c *socket) goAway() {
	// A write that is stuck holds the lock until this deadline.
	_ = c.SetWriteDeadline(time.Now().Add(goAwayTimeout))
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.frames.between() && !c.closed {
		_, _ = c.Conn.Write(goingAway) // best effort: the connection ends either way
	}
	c.closed = true
	_ = c.Close()
}

// frames follows a stream of WebSocket frames (RFC 6455 section 5.2) to know whether it is between two of them.
type frames struct {
	header [14]byte
	have   int
	// payload is what is left of the current frame's payload.
	payload uint64
	// ended says that a close frame began: nothing may follow it.
	ended bool
}

func (f *frames) between() bool { return f.have == 0 && f.payload == 0 && !f.ended }

func (f *frames) advance(b []byte) {
	for len(b) > 0 {
		if f.payload > 0 {
			n := min(f.payload, uint64(len(b)))
			f.payload -= n
			b = b[n:]
			continue
		}
		f.header[f.have] = b[0]
		f.have++
		b = b[1:]
		if f.have >= 2 && f.have == f.headerSize() {
			f.ended = f.ended || f.header[0]&0x0f == 0x8
			f.payload = f.payloadSize()
			f.have = 0
		}
	}
}

// headerSize is known from the first two bytes.
func (f *frames) headerSize() int {
	n := 2
	switch f.header[1] & 0x7f {
	case 126:
		n += 2
	case 127:
		n += 8
	}
	if f.header[1]&0x80 != 0 {
		n += 4 // the mask
	}
	return n
}

func (f *frames) payloadSize() uint64 {
	switch size := f.header[1] & 0x7f; size {
	case 126:
		return uint64(binary.BigEndian.Uint16(f.header[2:]))
	case 127:
		return binary.BigEndian.Uint64(f.header[2:])
	default:
		return uint64(size)
	}
}
