package hosts

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/loadtest/harness"
	"github.com/edgefleet/edgefleet/loadtest/report"
)

const (
	// handshakeWorkers make handshakes at one time, handshakeRounds is how often each server is measured, in turn.
	handshakeWorkers = 4
	handshakeRounds  = 12
	// handshakeLimit bounds one handshake.
	handshakeLimit = 10 * time.Second
)

// ServeTLS makes handshakes on listen until ctx ends, and waits on each connection for its client to leave.
func ServeTLS(ctx context.Context, listen, cert, key string) error {
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		return fmt.Errorf("read certificate: %w", err)
	}
	ln, err := (&net.ListenConfig{}).Listen(ctx, "tcp", listen)
	if err != nil {
		return fmt.Errorf("listen for handshakes: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = ln.Close() })
	defer stop()
	config := &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}
	for {
		raw, err := ln.Accept()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("accept: %w", err)
		}
		go func() { // ends with its client
			defer func() { _ = raw.Close() }()
			conn := tls.Server(raw, config)
			if conn.SetDeadline(time.Now().Add(handshakeLimit)) == nil && conn.HandshakeContext(ctx) == nil {
				_, _ = io.Copy(io.Discard, conn)
			}
		}()
	}
}

// server is one that makes handshakes: where, and how much processor time it has used.
type server struct {
	address   string
	processor func() (time.Duration, error)
}

// handshakes holds the full handshakes of a node for each second of processor time against those of a bare server of
// crypto/tls, and counts sessions that resume on the other node.
func (r *run) handshakes(ctx context.Context) error {
	w, err := r.fleet(ctx)
	if err != nil {
		return err
	}
	host, err := r.oneHost(ctx, w)
	if err != nil {
		return err
	}
	bare, err := r.startBare(ctx)
	if err != nil {
		return err
	}
	edge := server{w.nodes[0].HTTPS(), w.nodes[0].Processor}
	r.env.Say("full handshakes")
	var ours, theirs handshakeRate
	for range harness.Pick(r.env, handshakeRounds, 3, 1) {
		for _, s := range []struct {
			server
			rate *handshakeRate
		}{{edge, &ours}, {bare, &theirs}} {
			if err := r.count(ctx, s.server, host, s.rate); err != nil {
				return err
			}
		}
	}
	a, b := ours.perCore(), theirs.perCore()
	r.rep.Add("full handshakes of crypto/tls", b, "1/s/core", report.Bound{}, fmt.Sprintf("a bare server in a process of its own, for each second of its processor time; rounds %.0f", theirs.rounds))
	r.rep.Add("full handshakes", a, "1/s/core", report.Bound{}, fmt.Sprintf("one node, for each second of processor time of its worker; rounds %.0f", ours.rounds))
	r.rep.Add("full handshakes beside crypto/tls", a/b, "×", report.AtLeast(0.9), fmt.Sprintf("TLS 1.3, X25519MLKEM768, P-256; %d clients, rounds in turn", handshakeWorkers))
	return r.resumption(ctx, w, host)
}

// oneHost adds a host and waits until all nodes serve it.
func (r *run) oneHost(ctx context.Context, w *world) (fleet.HostName, error) {
	cs := []customer{{host: "www.one.example", tenant: "one"}}
	if err := w.addTenants(ctx, cs[0].tenant); err != nil {
		return "", err
	}
	if err := w.addHosts(ctx, cs); err != nil {
		return "", err
	}
	if err := w.setRecords(cs[0]); err != nil {
		return "", err
	}
	slots := make(chan struct{}, 1)
	for _, n := range w.nodes {
		if err := firstVisit(ctx, slots, n.HTTPS(), cs[0].host, w); err != nil {
			return "", fmt.Errorf("%s on %s: %w", cs[0].host, n.ID, err)
		}
	}
	return cs[0].host, nil
}

// startBare starts the bare server.
func (r *run) startBare(ctx context.Context) (server, error) {
	self, err := os.Executable()
	if err != nil {
		return server{}, fmt.Errorf("find this program: %w", err)
	}
	ip, err := r.env.Host()
	if err != nil {
		return server{}, err
	}
	certs, err := r.env.Certificates("tlsserver", ip)
	if err != nil {
		return server{}, err
	}
	// It shows a chain of two certificates, as the node does.
	var chain []byte
	for _, f := range []string{certs.Cert, certs.CA} {
		b, err := os.ReadFile(f)
		if err != nil {
			return server{}, fmt.Errorf("read certificate: %w", err)
		}
		chain = append(chain, b...)
	}
	if certs.Cert, err = r.env.WriteFile("tlsserver/chain.crt", chain); err != nil {
		return server{}, err
	}
	address := net.JoinHostPort(ip, "8443")
	p, err := r.env.Start(harness.Command{Name: "tlsserver", Path: self, Args: []string{"tlsserver", "--listen", address, "--cert", certs.Cert, "--key", certs.Key}})
	if err != nil {
		return server{}, err
	}
	s := server{address, func() (time.Duration, error) { return harness.ProcessorOf(p.PID()) }}
	return s, harness.Until(ctx, handshakeLimit, 20*time.Millisecond, func(ctx context.Context) error {
		if err := p.Alive(); err != nil {
			return err
		}
		return handshake(ctx, address, "localhost", 0)
	})
}

