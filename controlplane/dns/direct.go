package dns

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"time"

	"github.com/miekg/dns"

	"github.com/edgefleet/edgefleet/fleet"
)

const (
	headerSize = 12
	// maxLabel bounds a label on the wire.
	maxLabel = 63
	// The bits of a header's flags: a query has none but those of keptFlags, which its answer repeats.
	flagResponse, flagAuthoritative, flagTruncated = 1 << 15, 1 << 10, 1 << 9
	keptFlags                                      = 1<<8 | 1<<4
	// authenticData may be set in a query (RFC 6840) and is not repeated.
	authenticData = 1 << 5
	// optSize is an OPT record without options; namePointer points at the name of the question.
	optSize     = 11
	namePointer = 0xc000 | headerSize
)

// direct appends the answer to query to out, which is what answer says, without unpacking and packing: the addresses of a
// label, that is, nearly all of what is asked. ok is false for everything else, also when out has no room. It keeps
// nothing of query and allocates next to nothing.
func direct(src Source, ttl time.Duration, query, out []byte) (answer []byte, ok bool) {
	q, ok := parse(query)
	if !ok {
		return nil, false
	}
	var lower [maxLabel]byte
	zone := src.Zone()
	if !within(q.rest, zone) {
		return nil, false
	}
	label := lower[:len(q.label)]
	for i, b := range q.label {
		label[i] = lowerCase(b)
	}
	edges, exists := src.Label(string(label))
	if !exists {
		return nil, false
	}
	var addrs [maxAddrs]netip.Addr
	n, ok := pick(&addrs, edges, q.kind)
	if !ok || n == 0 {
		return nil, false
	}
	for i := n - 1; i > 0; i-- { // rand.Shuffle without its garbage
		j := rand.IntN(i + 1)
		addrs[i], addrs[j] = addrs[j], addrs[i]
	}
	return q.pack(query, out, addrs[:n], ttl)
}

// asked is a question of the form that direct answers.
type asked struct {
	// label is the first one, rest the others as on the wire, without the root.
	label, rest []byte
	kind        uint16
	flags       uint16
	// end is where the question ends; edns says that an OPT record follows.
	end  int
	edns bool
}

// parse reads a query with one question for an address, of a name of several labels.
func parse(query []byte) (q asked, ok bool) {
	if len(query) < headerSize+1 {
		return q, false
	}
	q.flags = binary.BigEndian.Uint16(query[2:])
	counts := binary.BigEndian.Uint64(query[4:])
	extra := counts & 0xffff
	if q.flags&^(keptFlags|authenticData) != 0 || counts>>16 != 1<<32 || extra > 1 {
		return q, false
	}
	at := headerSize
	first := true
	for {
		size := int(query[at])
		if size == 0 {
			break
		}
		if size > maxLabel || at+1+size >= len(query) || at+1+size-headerSize > 254 {
			return q, false
		}
		if first {
			q.label, first = query[at+1:at+1+size], false
			q.rest = query[at+1+size:]
		}
		at += 1 + size
	}
	if first || at+5 > len(query) {
		return q, false
	}
	q.rest = q.rest[:at-headerSize-1-len(q.label)]
	q.kind, q.end = binary.BigEndian.Uint16(query[at+1:]), at+5
	class := binary.BigEndian.Uint16(query[at+3:])
	if class != dns.ClassINET || q.kind != dns.TypeA && q.kind != dns.TypeAAAA {
		return q, false
	}
	q.edns = extra == 1
	return q, trailer(query[q.end:], q.edns)
}

// trailer reports whether what follows the question is nothing, or an OPT record of version 0 without options.
func trailer(b []byte, edns bool) bool {
	if !edns {
		return len(b) == 0
	}
	return len(b) == optSize && b[0] == 0 && binary.BigEndian.Uint16(b[1:]) == dns.TypeOPT && b[6] == 0 && b[9]|b[10] == 0
}

// within reports whether labels as they are on the wire are those of zone.
func within(wire []byte, zone fleet.HostName) bool {
	if zone == "" || len(wire) != len(zone)+1 {
		return false
	}
	for len(wire) > 0 {
		size := int(wire[0])
		if len(zone) < size || 1+size > len(wire) {
			return false
		}
		for i, b := range wire[1 : 1+size] {
			if lowerCase(b) != zone[i] || b == '.' { // a dot within a label separates nothing
				return false
			}
		}
		wire, zone = wire[1+size:], zone[size:]
		if len(zone) == 0 {
			return len(wire) == 0
		}
		if zone[0] != '.' {
			return false
		}
		zone = zone[1:]
	}
	return false
}

func lowerCase(b byte) byte {
	if 'A' <= b && b <= 'Z' {
		return b + ('a' - 'A')
	}
	return b
}

// pick chooses the addresses of a family, each edge with the chance that its weight gives it, as choose does; ok is false if
// there are too many.
func pick(addrs *[maxAddrs]netip.Addr, edges []Edge, kind uint16) (n int, ok bool) {
	most := 0
	for _, e := range edges {
		most = max(most, e.Weight)
	}
	for _, e := range edges {
		if e.Weight < most && rand.IntN(most) >= e.Weight {
			continue
		}
		for _, a := range e.Addrs {
			a = a.Unmap()
			if a.Is4() != (kind == dns.TypeA) || !a.IsValid() {
				continue
			}
			if n == maxAddrs {
				return 0, false
			}
			addrs[n] = a
			n++
		}
	}
	return n, true
}

// pack writes the answer.
func (q asked) pack(query, out []byte, addrs []netip.Addr, ttl time.Duration) ([]byte, bool) {
	size := 4
	if q.kind == dns.TypeAAAA {
		size = 16
	}
	length := q.end + len(addrs)*(12+size)
	extra := byte(0)
	if q.edns {
		length, extra = length+optSize, 1
	}
	if length > cap(out) {
		return nil, false
	}
	out = append(out[:0], query[:q.end]...)
	binary.BigEndian.PutUint16(out[2:], flagResponse|flagAuthoritative|q.flags&keptFlags)
	out[6], out[7], out[11] = 0, byte(len(addrs)), extra //nolint:gosec // at most maxAddrs
	for _, a := range addrs {
		out = binary.BigEndian.AppendUint16(out, namePointer)
		out = binary.BigEndian.AppendUint16(out, q.kind)
		out = binary.BigEndian.AppendUint16(out, dns.ClassINET)
		out = binary.BigEndian.AppendUint32(out, seconds(ttl))
		out = binary.BigEndian.AppendUint16(out, uint16(size)) //nolint:gosec // 4 or 16
		if a.Is4() {
			b := a.As4()
			out = append(out, b[:]...)
		} else {
			b := a.As16()
			out = append(out, b[:]...)
		}
	}
	if q.edns {
		out = append(out, 0, 0, byte(dns.TypeOPT), byte(ednsSize>>8), byte(ednsSize&0xff), 0, 0, 0, 0, 0, 0)
	}
	return out, true
}

// truncated is the answer without records, which tells a client to ask again by TCP.
func truncated(answer []byte) []byte {
	end := headerSize
	for answer[end] != 0 {
		end += 1 + int(answer[end])
	}
	end += 5
	flags := binary.BigEndian.Uint16(answer[2:])&keptFlags | flagResponse | flagTruncated
	binary.BigEndian.PutUint16(answer[2:], flags)
	clear(answer[6:headerSize])
	return answer[:end]
}
