package hosts_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"iter"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	mdns "github.com/miekg/dns"

	"github.com/edgefleet/edgefleet/controlplane/blobs"
	"github.com/edgefleet/edgefleet/controlplane/command"
	"github.com/edgefleet/edgefleet/controlplane/dns"
	"github.com/edgefleet/edgefleet/controlplane/dns/check"
	"github.com/edgefleet/edgefleet/controlplane/leader"
	"github.com/edgefleet/edgefleet/controlplane/leader/heads"
	"github.com/edgefleet/edgefleet/controlplane/leader/hosts"
	"github.com/edgefleet/edgefleet/controlplane/state"
	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/observability"
	"github.com/edgefleet/edgefleet/tls/alpn"
	"github.com/edgefleet/edgefleet/tls/certstore"
	"github.com/edgefleet/edgefleet/tls/issuance"
	"github.com/edgefleet/edgefleet/tls/issuance/pebbletest"
	"github.com/edgefleet/edgefleet/tls/keyring"
)

// world is all that a host needs to become active, for real but for consensus and the edge's program: the state
// machine, the heads loop, the edge zone's DNS server, customers' DNS, edges on loopback, and a certificate authority.
type world struct {
	*machine
	t   *testing.T
	lib *blobs.Library
	ca  *pebbletest.Pebble
	// web and secure are the ports of the edges.
	web, secure uint16
	resolver    string

	mu      sync.Mutex
	records map[string]string // customers' CNAMEs
	silent  map[fleet.NodeID]bool
	skew    time.Duration
}

var edgeAddrs = map[fleet.NodeID]netip.Addr{"n1": netip.MustParseAddr("127.0.0.11"), "n2": netip.MustParseAddr("127.0.0.12")}

func newWorld(t *testing.T) *world {
	t.Helper()
	return newWorldWith(t, pebbletest.Options{})
}

// newWorldWith is newWorld with a certificate authority of another kind.
func newWorldWith(t *testing.T, ca pebbletest.Options) *world {
	t.Helper()
	var nodes []fleet.Node
	for id, a := range edgeAddrs {
		nodes = append(nodes, fleet.Node{
			ID: id, Spec: fleet.NodeSpec{Group: fleet.DefaultGroup, Region: fleet.DefaultRegion, Addresses: []netip.Addr{a}},
			Observed: fleet.NodeObserved{State: fleet.NodeUp, Serving: true},
		})
	}
	w := &world{machine: newMachine(t, nodes...), t: t, records: map[string]string{}, silent: map[fleet.NodeID]bool{}}
	w.tenant(t, "acme")
	w.lib = blobs.New(w.state, w.keys)
	h := &heads.Loop{State: w.state, Library: w.lib, Proposer: w.machine, Publish: func(string, []byte) error { return nil }, Now: w.now}
	w.background(h.Run)
	w.background(w.acknowledge)
	w.web = listenAll(t, func(l net.Listener) { _ = http.Serve(l, http.HandlerFunc(w.answerHTTP)) })
	w.secure = listenAll(t, func(l net.Listener) {
		_ = http.Serve(tls.NewListener(l, &tls.Config{GetCertificate: w.certificate, GetConfigForClient: w.validation}), http.NotFoundHandler())
	})
	zoneServer, err := dns.Listen(dns.Options{Listen: "127.0.0.1:0", Source: source{w.state}, Telemetry: observability.Discard()})
	if err != nil {
		t.Fatal(err)
	}
	w.background(zoneServer.Run)
	w.resolver = w.recursive(zoneServer.Addr().String())
	ca.Resolver, ca.HTTPPort, ca.TLSPort = w.resolver, int(w.web), int(w.secure)
	w.ca = pebbletest.Start(t, ca)
	return w
}

// background runs work until the test ends.
func (w *world) background(work func(context.Context) error) {
	w.t.Helper()
	ctx, cancel := context.WithCancel(w.t.Context())
	done := make(chan error, 1)
	go func() { done <- work(ctx) }()
	w.t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil && !errors.Is(err, context.Canceled) {
			w.t.Error(err)
		}
	})
}

