package dns

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"runtime"
	"syscall"
	"time"
	"unsafe"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"
)

const (
	// maxSockets bounds the UDP sockets on the one port; the kernel spreads clients over them.
	maxSockets = 8
	// oobSize has room for the control messages that say at which address a packet arrived, of both families.
	oobSize = 128
)

// listenUDP binds as many sockets to one address as there are processors.
func listenUDP(addr netip.AddrPort) (conns []*net.UDPConn, err error) {
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var failed error
		err := c.Control(func(fd uintptr) {
			failed = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
			if !addr.Addr().IsUnspecified() {
				return
			}
			// Answers must come from the address that was asked. Which family the socket has is its own business.
			v4 := unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_PKTINFO, 1)
			v6 := unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1)
			if v4 != nil && v6 != nil {
				failed = errors.Join(failed, v4, v6)
			}
		})
		return errors.Join(err, failed)
	}}
	for range min(runtime.GOMAXPROCS(0), maxSockets) {
		c, err := lc.ListenPacket(context.Background(), "udp", addr.String())
		if err != nil {
			for _, c := range conns {
				_ = c.Close() // the error is that of the bind
			}
			return nil, err
		}
		conns = append(conns, c.(*net.UDPConn)) //nolint:forcetypeassert // what "udp" gives
	}
	return conns, nil
}

// socket is one UDP socket. It answers by itself what direct can answer, and gives the rest to miekg's server, which reads
// from it and writes to it.
type socket struct {
	*net.UDPConn
	server *Server
	// in and out are the buffers of the one goroutine that reads.
	oob [oobSize]byte
	out [dns.MinMsgSize]byte
}

// peer is a client of a socket, and the control message with which it is answered.
type peer struct {
	addr netip.AddrPort
	oob  []byte
}

// Network implements net.Addr.
func (*peer) Network() string { return "udp" }

// String implements net.Addr.
func (p *peer) String() string { return p.addr.String() }

// ReadFrom implements net.PacketConn: it returns with a query that takes more than direct.
func (s *socket) ReadFrom(b []byte) (int, net.Addr, error) {
	for {
		n, oobn, _, from, err := s.ReadMsgUDPAddrPort(b, s.oob[:])
		if err != nil {
			return n, nil, err
		}
		oob := s.oob[:oobn]
		anyInterface(oob)
		answer, verdict, done := s.answer(b[:n], from.Addr())
		if !done {
			return n, &peer{from, append([]byte(nil), oob...)}, nil
		}
		s.server.count(context.Background(), verdict)
		if answer != nil {
			_, _, err = s.WriteMsgUDPAddrPort(answer, oob, from)
			if err != nil {
				s.server.o.Telemetry.Logger.DebugContext(context.Background(), "dns answer not sent", "err", err)
			}
		}
	}
}

// answer answers or drops a query; done is false if it is for the server.
func (s *socket) answer(query []byte, from netip.Addr) (answer []byte, outcome string, done bool) {
	defer func() {
		if recover() != nil {
			answer, done = nil, false // the server does the same, and tells
		}
	}()
	answer, ok := direct(s.server.o.Source, s.server.o.TTL, query, s.out[:0])
	if !ok {
		return nil, "", false
	}
	switch s.server.limits.admit(from, true, time.Now()) {
	case drop:
		return nil, "dropped", true
	case truncate:
		return truncated(answer), "slipped", true
	case pass:
	}
	return answer, "answered", true
}

// WriteTo implements net.PacketConn.
func (s *socket) WriteTo(b []byte, to net.Addr) (int, error) {
	p, ok := to.(*peer)
	if !ok {
		return 0, net.InvalidAddrError("not an address of this socket")
	}
	n, _, err := s.WriteMsgUDPAddrPort(b, p.oob, p.addr)
	return n, err
}

// anyInterface takes the interface out of what the kernel said about a packet's arrival: sent back, the message then picks
// the source address of the answer, and its way is the routing table's choice.
func anyInterface(oob []byte) {
	for len(oob) >= unix.SizeofCmsghdr {
		h := (*unix.Cmsghdr)(unsafe.Pointer(&oob[0])) //nolint:gosec // the kernel wrote it there
		size := int(h.Len)
		if size < unix.CmsgLen(0) || size > len(oob) {
			return
		}
		data := oob[unix.CmsgLen(0):size]
		switch {
		case h.Level == unix.IPPROTO_IP && h.Type == unix.IP_PKTINFO && len(data) >= unix.SizeofInet4Pktinfo:
			clear(data[:4])
		case h.Level == unix.IPPROTO_IPV6 && h.Type == unix.IPV6_PKTINFO && len(data) >= unix.SizeofInet6Pktinfo:
			clear(data[16:20])
		}
		oob = oob[min(unix.CmsgSpace(size-unix.CmsgLen(0)), len(oob)):]
	}
}
