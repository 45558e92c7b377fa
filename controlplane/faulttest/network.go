package faulttest

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/edgefleet/edgefleet/fleet"
)

// ErrCut is the error of a connection that the network refused or broke.
var ErrCut = errors.New("connection broken by the test's network")

// Way is what happens to bytes that go from one member to another.
type Way struct {
	// Stalled holds bytes back, as a lost route does; Refused breaks connections and refuses new ones, as a firewall that
	// rejects does.
	Stalled, Refused bool
	// Delay is how long each piece takes.
	Delay time.Duration
}

type pair struct{ from, to fleet.MemberID }

// Network carries connections between members. It may be changed at any time.
type Network struct {
	mu sync.Mutex
	// base is how bytes go where ways says nothing.
	base    Way
	ways    map[pair]Way
	changed chan struct{}
	layers  map[fleet.MemberID]*layer
	conns   map[net.Conn]pair
}

// NewNetwork makes a network in which everyone reaches everyone after delay.
func NewNetwork(delay time.Duration) *Network {
	return &Network{
		base: Way{Delay: delay}, ways: map[pair]Way{}, changed: make(chan struct{}),
		layers: map[fleet.MemberID]*layer{}, conns: map[net.Conn]pair{},
	}
}

// Set changes one way.
func (n *Network) Set(from, to fleet.MemberID, w Way) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.ways[pair{from, to}] = w
	var broken []net.Conn
	for c, p := range n.conns {
		if w.Refused && (p == pair{from, to} || p == pair{to, from}) {
			broken = append(broken, c)
		}
	}
	for _, c := range broken {
		_ = c.Close()
	}
	n.wake()
}

// Heal lets everyone reach everyone.
func (n *Network) Heal() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.ways = map[pair]Way{}
	n.wake()
}

// wake is called with mu held.
func (n *Network) wake() {
	close(n.changed)
	n.changed = make(chan struct{})
}

func (n *Network) way(from, to fleet.MemberID) (Way, <-chan struct{}) {
	n.mu.Lock()
	defer n.mu.Unlock()
	w, ok := n.ways[pair{from, to}]
	if !ok {
		w = n.base
	}
	return w, n.changed
}

// Pass returns when one piece has gone from one member to another.
func (n *Network) Pass(ctx context.Context, from, to fleet.MemberID) error {
	for {
		w, changed := n.way(from, to)
		switch {
		case w.Refused:
			return ErrCut
		case !w.Stalled:
			return sleep(ctx, w.Delay)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return nil
	}
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// carry moves bytes until either end closes, or ctx ends.
func (n *Network) carry(ctx context.Context, p pair, src, dst net.Conn) {
	buf := make([]byte, 64<<10)
	for {
		size, err := src.Read(buf)
		if size > 0 {
			if n.Pass(ctx, p.from, p.to) != nil {
				break
			}
			if _, err := dst.Write(buf[:size]); err != nil {
				break
			}
		}
		if err != nil {
			break
		}
	}
	_ = src.Close()
	_ = dst.Close()
}

// track closes c, by end, when the way p is refused or either member goes.
func (n *Network) track(c net.Conn, p pair, end func()) net.Conn {
	e := &endConn{Conn: c, done: end}
	e.forget = func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		delete(n.conns, e)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.conns[e] = p
	return e
}

// endConn is a connection that tells when it is closed.
type endConn struct {
	net.Conn
	once         sync.Once
	done, forget func()
}

func (c *endConn) Close() error {
	err := c.Conn.Close()
	c.once.Do(func() {
		c.done()
		go c.forget() // whoever closes may hold the network's lock
	})
	return err
}

// layer is one member's raft.StreamLayer in the network.
type layer struct {
	net     *Network
	member  fleet.MemberID
	arrived chan net.Conn
	closed  chan struct{}
	once    sync.Once
}

// Join gives a member its place in the network, in place of the one that it had before it crashed.
func (n *Network) Join(m fleet.MemberID) raft.StreamLayer {
	l := &layer{net: n, member: m, arrived: make(chan net.Conn), closed: make(chan struct{})}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.layers[m] = l
	return l
}

// Leave breaks the member's connections at once, as the end of its process does.
func (n *Network) Leave(m fleet.MemberID) {
	n.mu.Lock()
	l := n.layers[m]
	delete(n.layers, m)
	var broken []net.Conn
	for c, p := range n.conns {
		if p.from == m || p.to == m {
			broken = append(broken, c)
		}
	}
	n.mu.Unlock()
	for _, c := range broken {
		_ = c.Close()
	}
	if l != nil {
		_ = l.Close()
	}
}

// Dial implements raft.StreamLayer.
func (l *layer) Dial(address raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	to := fleet.MemberID(address)
	if err := errors.Join(l.net.Pass(ctx, l.member, to), l.net.Pass(ctx, to, l.member)); err != nil {
		return nil, err
	}
	l.net.mu.Lock()
	peer, ok := l.net.layers[to]
	_, here := l.net.layers[l.member]
	l.net.mu.Unlock()
	if !ok || !here {
		return nil, ErrCut
	}
	live, end := context.WithCancel(context.Background())
	near, nearInside := net.Pipe()
	far, farInside := net.Pipe()
	a := l.net.track(nearInside, pair{l.member, to}, end)
	b := l.net.track(farInside, pair{to, l.member}, end)
	select {
	case peer.arrived <- far:
	case <-peer.closed:
		return nil, errors.Join(ErrCut, a.Close(), b.Close())
	case <-ctx.Done():
		return nil, errors.Join(ctx.Err(), a.Close(), b.Close())
	}
	go l.net.carry(live, pair{l.member, to}, a, b)
	go l.net.carry(live, pair{to, l.member}, b, a)
	return near, nil
}

// Accept implements net.Listener.
func (l *layer) Accept() (net.Conn, error) {
	select {
	case c := <-l.arrived:
		return c, nil
	case <-l.closed:
		return nil, io.EOF
	}
}

// Close implements net.Listener.
func (l *layer) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

// Addr implements net.Listener.
func (l *layer) Addr() net.Addr { return memberAddr(l.member) }

type memberAddr fleet.MemberID

func (memberAddr) Network() string  { return "test" }
func (a memberAddr) String() string { return string(a) }
