package dns

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"

	"github.com/edgefleet/edgefleet/fleet"
)

const (
	// ednsSize is the UDP payload size that avoids fragmentation (DNS flag day 2020).
	ednsSize = 1232
	// maxAddrs bounds the addresses in one answer; a fleet with more shows a random choice each time.
	maxAddrs = 16
	// maxTransferred bounds the addresses of one family and name in a transfer.
	maxTransferred = 64
	// dcvTTL keeps resolvers from remembering, or remembering the absence of, an answer to a challenge.
	dcvTTL = 1 * time.Second
	// infrastructureTTL is for the zone's own SOA, NS and name server addresses.
	infrastructureTTL = time.Hour
	// dcvLabel is the parent of the DCV names below the zone.
	dcvLabel = "dcv"
	// nsLabel is the parent of the members' names below the zone.
	nsLabel = "ns"
)

// node is what exists at one name; the zero value exists and has no records.
type node struct {
	records []dns.RR
	// negativeTTL is how long the absence of a type may be remembered.
	negativeTTL time.Duration
	// outdated: this member may not know what is there by now.
	outdated bool
}

// MemberName is the name of a member as a name server of the zone: it is the member's own, whoever else comes or goes.
func MemberName(id fleet.MemberID, zone fleet.HostName) fleet.HostName {
	return fleet.HostName(string(id) + "." + nsLabel + "." + string(zone))
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
	apex := src.Apex()
	labels, below := relative(q.Name, string(apex.Zone))
	if !below || q.Qclass != dns.ClassINET || q.Qtype == dns.TypeAXFR || q.Qtype == dns.TypeIXFR {
		m.Rcode = dns.RcodeRefused
		return
	}
	n, exists := find(src, apex, ttl, question{q.Name, q.Qtype}, labels)
	if n.outdated {
		m.Rcode = dns.RcodeServerFailure
		return
	}
	m.Authoritative = true
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
		m.Extra = append(glue(apex), m.Extra...)
	}
	if len(m.Answer) == 0 {
		m.Ns = []dns.RR{soa(apex, n.negativeTTL)}
	}
}

// question is a name as it was asked, whose spelling answers repeat, and the type that is wanted of it.
type question struct {
	owner string
	typ   uint16
}

func (q question) wants(t uint16) bool { return q.typ == t || q.typ == wholeName }

// wholeName asks for every record of a name, for a transfer.
const wholeName = dns.TypeNone

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

// find returns what exists at a name of the zone: of its records, at least those that are asked for.
func find(src Source, apex Apex, ttl time.Duration, q question, labels []string) (node, bool) {
	switch {
	case len(labels) == 0:
		records := append([]dns.RR{soa(apex, infrastructureTTL)}, nameServers(apex, q.owner)...)
		return node{records: append(records, issuers(apex, q, infrastructureTTL)...), negativeTTL: ttl}, true
	case len(labels) == 1 && (labels[0] == dcvLabel || labels[0] == nsLabel):
		return node{negativeTTL: ttl}, true
	case len(labels) == 2 && labels[1] == dcvLabel:
		return findDCV(src, q, labels[0])
	case len(labels) == 2 && labels[1] == nsLabel:
		return serverNode(apex, q.owner, labels[0]+"."+nsLabel)
	case len(labels) > 1:
		return node{negativeTTL: ttl}, false
	}
	edges, ok := src.Label(labels[0])
	if !ok {
		return node{negativeTTL: ttl}, false
	}
	if q.typ != wholeName {
		edges = choose(edges)
	}
	return node{records: append(edgeRecords(q, edges, ttl), issuers(apex, q, ttl)...), negativeTTL: ttl}, true
}

func findDCV(src Source, q question, label string) (node, bool) {
	values, ok, current := src.DCV(label)
	n := node{negativeTTL: dcvTTL, outdated: !current}
	for _, v := range values {
		n.records = append(n.records, &dns.TXT{Hdr: header(q.owner, dns.TypeTXT, dcvTTL), Txt: chunks(v)})
	}
	return n, ok
}

// issuers are the CAA records of a name: who else than our CAs issues for what points here. A CA that follows the CNAME of
// a host finds them.
func issuers(apex Apex, q question, ttl time.Duration) []dns.RR {
	if !q.wants(dns.TypeCAA) {
		return nil
	}
	var rrs []dns.RR
	for _, v := range apex.CAA {
		rrs = append(rrs, &dns.CAA{Hdr: header(q.owner, dns.TypeCAA, ttl), Tag: "issue", Value: v})
	}
	return rrs
}