func (w *world) now() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return time.Now().UTC().Add(w.skew)
}

func (w *world) set(records ...fleet.Record) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, r := range records {
		w.records[r.Name+"."] = r.Value + "."
	}
}

func (w *world) quiet(id fleet.NodeID, silent bool) {
	w.mu.Lock()
	w.silent[id] = silent
	w.mu.Unlock()
}

// acknowledge plays the nodes' reports: each has what the committed heads name, at once.
func (w *world) acknowledge(ctx context.Context) error {
	for ctx.Err() == nil {
		ws := w.state.Watch(state.Heads)
		head, ok := w.state.Read().Head(fleet.DefaultGroup, fleet.HeadCerts)
		var cmd command.NodesReport
		for _, n := range w.state.Read().Nodes() {
			w.mu.Lock()
			silent := w.silent[n.ID]
			w.mu.Unlock()
			if r, _ := n.Observed.Head(fleet.HeadCerts); !ok || silent || r.Version == head.Version {
				continue
			}
			n.Observed.Heads = []fleet.HeadReport{{Kind: fleet.HeadCerts, Version: head.Version, Root: head.Root}}
			cmd.Reports = append(cmd.Reports, command.NodeReport{ID: n.ID, Observed: n.Observed})
		}
		if len(cmd.Reports) > 0 {
			if _, err := w.Propose(ctx, leader.Header("nodes", w.now()), cmd); err != nil {
				return err
			}
		}
		pause, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
		_ = ws.WatchCtx(pause) // either way the heads are looked at again
		cancel()
	}
	return nil
}

// answerHTTP is port 80 of the edges. One that is silent knows no answer.
func (w *world) answerHTTP(rw http.ResponseWriter, r *http.Request) {
	local, _ := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	w.mu.Lock()
	for id, a := range edgeAddrs {
		if local != nil && strings.HasPrefix(local.String(), a.String()+":") && w.silent[id] {
			w.mu.Unlock()
			http.NotFound(rw, r)
			return
		}
	}
	w.mu.Unlock()
	for _, c := range w.state.Read().Challenges() {
		if c.Type == fleet.ChallengeHTTP01 && strings.HasSuffix(r.URL.Path, "/"+c.Token) && strings.Split(r.Host, ":")[0] == string(c.Host) {
			_, _ = io.WriteString(rw, c.Response) // the CA sees a broken answer
			return
		}
	}
	http.NotFound(rw, r)
}

// validation is what edges show a CA that looks for a TLS-ALPN-01 answer.
func (w *world) validation(hello *tls.ClientHelloInfo) (*tls.Config, error) {
	if !alpn.Asked(hello) {
		return nil, nil
	}
	all := w.state.Read().ChallengesOf(fleet.HostName(hello.ServerName), fleet.ChallengeTLSALPN01)
	if len(all) == 0 {
		return nil, errors.New("no answer")
	}
	cert, err := alpn.Certificate(all[0].Host, all[0].Response)
	if err != nil {
		return nil, err
	}
	return alpn.Config(cert), nil
}

func (w *world) certificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	c, ok := w.state.Read().Certificate(fleet.HostName(hello.ServerName))
	if !ok {
		return nil, errors.New("unknown name")
	}
	key, err := w.kek.Open(c.Key, keyring.CertKeyAAD(c.Tenant, c.Host, c.SPKI, c.Generation))
	if err != nil {
		return nil, err
	}
	private, err := x509.ParsePKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return &tls.Certificate{Certificate: ders(c.Chain), PrivateKey: private}, nil
}

