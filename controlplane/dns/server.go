package dns

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"time"

	"github.com/miekg/dns"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"golang.org/x/sync/errgroup"

	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/observability"
)

const (
	// tcpTimeout bounds how long a TCP client may be idle, tcpQueries how much it may ask.
	tcpTimeout = 5 * time.Second
	tcpQueries = 64
	// maxTCP bounds TCP connections at once.
	maxTCP = 512
	// stopTimeout bounds waiting for answers under way when the server stops.
	stopTimeout = 2 * time.Second
)

// DefaultTTL is how long resolvers may remember the addresses of a host.
const DefaultTTL = 20 * time.Second

// Options configure a Server.
type Options struct {
	// Listen is the host:port for UDP and TCP; port 0 picks one that is free for both.
	Listen string
	// Source is what the zone contains; required.
	Source    Source
	Telemetry *observability.Telemetry
	// TTL is how long resolvers may remember the addresses of a host; 20 s by default.
	TTL time.Duration
	// RateLimit is how many UDP answers a second one client network (/24, /56) gets; 200 by default.
	RateLimit int
	// Secondaries may transfer the zone, and are notified of changes; nobody else may.
	Secondaries []Secondary
	// MaxRate is how many queries a second are answered altogether; 20,000 by default.
	MaxRate int
	// Unlimited are networks for which no rate limit holds.
	Unlimited []netip.Prefix
}

func (o *Options) validate() error {
	if o.Source == nil || o.Telemetry == nil {
		return fleet.Invalid("dns", "the DNS server needs a source and telemetry")
	}
	if o.TTL == 0 {
		o.TTL = DefaultTTL
	}
	if o.RateLimit == 0 {
		o.RateLimit = 200
	}
	if o.MaxRate == 0 {
		o.MaxRate = 20_000
	}
	if o.TTL < time.Second || o.RateLimit < 1 || o.MaxRate < 1 {
		return fleet.Invalid("dns", "ttl must be at least 1s, and rate limits at least 1")
	}
	return nil
}

// Server is a bound authoritative name server.
type Server struct {
	o       Options
	udp     []*net.UDPConn
	tcp     net.Listener
	limits  *limiter
	queries metric.Int64Counter
	// outcomes are the attributes of queries.
	outcomes map[string]metric.AddOption
	// transfers holds a place for each transfer under way.
	transfers     chan struct{}
	transfersDone metric.Int64Counter
	notifier      *notifier
}

// Listen binds UDP and TCP on the same port. The error of a port that is taken says what to do about it.
func Listen(o Options) (*Server, error) {
	if err := o.validate(); err != nil {
		return nil, err
	}
	s := &Server{
		o: o, limits: newLimiter(o.RateLimit, o.MaxRate, o.Unlimited), queries: o.Telemetry.Counter("edgefleet_dns_queries_total"), outcomes: map[string]metric.AddOption{},
		transfers: make(chan struct{}, maxTransfers), transfersDone: o.Telemetry.Counter("edgefleet_dns_transfers_total"),
	}
	for _, o := range []string{"panic", "dropped", "slipped", "nodata", "answered", "nxdomain", "refused", "malformed"} {
		s.outcomes[o] = metric.WithAttributeSet(attribute.NewSet(attribute.String("outcome", o)))
	}
	s.notifier = newNotifier(s)
	// A port that the kernel picked for TCP may be taken for UDP: try others.
	var err error
	for range 8 {
		if err = s.bind(); !errors.Is(err, syscall.EADDRINUSE) || !anyPort(o.Listen) {
			break
		}
	}
	if err != nil {
		return nil, explain(o.Listen, err)
	}
	return s, nil
}

func (s *Server) bind() error {
	tcp, err := net.Listen("tcp", s.o.Listen)
	if err != nil {
		return err
	}
	udp, err := listenUDP(tcp.Addr().(*net.TCPAddr).AddrPort()) //nolint:forcetypeassert // what "tcp" gives
	if err != nil {
		return errors.Join(err, tcp.Close())
	}
	s.tcp, s.udp = &boundedListener{Listener: tcp, slots: make(chan struct{}, maxTCP)}, udp
	return nil
}

func anyPort(listen string) bool {
	_, port, err := net.SplitHostPort(listen)
	return err == nil && port == "0"
}

func explain(listen string, err error) error {
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return fleet.NewError(fleet.ErrConflict, "dns_listen", "DNS address %s is taken by another program: stop that one "+
			"(systemd-resolved: set DNSStubListener=no in /etc/systemd/resolved.conf and restart it), or set dns_listen to a public address of this machine", listen)
	case errors.Is(err, syscall.EACCES):
		return fleet.NewError(fleet.ErrDenied, "dns_listen", "DNS address %s needs the right to bind low ports: "+
			"run under the packaged systemd unit (CAP_NET_BIND_SERVICE), or set dns_listen to a port over 1023", listen)
	}
	return fmt.Errorf("listen for DNS on %s (dns_listen): %w", listen, err)
}

// Addr is where the server listens, by UDP and TCP.
func (s *Server) Addr() netip.AddrPort { return s.tcp.Addr().(*net.TCPAddr).AddrPort() }

