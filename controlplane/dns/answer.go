package dns

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"
)

const (
	// ednsSize is the UDP payload size that avoids fragmentation (DNS flag day 2020).
	ednsSize = 1232
	// maxAddrs bounds the addresses in one answer; a fleet with more shows a random choice each time.
	maxAddrs = 16
	// dcvTTL keeps resolvers from remembering, or remembering the absence of, an answer to a challenge.
	dcvTTL = 1 * time.Second
	// infrastructureTTL is for the zone's own SOA, NS and name server addresses.
	infrastructureTTL = time.Hour
	// dcvLabel is the parent of the DCV names below the zone.
	dcvLabel = "dcv"
)

// node is what exists at one name; the zero value exists and has no records.
type node struct {
	records []dns.RR
	// negativeTTL is how long the absence of a type may be remembered.
	negativeTTL time.Duration
}

// answer makes the response to req: never nil, at most size bytes.
func answer(src Source, ttl time.Duration, req *dns.Msg, size int) *dns.Msg {
	m := new(dns.Msg)
	m.SetReply(req)
	if opt := req.IsEdns0(); opt != nil {
		m.SetEdns0(ednsSize, false)
		if opt.Version() != 0 {
			m.Rcode = dns.RcodeBadVers
			return m
		}
	}
	switch {
	case req.Opcode != dns.OpcodeQuery:
		m.Rcode = dns.RcodeNotImplemented
	case len(req.Question) != 1:
		m.Rcode = dns.RcodeFormatError
	default:
		resolve(src, ttl, m)
	}
	m.Truncate(size)
	return m
}

// resolve fills m for its question.
func resolve(src Source, ttl time.Duration, m *dns.Msg) {
	q := m.Question[0]
	labels, below := relative(q.Name, string(src.Zone()))
	if !below || q.Qclass != dns.ClassINET || q.Qtype == dns.TypeAXFR || q.Qtype == dns.TypeIXFR {
		m.Rcode = dns.RcodeRefused
		return
	}
	m.Authoritative = true
	n, exists := find(src, ttl, q.Name, labels)
	for _, rr := range n.records {
		if rr.Header().Rrtype == q.Qtype {
			m.Answer = append(m.Answer, rr)
		}
	}
	switch {
	case !exists:
		m.Rcode = dns.RcodeNameError
	case q.Qtype == dns.TypeANY:
		// RFC 8482: the least that is a correct answer, so that ANY amplifies nothing.
		m.Answer = []dns.RR{&dns.HINFO{Hdr: header(q.Name, dns.TypeHINFO, infrastructureTTL), Cpu: "RFC8482"}}
	case q.Qtype == dns.TypeNS && len(m.Answer) > 0:
		m.Extra = append(glue(src), m.Extra...)
	}
	if len(m.Answer) == 0 {
		m.Ns = []dns.RR{soa(src, n.negativeTTL)}
	}
}

// relative returns the labels of name below zone, lower case. ok is false outside the zone, and while there is none
// because the cluster was not initialised.
func relative(name, zone string) (labels []string, ok bool) {
	if zone == "" {
		return nil, false
	}
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	if name == zone {
		return nil, true
	}
	rest, ok := strings.CutSuffix(name, "."+zone)
	if !ok {
		return nil, false
	}
	return strings.Split(rest, "."), true
}

// find returns what exists at a name of the zone. owner is the name as it was asked, whose spelling answers repeat.
func find(src Source, ttl time.Duration, owner string, labels []string) (node, bool) {
	switch {
	case len(labels) == 0:
		return node{records: append([]dns.RR{soa(src, infrastructureTTL)}, nameServers(src, owner)...), negativeTTL: ttl}, true
	case len(labels) == 1 && labels[0] == dcvLabel:
		return node{negativeTTL: ttl}, true
	case len(labels) == 2 && labels[1] == dcvLabel:
		values, ok := src.DCV(labels[0])
		n := node{negativeTTL: dcvTTL}
		for _, v := range values {
			n.records = append(n.records, &dns.TXT{Hdr: header(owner, dns.TypeTXT, dcvTTL), Txt: chunks(v)})
		}
		return n, ok
	case len(labels) > 1:
		return node{negativeTTL: ttl}, false
	}
	if n, ok := serverNode(src, owner, labels[0]); ok {
		return n, true
	}
	_, addrs, ok := src.Label(labels[0])
	return node{records: addressRecords(owner, choose(addrs), ttl), negativeTTL: ttl}, ok
}

