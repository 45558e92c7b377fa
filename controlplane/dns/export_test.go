package dns

import (
	"time"

	"github.com/miekg/dns"
)

// Respond is what a client gets for req, without sockets and limits.
func Respond(src Source, req *dns.Msg, udp bool) *dns.Msg {
	return answer(src, 20*time.Second, req, maxSize(req, udp))
}

// Direct is what a client gets for a packet without it being unpacked; ok is false if it has to be.
func Direct(src Source, query []byte) (answer []byte, ok bool) {
	return direct(src, 20*time.Second, query, make([]byte, 0, dns.MinMsgSize))
}

// DirectInto is Direct with the caller's room.
func DirectInto(src Source, query, out []byte) { direct(src, 20*time.Second, query, out) }
