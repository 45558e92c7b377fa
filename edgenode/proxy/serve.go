package proxy

import (
	"net/http"
	"strconv"
	"strings"

	"github.com/edgefleet/edgefleet/edgenode/config"
)

// challengePrefix is where HTTP-01 answers are fetched (RFC 8555 section 8.3).
const challengePrefix = "/.well-known/acme-challenge/"

// loopHeader is where content delivery networks write their names (RFC 8586).
const loopHeader = "Cdn-Loop"

// maxToken bounds a challenge token; CAs use 43 characters.
const maxToken = 256

// serveHTTPS serves a request on the TLS listener.
func (p *Proxy) serveHTTPS(x *exchange) {
	name, ok := canonicalHost(x.r.Host)
	if !ok || x.r.TLS == nil {
		x.refuse("unknown_host", http.StatusMisdirectedRequest)
		return
	}
	sni, ok := canonicalHost(x.r.TLS.ServerName)
	if x.name, x.host = name, x.snapshot.Host(name); x.host == nil {
		x.refuse("unknown_host", http.StatusMisdirectedRequest)
		return
	}
	// Otherwise a connection's certificate would vouch for another tenant's host, or its client for itself where it has to
	// show more.
	if !ok || !x.mayServe(name, sni) {
		x.host = nil // nothing of it is shown
		x.refuse("other_host", http.StatusMisdirectedRequest)
		return
	}
	p.counters.of(x.host.Tenant).requests.Add(1)
	// A CA may have followed a redirect to here.
	if token, challenge := challengeToken(x.r); challenge {
		x.serveChallenge(token)
		return
	}
	if x.acceptable() && x.judge() {
		x.forward()
	}
}

// serveChallenge answers a token that the edge was given; any other goes to the origin, because the customer's own ACME
// client may have asked for it. It is not judged, so nothing of the client's choice but the token goes along: all headers
// are dropped, save those that acceptable has looked at.
func (x *exchange) serveChallenge(token string) {
	if answer, known := x.snapshot.Challenges[config.ChallengeKey{Host: x.name, Token: token}]; known {
		x.answerChallenge(answer)
		return
	}
	if x.acceptable() {
		x.r.Header = http.Header{"Via": x.r.Header["Via"], loopHeader: x.r.Header[loopHeader]}
		x.forward()
	}
}

// serveHTTP serves a request on the plain listener: challenges, and redirects for all else.
func (p *Proxy) serveHTTP(x *exchange) {
	name, ok := canonicalHost(x.r.Host)
	if !ok {
		x.refuse("unknown_host", http.StatusMisdirectedRequest)
		return
	}
	token, challenge := challengeToken(x.r)
	// A host's challenge may be here before the host: its certificate comes first.
	if answer, known := x.snapshot.Challenges[config.ChallengeKey{Host: name, Token: token}]; challenge && known {
		x.answerChallenge(answer)
		return
	}
	if x.name, x.host = name, x.snapshot.Host(name); x.host == nil {
		x.refuse("unknown_host", http.StatusMisdirectedRequest)
		return
	}
	p.counters.of(x.host.Tenant).requests.Add(1)
	switch {
	case challenge:
		x.serveChallenge(token)
	case x.acceptable():
		x.servePlain(string(name))
	}
}

// challengeToken returns the token of a request that can only be a CA's: another form of it is an ordinary request.
func challengeToken(r *http.Request) (token string, ok bool) {
	token, ok = strings.CutPrefix(target(r), challengePrefix)
	if !ok || token == "" || len(token) > maxToken || (r.Method != http.MethodGet && r.Method != http.MethodHead) {
		return "", false
	}
	if r.ContentLength != 0 || len(r.TransferEncoding) > 0 {
		return "", false
	}
	for i := range len(token) {
		c := token[i]
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' && c != '_' {
			return "", false
		}
	}
	return token, true
}

func (x *exchange) answerChallenge(answer string) {
	h := x.w.Header()
	h.Set("Content-Type", "text/plain; charset=utf-8")
	h.Set("Content-Length", strconv.Itoa(len(answer)))
	h.Set("Cache-Control", "no-store")
	h.Set("X-Request-Id", x.id)
	_, _ = x.w.Write([]byte(answer)) // a client that is gone needs no answer
}

// servePlain sends visitors to HTTPS, unless another CDN has their TLS and comes here without.
func (x *exchange) servePlain(name string) {
	if !x.host.Plain || x.host.ClientPolicy != "" {
		x.redirect(name)
		return
	}
	if x.judge() {
		x.forward()
	}
}

// redirect keeps method, path and query.
func (x *exchange) redirect(name string) {
	if port := x.proxy.options.HTTPSPort; port != 443 {
		name += ":" + strconv.Itoa(int(port))
	}
	path := target(x.r)
	if path == "*" {
		path = "/"
	}
	h := x.w.Header()
	h.Set("Location", "https://"+name+path)
	h.Set("X-Request-Id", x.id)
	h.Set("Content-Length", "0")
	x.w.WriteHeader(http.StatusPermanentRedirect)
}

// acceptable refuses what must not be forwarded, whatever the rules say.
func (x *exchange) acceptable() bool {
	switch r := x.r; {
	case r.Method == http.MethodConnect || r.Method == http.MethodTrace:
		x.refuse("method", http.StatusMethodNotAllowed)
	case !strings.HasPrefix(target(r), "/") && (r.Method != http.MethodOptions || r.RequestURI != "*"):
		// Opaque forms such as "http:admin": an origin would read another path than the rules did.
		x.refuse("target", http.StatusBadRequest)
	case x.looped():
		x.refuse("loop", http.StatusLoopDetected)
	case r.ContentLength > x.proxy.limits.BodyBytes:
		x.refuse("body_too_large", http.StatusRequestEntityTooLarge)
	default:
		return true
	}
	return false
}

// looped reports whether the request was forwarded by this node, or by another of its fleet, before.
func (x *exchange) looped() bool {
	for _, line := range x.r.Header[loopHeader] {
		for hop := range strings.SplitSeq(line, ",") {
			// RFC 8586: a name, and parameters behind semicolons.
			id, _, _ := strings.Cut(hop, ";")
			if strings.TrimSpace(id) == x.proxy.loop {
				return true
			}
		}
	}
	for _, line := range x.r.Header["Via"] {
		for hop := range strings.SplitSeq(line, ",") {
			// RFC 9110 section 7.6.3: protocol, received-by, optional comment.
			if f := strings.Fields(hop); len(f) >= 2 && strings.EqualFold(f[1], x.proxy.via) {
				return true
			}
		}
	}
	return false
}
