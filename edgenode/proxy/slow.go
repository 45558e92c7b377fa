package proxy

import (
	"errors"
	"net"
	"os"
	"sync/atomic"
)

// clients accepts the connections of clients.
type clients struct{ net.Listener }

// Accept implements net.Listener.
func (l clients) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if tcp, ok := c.(*net.TCPConn); ok {
		return &clientConn{TCPConn: tcp}, err
	}
	return c, err
}

// clientConn ends with the first write to it that took too long: nothing can follow what was written in part. It is reset
// then, and not closed in order. A client that takes a byte at a time would else keep what is in the kernel's buffers,
// megabytes of it, for as long as it likes: nobody looks after a connection that its process has closed.
type clientConn struct {
	*net.TCPConn
	stuck atomic.Bool
}

// Write implements net.Conn.
func (c *clientConn) Write(b []byte) (int, error) {
	if c.stuck.Load() {
		return 0, os.ErrDeadlineExceeded
	}
	n, err := c.TCPConn.Write(b)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		c.stuck.Store(true)
		_ = c.SetLinger(0) // it fails on a connection that is gone
	}
	return n, err
}