// handshakeRate is what a server did in the time of its own that it took.
type handshakeRate struct {
	count     int
	processor time.Duration
	// rounds are the rates of each round.
	rounds []float64
}

func (h handshakeRate) perCore() float64 { return float64(h.count) / h.processor.Seconds() }

// count makes full handshakes with a server for a time.
func (r *run) count(ctx context.Context, s server, host fleet.HostName, rate *handshakeRate) error {
	load := harness.Load{Workers: handshakeWorkers, For: harness.Pick(r.env, 2*time.Second, time.Second, time.Second), Do: func(ctx context.Context, worker, _ int) error {
		return handshake(ctx, s.address, string(host), worker)
	}}
	before, err := s.processor()
	if err != nil {
		return err
	}
	out, err := load.Run(ctx)
	if err != nil {
		return err
	}
	after, err := s.processor()
	if err != nil {
		return err
	}
	if out.Errors > 0 || out.Count == 0 || after <= before {
		return errors.Join(fleet.NewError(fleet.ErrUnavailable, "handshakes", "%s made %d handshakes in %s of processor time, %d failed", s.address, out.Count, after-before, out.Errors), out.First)
	}
	rate.count, rate.processor = rate.count+out.Count, rate.processor+after-before
	rate.rounds = append(rate.rounds, float64(out.Count)/(after-before).Seconds())
	return nil
}

// handshake makes a full handshake and leaves. What is shown is not verified: that takes this program's time, which the
// server needs. Each worker has an address of its own, so that none runs out of ports.
func handshake(ctx context.Context, address, name string, worker int) error {
	dialer := net.Dialer{Timeout: handshakeLimit, LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 1, byte(1+worker))}} //nolint:gosec // a handful of workers
	raw, err := dialer.DialContext(ctx, "tcp", address)
	if err != nil {
		return err
	}
	conn := tls.Client(raw, &tls.Config{ServerName: name, InsecureSkipVerify: true, MinVersion: tls.VersionTLS13}) //nolint:gosec // see above
	err = conn.HandshakeContext(ctx)
	return errors.Join(err, conn.Close())
}

// resumption visits the nodes in turn with the session of the visit before.
func (r *run) resumption(ctx context.Context, w *world, host fleet.HostName) error {
	n := harness.Pick(r.env, 400, 60, 6)
	r.env.Say("sessions on the other node")
	resumed := 0
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		config := &tls.Config{ServerName: string(host), RootCAs: w.ca.Roots, MinVersion: version, MaxVersion: version, ClientSessionCache: oneSession{tls.NewLRUClientSessionCache(1)}, NextProtos: []string{"http/1.1"}} //nolint:gosec // what visitors may have
		for i := range n/2 + 1 {
			conn, err := dial(ctx, w.nodes[i%len(w.nodes)].HTTPS(), config)
			if err != nil {
				return fmt.Errorf("visit %s: %w", host, err)
			}
			if conn.ConnectionState().DidResume {
				resumed++
			}
			// Tickets of TLS 1.3 come after the handshake: an answer has passed them.
			if err := errors.Join(request(conn, host), conn.Close()); err != nil {
				return fmt.Errorf("visit %s: %w", host, err)
			}
		}
	}
	r.rep.Add("sessions resumed on the other node", float64(resumed), "visits", report.AtLeast(float64(n)), fmt.Sprintf("of %d visits, each with the session of the one before, which was at the other node; TLS 1.2 and 1.3", n))
	return nil
}

// oneSession is a cache that knows a session whatever the server's address: clients look it up by name, and a server that
// is reached by another address is another one to crypto/tls.
type oneSession struct{ tls.ClientSessionCache }

// Get implements tls.ClientSessionCache.
func (c oneSession) Get(string) (*tls.ClientSessionState, bool) { return c.ClientSessionCache.Get("") }

// Put implements tls.ClientSessionCache.
func (c oneSession) Put(_ string, s *tls.ClientSessionState) { c.ClientSessionCache.Put("", s) }
