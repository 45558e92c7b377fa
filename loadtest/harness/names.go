package harness

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"

	"github.com/edgefleet/edgefleet/fleet"
)

const (
	// forwardTimeout is how long a member may take to answer, maxChain how many CNAMEs are followed for one answer.
	forwardTimeout = 500 * time.Millisecond
	maxChain       = 8
	portNames      = "8053"
)

// Failure is how a name is broken.
type Failure int

// The ways in which a name is broken.
const (
	// Missing: there is no such name.
	Missing Failure = iota
	// Elsewhere: it leads to somebody else.
	Elsewhere
	// Refusing: its name servers fail.
	Refusing
	// Silent: its name servers do not answer.
	Silent
)

// Names is the name server of all customers and everybody's resolver at once: it answers with the records that were set,
// and asks the members about the edge zone, so that one answer has a whole chain of CNAMEs.
type Names struct {
	servers []*dns.Server
	address string

	mu      sync.RWMutex
	records map[question][]dns.RR
	members []string
	broken  func(name string) (Failure, bool)
}

type question struct {
	name string
	kind uint16
}

// StartNames starts it on a loopback address of its own.
func (e *Env) StartNames() (*Names, error) {
	host, err := e.Host()
	if err != nil {
		return nil, err
	}
	n := &Names{address: net.JoinHostPort(host, portNames), records: map[question][]dns.RR{}, broken: func(string) (Failure, bool) { return 0, false }}
	udp, err := net.ListenPacket("udp", n.address)
	if err != nil {
		return nil, fmt.Errorf("listen for names: %w", err)
	}
	tcp, err := net.Listen("tcp", n.address)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("listen for names: %w", err), udp.Close())
	}
	n.servers = []*dns.Server{{PacketConn: udp, Handler: n}, {Listener: tcp, Handler: n}}
	for _, s := range n.servers {
		started := make(chan struct{})
		s.NotifyStartedFunc = func() { close(started) }
		go func() { _ = s.ActivateAndServe() }() // ends with Close
		<-started
	}
	return n, nil
}

// Close stops it.
func (n *Names) Close() error { return errors.Join(n.servers[0].Shutdown(), n.servers[1].Shutdown()) }

// Address is where it answers.
func (n *Names) Address() string { return n.address }

// Serve adds a name server of the edge zone.
func (n *Names) Serve(member string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.members = append(n.members, member)
}

// Break says which names are broken.
func (n *Names) Break(broken func(name string) (Failure, bool)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.broken = broken
}

// Set replaces the records of a name and type, given as they stand in a zone file; none removes them.
func (n *Names) Set(name, kind string, values ...string) error {
	var rrs []dns.RR
	for _, v := range values {
		if kind == "CNAME" {
			v = dns.Fqdn(v)
		}
		rr, err := dns.NewRR(fmt.Sprintf("%s 1 IN %s %s", dns.Fqdn(name), kind, v))
		if err != nil {
			return fleet.Invalid("record", "%s %s %s is no record: %v", name, kind, v, err)
		}
		rrs = append(rrs, rr)
	}
	q := question{dns.CanonicalName(name), dns.StringToType[kind]}
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(rrs) == 0 {
		delete(n.records, q)
		return nil
	}
	n.records[q] = rrs
	return nil
}

// ServeDNS implements dns.Handler.
func (n *Names) ServeDNS(w dns.ResponseWriter, q *dns.Msg) {
	m := new(dns.Msg)
	m.SetReply(q)
	m.RecursionAvailable = true
	size := dns.MinMsgSize
	if opt := q.IsEdns0(); opt != nil {
		size = int(opt.UDPSize())
		m.SetEdns0(opt.UDPSize(), false)
	}
	if len(q.Question) != 1 {
		m.Rcode = dns.RcodeFormatError
	} else if !n.resolve(m, q.Question[0]) {
		return
	}
	if _, udp := w.RemoteAddr().(*net.UDPAddr); udp {
		m.Truncate(size)
	}
	_ = w.WriteMsg(m) // a client that is gone asks again
}

// resolve fills m with the chain that begins at q; false means that there is no answer.
func (n *Names) resolve(m *dns.Msg, q dns.Question) bool {
	name := dns.CanonicalName(q.Name)
	for range maxChain {
		if dns.IsSubDomain(dns.Fqdn(string(Zone)), name) {
			in, err := n.forward(name, q.Qtype)
			if err != nil {
				m.Rcode = dns.RcodeServerFailure
				return true
			}
			m.Answer, m.Rcode = append(m.Answer, in.Answer...), in.Rcode
			return true
		}
		n.mu.RLock()
		rrs, broken := n.records[question{name, q.Qtype}], n.broken
		cname := n.records[question{name, dns.TypeCNAME}]
		n.mu.RUnlock()
		if f, ok := broken(strings.TrimSuffix(name, ".")); ok {
			return fail(m, f, name)
		}
		if len(rrs) > 0 || len(cname) == 0 {
			m.Answer = append(m.Answer, rrs...)
			return true
		}
		m.Answer = append(m.Answer, cname...)
		target, ok := cname[0].(*dns.CNAME)
		if !ok || q.Qtype == dns.TypeCNAME {
			return true
		}
		name = dns.CanonicalName(target.Target)
	}
	m.Rcode = dns.RcodeServerFailure
	return true
}

func fail(m *dns.Msg, f Failure, name string) bool {
	switch f {
	case Missing:
		m.Rcode = dns.RcodeNameError
	case Elsewhere:
		m.Answer = []dns.RR{&dns.CNAME{Hdr: dns.RR_Header{Name: name, Rrtype: dns.TypeCNAME, Class: dns.ClassINET, Ttl: 1}, Target: "elsewhere.example."}}
	case Refusing:
		m.Rcode = dns.RcodeServerFailure
	case Silent:
		return false
	}
	return true
}

// forward asks one member after the other.
func (n *Names) forward(name string, kind uint16) (*dns.Msg, error) {
	q := new(dns.Msg)
	q.SetQuestion(name, kind)
	q.SetEdns0(4096, false)
	n.mu.RLock()
	members := n.members
	n.mu.RUnlock()
	err := error(fleet.NewError(fleet.ErrUnavailable, "names", "the edge zone has no name server"))
	for _, m := range members {
		var in *dns.Msg
		in, _, err = (&dns.Client{Timeout: forwardTimeout}).Exchange(q, m)
		if err == nil && in.Truncated {
			in, _, err = (&dns.Client{Net: "tcp", Timeout: forwardTimeout}).Exchange(q, m)
		}
		if err == nil && in.Rcode != dns.RcodeServerFailure && in.Rcode != dns.RcodeRefused {
			return in, nil
		}
	}
	return nil, fleet.NewError(fleet.ErrUnavailable, "names", "no member answers for %s: %v", name, err)
}
