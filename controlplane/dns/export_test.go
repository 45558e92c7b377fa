package dns

import (
	"time"

	"github.com/miekg/dns"
)

// Respond is what a client gets for req, without sockets and limits.
func Respond(src Source, req *dns.Msg, udp bool) *dns.Msg {
	return answer(src, 20*time.Second, req, maxSize(req, udp))
}