// choose gives each edge its chance to be in the answer: its weight as a part of the greatest.
func choose(edges []Edge) []Edge {
	most := 0
	even := true
	for _, e := range edges {
		even = even && (most == 0 || most == e.Weight)
		most = max(most, e.Weight)
	}
	if even {
		return edges
	}
	out := make([]Edge, 0, len(edges))
	for _, e := range edges {
		if e.Weight == most || rand.IntN(most) < e.Weight {
			out = append(out, e)
		}
	}
	return out
}

// edgeRecords are the addresses of the wanted family in random order, so that load spreads, at most maxAddrs of each.
func edgeRecords(q question, edges []Edge, ttl time.Duration) []dns.RR {
	var v4, v6 []netip.Addr
	for _, e := range edges {
		for _, a := range e.Addrs {
			if a = a.Unmap(); a.Is4() {
				v4 = append(v4, a)
			} else {
				v6 = append(v6, a)
			}
		}
	}
	most := maxAddrs
	if q.typ == wholeName {
		most = maxTransferred
	} else {
		rand.Shuffle(len(v4), func(i, j int) { v4[i], v4[j] = v4[j], v4[i] })
		rand.Shuffle(len(v6), func(i, j int) { v6[i], v6[j] = v6[j], v6[i] })
	}
	var rrs []dns.RR
	if q.wants(dns.TypeA) {
		rrs = addressRecords(q.owner, v4[:min(len(v4), most)], ttl)
	}
	if q.wants(dns.TypeAAAA) {
		rrs = append(rrs, addressRecords(q.owner, v6[:min(len(v6), most)], ttl)...)
	}
	return rrs
}

func serverNode(apex Apex, owner, label string) (node, bool) {
	var addrs []netip.Addr
	for _, s := range apex.Servers {
		if s.Addr.IsValid() && string(s.Name) == label+"."+string(apex.Zone) {
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
func nameServers(apex Apex, owner string) []dns.RR {
	var names []string
	for _, s := range apex.Servers {
		names = append(names, string(s.Name))
	}
	slices.Sort(names)
	var rrs []dns.RR
	for _, n := range slices.Compact(names) {
		rrs = append(rrs, &dns.NS{Hdr: header(owner, dns.TypeNS, infrastructureTTL), Ns: dns.Fqdn(n)})
	}
	return rrs
}

// glue are the addresses of the name servers that are in the zone.
func glue(apex Apex) []dns.RR {
	var rrs []dns.RR
	for _, s := range apex.Servers {
		if s.Addr.IsValid() && s.Name.Within(apex.Zone) {
			rrs = append(rrs, addressRecords(dns.Fqdn(string(s.Name)), []netip.Addr{s.Addr}, infrastructureTTL)...)
		}
	}
	return rrs
}

// The zone's times: how often a secondary that hears no NOTIFY looks, how often it tries again, and for how long it
// answers without us.
const (
	soaRefresh = 10 * time.Minute
	soaRetry   = time.Minute
	soaExpire  = 7 * 24 * time.Hour
)

// soa is the zone's SOA; in the authority section its TTL says how long an absence may be remembered (RFC 2308).
func soa(apex Apex, ttl time.Duration) *dns.SOA {
	zone := dns.Fqdn(string(apex.Zone))
	primary := zone
	if len(apex.Servers) > 0 {
		primary = dns.Fqdn(string(apex.Servers[0].Name))
	}
	return &dns.SOA{
		Hdr: header(zone, dns.TypeSOA, ttl), Ns: primary, Mbox: "hostmaster." + zone, Serial: apex.Serial,
		Refresh: seconds(soaRefresh), Retry: seconds(soaRetry), Expire: seconds(soaExpire), Minttl: 20,
	}
}

func seconds(d time.Duration) uint32 { return uint32(d / time.Second) } //nolint:gosec // constants of days at most

func header(owner string, typ uint16, ttl time.Duration) dns.RR_Header {
	return dns.RR_Header{Name: owner, Rrtype: typ, Class: dns.ClassINET, Ttl: seconds(ttl)}
}

// chunks splits a TXT value into the strings of at most 255 bytes that the wire format has.
func chunks(v string) []string {
	var out []string
	for len(v) > 255 {
		out, v = append(out, v[:255]), v[255:]
	}
	return append(out, v)
}