// recursive is a resolver: customers' CNAMEs, and the edge zone from its authoritative server.
func (w *world) recursive(authoritative string) string {
	w.t.Helper()
	handler := mdns.HandlerFunc(func(rw mdns.ResponseWriter, req *mdns.Msg) {
		m := new(mdns.Msg).SetReply(req)
		q := req.Question[0]
		name := q.Name
		for range 8 {
			w.mu.Lock()
			target := w.records[name]
			w.mu.Unlock()
			if target == "" {
				break
			}
			m.Answer = append(m.Answer, &mdns.CNAME{Hdr: mdns.RR_Header{Name: name, Rrtype: mdns.TypeCNAME, Class: mdns.ClassINET}, Target: target})
			if name = target; q.Qtype == mdns.TypeCNAME {
				break
			}
		}
		if mdns.IsSubDomain(string(zone)+".", name) && q.Qtype != mdns.TypeCNAME {
			in, err := mdns.Exchange(new(mdns.Msg).SetQuestion(name, q.Qtype), authoritative)
			if err != nil {
				m.Rcode = mdns.RcodeServerFailure
			} else {
				m.Answer, m.Rcode = append(m.Answer, in.Answer...), in.Rcode
			}
		}
		_ = rw.WriteMsg(m) // the client sees a missing answer
	})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		w.t.Fatal(err)
	}
	p, err := net.ListenPacket("udp", l.Addr().String())
	if err != nil {
		w.t.Fatal(err)
	}
	for _, s := range []*mdns.Server{{Listener: l, Handler: handler}, {PacketConn: p, Handler: handler}} {
		started := make(chan struct{})
		s.NotifyStartedFunc = func() { close(started) }
		go func() { _ = s.ActivateAndServe() }()
		<-started
		w.t.Cleanup(func() { _ = s.Shutdown() })
	}
	return l.Addr().String()
}

// loop makes a host loop as the application does; wrap changes its options.
func (w *world) loop(wrap func(*hosts.Options)) *hosts.Loop {
	w.t.Helper()
	tel := observability.Discard()
	ch := &hosts.Challenges{State: w.state, Proposer: w.machine, Fetch: w.lib.Blob, Now: w.now, Settle: time.Millisecond, Acknowledge: 2 * time.Second}
	issuer, err := issuance.New(issuance.Options{
		Directory: w.ca.Directory, Roots: w.ca.Roots, Email: "ops@example.com", Challenges: ch, Telemetry: tel,
		Storage: certstore.New(&hosts.Accounts{State: w.state, Proposer: w.machine, Now: w.now}, w.kek),
	})
	if err != nil {
		w.t.Fatal(err)
	}
	o := hosts.Options{
		State: w.state, Proposer: w.machine, Fetch: w.lib.Blob, Resolver: &check.Resolver{Servers: []string{w.resolver}}, Authorities: []hosts.Authority{{Directory: w.ca.Directory, Issuer: issuer, Identity: issuer.Identity}}, Challenges: ch,
		Sealer: w.kek, Handshake: hosts.NewHandshake(w.ca.IssuerRoots(w.t), w.secure), Telemetry: tel, Scale: 0.01, Now: w.now,
	}
	if wrap != nil {
		wrap(&o)
	}
	l, err := hosts.New(o)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() {
		if u := tel.Undeclared(); len(u) > 0 {
			w.t.Error(u)
		}
	})
	return l
}

// source is the edge zone over the state.
type source struct{ state *state.Store }

func (s source) Apex() dns.Apex { return dns.Apex{Zone: zone, Serial: uint32(s.state.Read().Index())} }

func (source) Zone() fleet.HostName { return zone }

func (source) Labels() iter.Seq[string] { return func(func(string) bool) {} }

func (s source) Label(label string) ([]dns.Edge, bool) {
	l, ok := s.state.Read().Label(label)
	var edges []dns.Edge
	nodes := dns.Serving(fleet.DNSSet{}, false, s.state.Read().Nodes(), nil)
	for _, c := range s.state.Read().ChallengesOfHost(l.Host) {
		nodes = dns.Without(nodes, c.OutAt(time.Now()))
	}
	for _, n := range nodes {
		edges = append(edges, dns.Edge{Addrs: n.Spec.Addresses, Weight: n.Spec.Share()})
	}
	return edges, ok
}

func (s source) DCV(label string) (values []string, ok, current bool) {
	v := s.state.Read()
	_, ok = v.Label(label)
	for _, c := range v.Challenges() {
		if h, _ := v.Host(c.Host); c.Type == fleet.ChallengeDNS01 && h.Desired.DCV() == label {
			values = append(values, c.Response)
		}
	}
	return values, ok, true
}