// choose puts the addresses into random order, so that load spreads, and bounds them for each family.
func choose(addrs []netip.Addr) []netip.Addr {
	addrs = slices.Clone(addrs)
	rand.Shuffle(len(addrs), func(i, j int) { addrs[i], addrs[j] = addrs[j], addrs[i] })
	n := map[bool]int{}
	return slices.DeleteFunc(addrs, func(a netip.Addr) bool {
		n[a.Unmap().Is4()]++
		return n[a.Unmap().Is4()] > maxAddrs
	})
}

func serverNode(src Source, owner, label string) (node, bool) {
	var addrs []netip.Addr
	for _, s := range src.Servers() {
		if string(s.Name) == label+"."+string(src.Zone()) {
			addrs = append(addrs, s.Addr)
		}
	}
	return node{records: addressRecords(owner, addrs, infrastructureTTL), negativeTTL: infrastructureTTL}, len(addrs) > 0
}

func addressRecords(owner string, addrs []netip.Addr, ttl time.Duration) []dns.RR {
	rrs := make([]dns.RR, 0, len(addrs))
	for _, a := range addrs {
		if a = a.Unmap(); a.Is4() {
			rrs = append(rrs, &dns.A{Hdr: header(owner, dns.TypeA, ttl), A: a.AsSlice()})
		} else if a.IsValid() {
			rrs = append(rrs, &dns.AAAA{Hdr: header(owner, dns.TypeAAAA, ttl), AAAA: a.AsSlice()})
		}
	}
	return rrs
}

// nameServers are the NS records, one for each name.
func nameServers(src Source, owner string) []dns.RR {
	var names []string
	for _, s := range src.Servers() {
		names = append(names, string(s.Name))
	}
	slices.Sort(names)
	var rrs []dns.RR
	for _, n := range slices.Compact(names) {
		rrs = append(rrs, &dns.NS{Hdr: header(owner, dns.TypeNS, infrastructureTTL), Ns: dns.Fqdn(n)})
	}
	return rrs
}

// glue are the addresses of the name servers.
func glue(src Source) []dns.RR {
	var rrs []dns.RR
	for _, s := range src.Servers() {
		rrs = append(rrs, addressRecords(dns.Fqdn(string(s.Name)), []netip.Addr{s.Addr}, infrastructureTTL)...)
	}
	return rrs
}

// soa is the zone's SOA; in the authority section its TTL says how long an absence may be remembered (RFC 2308).
func soa(src Source, ttl time.Duration) *dns.SOA {
	zone := dns.Fqdn(string(src.Zone()))
	primary := "ns1." + zone
	if s := src.Servers(); len(s) > 0 {
		primary = dns.Fqdn(string(s[0].Name))
	}
	return &dns.SOA{
		Hdr: header(zone, dns.TypeSOA, ttl), Ns: primary, Mbox: "hostmaster." + zone, Serial: src.Serial(),
		Refresh: 3600, Retry: 600, Expire: 7 * 24 * 3600, Minttl: 20,
	}
}

func header(owner string, typ uint16, ttl time.Duration) dns.RR_Header {
	return dns.RR_Header{Name: owner, Rrtype: typ, Class: dns.ClassINET, Ttl: uint32(ttl / time.Second)}
}

// chunks splits a TXT value into the strings of at most 255 bytes that the wire format has.
func chunks(v string) []string {
	var out []string
	for len(v) > 255 {
		out, v = append(out, v[:255]), v[255:]
	}
	return append(out, v)
}
