package devfleet

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/edgefleet/edgefleet/fleet"
	"github.com/miekg/dns"
	"golang.org/x/sync/errgroup"
)

const (
	// maxChain bounds the CNAMEs followed for one answer.
	maxChain = 8
	// forwardTimeout is how long one member may take to answer.
	forwardTimeout = 500 * time.Millisecond
	recordTTL      = 1
)

// customerTypes are the record types that a customer may set here.
var customerTypes = []uint16{dns.TypeA, dns.TypeAAAA, dns.TypeCNAME, dns.TypeTXT, dns.TypeCAA, dns.TypeNS}

// customerDNS plays the customers' DNS provider and everybody's resolver at once: it answers what was set here and
// asks the members about names in the edge zone, so that one answer holds the whole CNAME chain. When every
// member is away, names in the edge zone are SERVFAIL and the others still answered.
type customerDNS struct {
	zone    string
	members []string
	// last is the index of the member that answered last: it is asked first.
	last atomic.Int64

	mu      sync.RWMutex
	records map[rrKey][]dns.RR
}

type rrKey struct {
	name string
	kind uint16
}

// newCustomerDNS delegates zone to members (host:port), whose name servers are called by the members' names.
func newCustomerDNS(zone string, members []string) (*customerDNS, error) {
	d := &customerDNS{zone: dns.CanonicalName(zone), members: members, records: map[rrKey][]dns.RR{}}
	var servers []string
	for i, m := range members {
		host, _, err := net.SplitHostPort(m)
		if err != nil {
			return nil, fmt.Errorf("address of member: %w", err)
		}
		ns := fmt.Sprintf("%s.ns.%s", memberName(i+1), d.zone)
		servers = append(servers, ns)
		if err := d.set(ns, "A", []string{host}); err != nil {
			return nil, err
		}
	}
	return d, d.set(d.zone, "NS", servers)
}

// Record is one record that was set.
type Record struct {
	Name  string `json:"name"`
	Type  string `json:"type"`
	Value string `json:"value"`
}