// Run serves until ctx ends, and then closes the sockets. It is called once.
func (s *Server) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	servers := []*dns.Server{
		{Listener: s.tcp, ReadTimeout: tcpTimeout, IdleTimeout: func() time.Duration { return tcpTimeout }, MaxTCPQueries: tcpQueries},
	}
	for _, c := range s.udp {
		servers = append(servers, &dns.Server{PacketConn: &socket{UDPConn: c, server: s}, UDPSize: dns.DefaultMsgSize})
	}
	if len(s.o.Secondaries) > 0 {
		g.Go(func() error { return s.notifier.run(ctx) })
	}
	for _, server := range servers {
		server.TsigSecret = map[string]string{}
		for _, sec := range s.o.Secondaries {
			server.TsigSecret[sec.Key.Name] = sec.Key.secret
		}
		started := make(chan struct{})
		server.Handler = dns.HandlerFunc(s.serve)
		server.NotifyStartedFunc = func() { close(started) }
		done := make(chan struct{})
		g.Go(func() error {
			defer close(done)
			if err := server.ActivateAndServe(); err != nil && ctx.Err() == nil {
				return fmt.Errorf("serve DNS on %s: %w", s.Addr(), err)
			}
			return nil
		})
		g.Go(func() error {
			// Shutdown does nothing before the server has started.
			select {
			case <-started:
			case <-done:
				return nil
			}
			select {
			case <-ctx.Done():
			case <-done:
				return nil
			}
			stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
			defer cancel()
			// A client that does not read its answer is cut off by the deadline; that is no error of ours.
			_ = server.ShutdownContext(stop)
			return nil
		})
	}
	return g.Wait()
}

// Close releases the sockets of a server that was never run; Run does it itself.
func (s *Server) Close() error {
	errs := []error{s.tcp.Close()}
	for _, c := range s.udp {
		errs = append(errs, c.Close())
	}
	return errors.Join(errs...)
}

// serve answers one query. A panic costs that answer only.
func (s *Server) serve(w dns.ResponseWriter, req *dns.Msg) {
	ctx := context.Background()
	defer func() {
		if p := recover(); p != nil {
			s.count(ctx, "panic")
			s.o.Telemetry.Logger.ErrorContext(ctx, "dns answer panicked", "err", fmt.Sprint(p))
			s.reply(ctx, w, new(dns.Msg).SetRcode(req, dns.RcodeServerFailure))
		}
	}()
	client, udp := source(w.RemoteAddr())
	var m *dns.Msg
	switch s.limits.admit(client, udp, time.Now()) {
	case drop:
		s.count(ctx, "dropped")
		return
	case truncate:
		s.count(ctx, "slipped")
		m = new(dns.Msg)
		m.SetReply(req)
		m.Truncated = true
	case pass:
		if isTransfer(req) {
			s.countTransfer(ctx, s.transfer(ctx, w, req, client, udp))
			return
		}
		m = s.answerSigned(w, req, maxSize(req, udp))
		s.count(ctx, outcome(m))
	}
	s.reply(ctx, w, m)
}

// isTransfer reports whether a query asks for the whole zone.
func isTransfer(req *dns.Msg) bool {
	return req.Opcode == dns.OpcodeQuery && len(req.Question) == 1 && (req.Question[0].Qtype == dns.TypeAXFR || req.Question[0].Qtype == dns.TypeIXFR)
}

// answerSigned answers a query, signed as it was: a secondary takes nothing else. One with a wrong signature gets NOTAUTH.
func (s *Server) answerSigned(w dns.ResponseWriter, req *dns.Msg, size int) *dns.Msg {
	key, attempted, ok := s.signed(w, req)
	switch {
	case !attempted:
		return answer(s.o.Source, s.o.TTL, req, size)
	case !ok:
		return new(dns.Msg).SetRcode(req, dns.RcodeNotAuth)
	}
	return s.sign(answer(s.o.Source, s.o.TTL, req, max(size-tsigSize, dns.MinMsgSize-tsigSize)), key, true)
}

// Secondaries says how this server stands with each secondary.
func (s *Server) Secondaries() []PeerStatus { return s.notifier.status() }

func (s *Server) reply(ctx context.Context, w dns.ResponseWriter, m *dns.Msg) {
	if err := w.WriteMsg(m); err != nil {
		s.o.Telemetry.Logger.DebugContext(ctx, "dns answer not sent", "err", err)
	}
}

func (s *Server) count(ctx context.Context, outcome string) {
	s.queries.Add(ctx, 1, s.outcomes[outcome])
}

func outcome(m *dns.Msg) string {
	switch m.Rcode {
	case dns.RcodeSuccess:
		if len(m.Answer) == 0 {
			return "nodata"
		}
		return "answered"
	case dns.RcodeNameError:
		return "nxdomain"
	case dns.RcodeRefused:
		return "refused"
	}
	return "malformed"
}

// maxSize is how many bytes the answer may have.
func maxSize(req *dns.Msg, udp bool) int {
	if !udp {
		return dns.MaxMsgSize
	}
	if opt := req.IsEdns0(); opt != nil {
		return min(max(int(opt.UDPSize()), dns.MinMsgSize), ednsSize)
	}
	return dns.MinMsgSize
}

func source(a net.Addr) (client netip.Addr, udp bool) {
	switch a := a.(type) {
	case *peer:
		return a.addr.Addr(), true
	case *net.TCPAddr:
		return a.AddrPort().Addr(), false
	}
	return netip.Addr{}, true
}
