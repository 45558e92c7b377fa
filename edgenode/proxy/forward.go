package proxy

import (
	"log/slog"
	"net/http"
	"net/http/httputil"
	"net/netip"
	"strconv"
	"strings"
	"sync"
)

// bufferSize is that of the buffers through which bodies are copied.
const bufferSize = 32 << 10

// forward sends the request to an origin and its answer to the client.
func (x *exchange) forward() {
	allowOnlyWebSocket(x.r)
	pool := x.proxy.origins.pool(x.host)
	reverse := httputil.ReverseProxy{
		Rewrite: x.rewrite,
		Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
			return pool.roundTrip(r, x.client.Addr(), x.originFailed)
		}),
		FlushInterval:  -1,
		BufferPool:     x.proxy.buffers,
		ModifyResponse: x.modify,
		ErrorHandler:   x.failed,
		ErrorLog:       slog.NewLogLogger(serverLog{x.proxy.metrics}, slog.LevelInfo),
	}
	reverse.ServeHTTP(x.w, x.r)
}

// allowOnlyWebSocket drops every other upgrade: h2c, say, would be a tunnel around the rules.
func allowOnlyWebSocket(r *http.Request) {
	r.Header.Del("Http2-Settings")
	upgrade := r.Header["Upgrade"]
	if len(upgrade) == 1 && strings.EqualFold(upgrade[0], "websocket") && r.Method == http.MethodGet && r.ProtoMajor == 1 && r.ContentLength == 0 {
		return
	}
	r.Header.Del("Upgrade")
}

// rewrite completes what httputil did: it has removed hop-by-hop headers, and the client's forwarding headers.
func (x *exchange) rewrite(pr *httputil.ProxyRequest) {
	out := pr.Out
	located(pr.In, out.URL)
	// As the rules saw it: httputil would drop what is not a query to url.ParseQuery.
	out.URL.RawQuery = pr.In.URL.RawQuery
	// The server fills in the values when the body ends.
	out.Trailer = pr.In.Trailer
	for name := range out.Header {
		if edgeOnly(name) {
			delete(out.Header, name)
		}
	}
	client := x.client.Addr().String()
	out.Header.Set("X-Forwarded-For", client)
	out.Header.Set("X-Forwarded-Host", pr.In.Host)
	out.Header.Set("X-Forwarded-Proto", x.scheme)
	out.Header.Set("Forwarded", forwarded(x.client.Addr(), pr.In.Host, x.scheme))
	out.Header.Set("X-Request-Id", x.id)
	version := strconv.Itoa(pr.In.ProtoMajor)
	if pr.In.ProtoMajor == 1 {
		version += "." + strconv.Itoa(pr.In.ProtoMinor)
	}
	out.Header["Via"] = append(out.Header["Via"], version+" "+x.proxy.via)
	out.Header[loopHeader] = append(out.Header[loopHeader], x.proxy.loop)
	x.tellOrigin(out.Header)
}

// edgeOnly reports whether a header says what only the edge may say. CGI and its successors make one variable of
// X-Forwarded-For and X_Forwarded_For.
func edgeOnly(name string) bool {
	name = strings.ToLower(strings.ReplaceAll(name, "_", "-"))
	return strings.HasPrefix(name, "x-forwarded-") || name == "forwarded" || name == "x-real-ip" || name == "x-request-id" ||
		name == "client-cert" || name == "client-cert-chain"
}

// forwarded is the header of RFC 7239. The host is quoted for its port, and needs no escapes: it is a host name.
func forwarded(client netip.Addr, host, scheme string) string {
	node := client.String()
	if client.Is6() {
		node = `"[` + node + `]"`
	}
	return "for=" + node + `;host="` + host + `";proto=` + scheme
}

// modify completes an origin's answer.
func (x *exchange) modify(res *http.Response) error {
	// It would lead clients past the edge.
	res.Header.Del("Alt-Svc")
	for _, h := range x.headers {
		res.Header.Set(h[0], h[1])
	}
	res.Header.Set("X-Request-Id", x.id)
	return nil
}

func (x *exchange) originFailed(reason string) {
	if x.body.err() == nil { // otherwise the client failed, not the origin
		x.proxy.metrics.originErrors.Add(x.r.Context(), 1, byReason(reason))
	}
}

// failed answers a request that no origin has answered.
func (x *exchange) failed(w http.ResponseWriter, _ *http.Request, err error) {
	switch bodyErr := x.body.err(); {
	case x.w.status != 0:
		// An upgrade that broke off; the connection is not ours any more.
	case bodyErr != nil:
		x.refuseBody(bodyErr)
	case x.r.Context().Err() != nil:
		x.abandon()
	default:
		_, status := originError(err)
		writePage(w, x.r, status, x.id)
	}
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// bufferPool lends the buffers through which bodies are copied.
type bufferPool struct{ pool sync.Pool }

func newBufferPool() *bufferPool {
	return &bufferPool{sync.Pool{New: func() any { return new([bufferSize]byte) }}}
}

// Get implements httputil.BufferPool.
func (p *bufferPool) Get() []byte { return p.pool.Get().(*[bufferSize]byte)[:] }

// Put implements httputil.BufferPool.
func (p *bufferPool) Put(b []byte) { p.pool.Put((*[bufferSize]byte)(b)) }
