package dns

import (
	"context"
	"iter"
	"net/netip"
	"strings"
	"time"

	"github.com/miekg/dns"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
)

// Secondary is a name server that transfers the zone.
type Secondary struct {
	// Addr is where it is notified; it transfers from that IP.
	Addr netip.AddrPort
	Key  Key
}

const (
	// maxTransfers bounds transfers at once, transferBatch the records of one message.
	maxTransfers  = 2
	transferBatch = 64
	// fudge is how many seconds the clocks of two name servers may differ.
	fudge = 300
	// tsigSize is more than a signature takes of an answer.
	tsigSize = 256
)

// signed is the key that a query is signed with, if it is one of ours and the signature is good.
func (s *Server) signed(w dns.ResponseWriter, req *dns.Msg) (key Key, attempted, ok bool) {
	t := req.IsTsig()
	if t == nil {
		return Key{}, false, false
	}
	for _, sec := range s.o.Secondaries {
		if sec.Key.Name == dns.CanonicalName(t.Hdr.Name) && sec.Key.Algorithm == dns.CanonicalName(t.Algorithm) && w.TsigStatus() == nil {
			return sec.Key, true, true
		}
	}
	return Key{}, true, false
}

// mayTransfer reports whether a client is a secondary that shows its own key.
func (s *Server) mayTransfer(client netip.Addr, key Key) bool {
	for _, sec := range s.o.Secondaries {
		if sec.Addr.Addr().Unmap() == client.Unmap() && sec.Key.Name == key.Name {
			return true
		}
	}
	return false
}

// transfer answers AXFR, and IXFR with all of the zone (RFC 1995 allows it) unless the client has it already. It returns
// what became of it.
func (s *Server) transfer(ctx context.Context, w dns.ResponseWriter, req *dns.Msg, client netip.Addr, udp bool) string {
	key, _, ok := s.signed(w, req)
	apex := s.o.Source.Apex()
	m := new(dns.Msg)
	m.SetReply(req)
	if !ok || !s.mayTransfer(client, key) || apex.Zone == "" || !strings.EqualFold(req.Question[0].Name, dns.Fqdn(string(apex.Zone))) {
		m.Rcode = dns.RcodeRefused
		s.reply(ctx, w, s.sign(m, key, ok))
		s.o.Telemetry.Logger.DebugContext(ctx, "zone transfer refused", "client", client, "signed", ok)
		return "refused"
	}
	m.Authoritative = true
	start := soa(apex, infrastructureTTL)
	if req.Question[0].Qtype == dns.TypeIXFR && (udp || !behind(req, apex.Serial)) {
		// By UDP the SOA alone says: ask by TCP.
		m.Answer = []dns.RR{start}
		s.reply(ctx, w, s.sign(m, key, true))
		return "current"
	}
	if udp {
		m.Rcode = dns.RcodeRefused
		s.reply(ctx, w, s.sign(m, key, true))
		return "refused"
	}
	select {
	case s.transfers <- struct{}{}:
		defer func() { <-s.transfers }()
	default:
		m.Rcode = dns.RcodeServerFailure // it tries again
		s.reply(ctx, w, s.sign(m, key, true))
		return "busy"
	}
	if err := s.send(w, req, apex, start); err != nil {
		s.o.Telemetry.Logger.WarnContext(ctx, "zone transfer broke off", "secondary", client, "serial", apex.Serial, "err", err)
		return "failed"
	}
	s.o.Telemetry.Logger.InfoContext(ctx, "zone transferred", "secondary", client, "serial", apex.Serial)
	return "sent"
}

// behind reports whether the SOA in an IXFR query is older than serial (RFC 1982).
func behind(req *dns.Msg, serial uint32) bool {
	for _, rr := range req.Ns {
		if has, ok := rr.(*dns.SOA); ok {
			return int32(serial-has.Serial) > 0 //nolint:gosec // it wraps around as serials do
		}
	}
	return true
}

func (s *Server) send(w dns.ResponseWriter, req *dns.Msg, apex Apex, start *dns.SOA) error {
	batches := make(chan *dns.Envelope)
	done := make(chan error, 1)
	go func() {
		err := new(dns.Transfer).Out(w, req, batches)
		for more := true; more; { // after an error nobody else takes the rest
			_, more = <-batches
		}
		done <- err
	}()
	batch := []dns.RR{start}
	for rr := range Records(s.o.Source, apex, s.o.TTL) {
		if batch = append(batch, rr); len(batch) >= transferBatch {
			batches <- &dns.Envelope{RR: batch}
			batch = nil
		}
	}
	batches <- &dns.Envelope{RR: append(batch, start)}
	close(batches)
	return <-done
}

// Records yields the zone's records without its SOA. A name without records is not in them.
func Records(src Source, apex Apex, ttl time.Duration) iter.Seq[dns.RR] {
	zone := dns.Fqdn(string(apex.Zone))
	return func(yield func(dns.RR) bool) {
		all := func(rrs []dns.RR) bool {
			for _, rr := range rrs {
				if rr.Header().Rrtype != dns.TypeSOA && !yield(rr) {
					return false
				}
			}
			return true
		}
		top, _ := find(src, apex, ttl, question{zone, wholeName}, nil)
		if !all(top.records) || !all(glue(apex)) {
			return
		}
		for label := range src.Labels() {
			n, _ := find(src, apex, ttl, question{label + "." + zone, wholeName}, []string{label})
			d, _ := find(src, apex, ttl, question{label + "." + dcvLabel + "." + zone, wholeName}, []string{label, dcvLabel})
			if !all(n.records) || !all(d.records) {
				return
			}
		}
	}
}

// sign signs an answer to a query that was signed; the server adds the signature as it sends it.
func (s *Server) sign(m *dns.Msg, key Key, ok bool) *dns.Msg {
	if ok {
		m.SetTsig(key.Name, key.Algorithm, fudge, time.Now().Unix())
	}
	return m
}

func (s *Server) countTransfer(ctx context.Context, outcome string) {
	s.transfersDone.Add(ctx, 1, metric.WithAttributes(attribute.String("outcome", outcome)))
}