// set replaces the records of one name and type; no values removes them.
func (d *customerDNS) set(name, kind string, values []string) error {
	t, ok := dns.StringToType[strings.ToUpper(kind)]
	if !ok || !slices.Contains(customerTypes, t) {
		return fleet.Invalid("type", "%q is not a record type that can be set: use A, AAAA, CNAME, TXT, CAA or NS", kind)
	}
	if _, ok := dns.IsDomainName(name); !ok || name == "" {
		return fleet.Invalid("name", "%q is not a DNS name", name)
	}
	key := rrKey{dns.CanonicalName(name), t}
	var rrs []dns.RR
	for _, v := range values {
		if strings.ContainsAny(v, "\r\n") {
			return fleet.Invalid("value", "%q is more than one line: give each record as a value of its own", v)
		}
		if t == dns.TypeTXT && !strings.HasPrefix(v, `"`) {
			v = fmt.Sprintf("%q", v)
		}
		if t == dns.TypeCNAME || t == dns.TypeNS {
			v = dns.Fqdn(v)
		}
		rr, err := dns.NewRR(fmt.Sprintf("%s %d IN %s %s", key.name, recordTTL, dns.TypeToString[t], v))
		if err != nil || rr == nil {
			return fleet.Invalid("value", "%q is not a value of a %s record: %v", v, dns.TypeToString[t], err)
		}
		rrs = append(rrs, rr)
	}
	if t == dns.TypeCNAME && len(rrs) > 1 {
		return fleet.Invalid("value", "a name has at most one CNAME")
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(rrs) == 0 {
		delete(d.records, key)
		return nil
	}
	d.records[key] = rrs
	return nil
}

func (d *customerDNS) list() []Record {
	d.mu.RLock()
	defer d.mu.RUnlock()
	rs := []Record{}
	for k, rrs := range d.records {
		for _, rr := range rrs {
			value := strings.TrimPrefix(rr.String(), rr.Header().String())
			rs = append(rs, Record{strings.TrimSuffix(k.name, "."), dns.TypeToString[k.kind], value})
		}
	}
	slices.SortFunc(rs, func(a, b Record) int {
		return strings.Compare(a.Name+" "+a.Type+" "+a.Value, b.Name+" "+b.Type+" "+b.Value)
	})
	return rs
}

// run serves on addr, UDP and TCP, until ctx ends. It calls ready once both are bound.
func (d *customerDNS) run(ctx context.Context, addr string, ready func()) error {
	var lc net.ListenConfig
	pc, err := lc.ListenPacket(ctx, "udp", addr)
	if err != nil {
		return fmt.Errorf("customer dns: %w", err)
	}
	l, err := lc.Listen(ctx, "tcp", pc.LocalAddr().String())
	if err != nil {
		return errors.Join(fmt.Errorf("customer dns: %w", err), pc.Close())
	}
	servers := []*dns.Server{{PacketConn: pc, Handler: d}, {Listener: l, Handler: d}}
	g, ctx := errgroup.WithContext(ctx)
	var started sync.WaitGroup
	for _, s := range servers {
		started.Add(1)
		s.NotifyStartedFunc = started.Done
		g.Go(s.ActivateAndServe)
	}
	started.Wait()
	ready()
	g.Go(func() error {
		<-ctx.Done()
		return errors.Join(servers[0].Shutdown(), servers[1].Shutdown())
	})
	return g.Wait()
}

// ServeDNS answers one query.
func (d *customerDNS) ServeDNS(w dns.ResponseWriter, q *dns.Msg) {
	reply := new(dns.Msg)
	reply.SetReply(q)
	reply.RecursionAvailable = true
	if q.Opcode != dns.OpcodeQuery || len(q.Question) != 1 || q.Question[0].Qclass != dns.ClassINET {
		reply.Rcode = dns.RcodeNotImplemented
	} else {
		d.resolve(reply, q.Question[0])
	}
	size := dns.MinMsgSize
	if opt := q.IsEdns0(); opt != nil {
		size = int(opt.UDPSize())
		reply.SetEdns0(opt.UDPSize(), false)
	}
	if _, udp := w.RemoteAddr().(*net.UDPAddr); udp {
		reply.Truncate(size)
	}
	_ = w.WriteMsg(reply) // the client is gone: it will ask again
}

// resolve fills reply with the CNAME chain that begins at q and its final records.
func (d *customerDNS) resolve(reply *dns.Msg, q dns.Question) {
	name := dns.CanonicalName(q.Name)
	for range maxChain {
		local, exists := d.lookup(name, q.Qtype)
		inZone := dns.IsSubDomain(d.zone, name)
		if inZone && len(local) == 0 {
			in, err := d.forward(name, q.Qtype)
			if err != nil {
				reply.Rcode = dns.RcodeServerFailure
				return
			}
			reply.Answer = append(reply.Answer, in.Answer...)
			reply.Rcode = in.Rcode
			if exists && in.Rcode == dns.RcodeNameError {
				reply.Rcode = dns.RcodeSuccess // the name has other records here
			}
			local = in.Answer
		} else {
			reply.Answer = append(reply.Answer, local...)
			reply.Rcode = dns.RcodeSuccess
			if !exists {
				reply.Rcode = dns.RcodeNameError
			}
		}
		if len(local) == 0 {
			return
		}
		last, ok := local[len(local)-1].(*dns.CNAME)
		if !ok || q.Qtype == dns.TypeCNAME {
			return
		}
		name = dns.CanonicalName(last.Target)
	}
	reply.Rcode = dns.RcodeServerFailure
}

// lookup finds what was set here: the records of the type, else the CNAME. exists is false when the name has nothing at all.
func (d *customerDNS) lookup(name string, kind uint16) (rrs []dns.RR, exists bool) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	if rrs := d.records[rrKey{name, kind}]; len(rrs) > 0 {
		return rrs, true
	}
	if rrs := d.records[rrKey{name, dns.TypeCNAME}]; len(rrs) > 0 {
		return rrs, true
	}
	for k := range d.records {
		if dns.IsSubDomain(name, k.name) {
			return nil, true
		}
	}
	return nil, false
}

// forward asks one member after the other, the last good one first.
func (d *customerDNS) forward(name string, kind uint16) (*dns.Msg, error) {
	q := new(dns.Msg)
	q.SetQuestion(name, kind)
	q.SetEdns0(4096, false)
	var errs []error
	first := int(d.last.Load())
	for i := range d.members {
		n := (first + i) % len(d.members)
		in, _, err := (&dns.Client{Timeout: forwardTimeout}).Exchange(q, d.members[n])
		if err == nil && in.Truncated {
			in, _, err = (&dns.Client{Net: "tcp", Timeout: forwardTimeout}).Exchange(q, d.members[n])
		}
		if err == nil && in.Rcode != dns.RcodeServerFailure && in.Rcode != dns.RcodeRefused {
			d.last.Store(int64(n))
			return in, nil
		}
		if err == nil {
			err = fmt.Errorf("%s from %s", dns.RcodeToString[in.Rcode], d.members[n])
		}
		errs = append(errs, err)
	}
	return nil, errors.Join(errs...)
}
