package proxy

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"runtime/debug"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	"github.com/edgefleet/edgefleet/edgenode/config"
	"github.com/edgefleet/edgefleet/edgenode/waf"
	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/fleet/request"
	"github.com/edgefleet/edgefleet/observability"
)

// exchange is one request and its answer on their way through the edge.
type exchange struct {
	proxy    *Proxy
	id       string
	start    time.Time
	snapshot *config.Snapshot
	client   netip.AddrPort
	w        *recorder
	r        *http.Request
	// scheme is the client's: https, or http for ACME challenges.
	scheme string

	// host is nil until the request was found to be for one; name is what the client calls it, which is not its name where
	// that is a wildcard.
	host *config.Host
	name fleet.HostName
	// body is nil if the request has none.
	body *body
	// events wait for the status that they are reported with.
	events []fleet.Event
	// headers are what the tenant's rules add to the origin's answer.
	headers [][2]string
}

// handler makes an http.Handler of serve: it numbers, limits, counts and fences requests.
func (p *Proxy) handler(serve func(*exchange)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		x := p.newExchange(w, r)
		defer x.end() //nolint:contextcheck // the exchange carries its request and so its context
		if p.active.Add(1) > int64(p.limits.Concurrent) {
			x.refuse("overload", http.StatusServiceUnavailable) //nolint:contextcheck // as above
			return
		}
		serve(x)
	})
}

func (p *Proxy) newExchange(w http.ResponseWriter, r *http.Request) *exchange {
	x := &exchange{proxy: p, id: newRequestID(), start: time.Now(), snapshot: p.snapshot(), r: r, scheme: "http"}
	if r.TLS != nil {
		x.scheme = "https"
	}
	if a, err := netip.ParseAddrPort(r.RemoteAddr); err == nil {
		x.client = netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
	}
	control := http.NewResponseController(w)
	x.w = &recorder{ResponseWriter: w, control: control, progress: p.limits.ProgressTimeout, sockets: &p.sockets, begin: x.begin}
	x.w.unlimit() // the server's own write timeout must not end a stream
	if r.Body != nil && r.Body != http.NoBody {
		x.body = newBody(r, control, p.limits)
		// In a copy: the server looks at its own request's body to decide what becomes of an unread rest.
		x.r = r.WithContext(r.Context())
		x.r.Body = x.body
	}
	return x
}

// newRequestID returns 128 random bits in hex.
func newRequestID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails: it ends the process instead
	return hex.EncodeToString(b[:])
}

// begin is called right before the final status is sent.
func (x *exchange) begin(status int) {
	if x.proxy.draining.Load() && status != http.StatusSwitchingProtocols {
		// On HTTP/1 the last answer of the connection; on HTTP/2 net/http makes it a GOAWAY.
		x.w.Header().Set("Connection", "close")
	}
	if x.host != nil && x.scheme == "https" && x.host.HSTS != "" {
		x.w.Header().Set("Strict-Transport-Security", x.host.HSTS)
	}
	x.report(status)
}

// end runs when the handler returns or panics. A panic costs this request alone.
func (x *exchange) end() {
	var abort bool
	if v := recover(); v != nil {
		abort = x.recovered(v)
	}
	status := x.w.status
	if abort || status == 0 {
		status = statusClientGone
	}
	x.report(status)
	if x.body != nil {
		x.body.finish()
	}
	x.w.limit() // for what the server still has to flush
	p := x.proxy
	p.metrics.request(x.r.Context(), status, time.Since(x.start).Seconds())
	p.active.Add(-1)
	if abort {
		panic(http.ErrAbortHandler)
	}
}

// recovered answers 500 if nothing was answered yet, and reports whether the connection has to be cut instead. The
// panic's value may hold request data and is not logged.
func (x *exchange) recovered(v any) (abort bool) {
	if err, ok := v.(error); ok && errors.Is(err, http.ErrAbortHandler) {
		return true
	}
	x.proxy.metrics.panics.Add(x.r.Context(), 1)
	x.proxy.log.ErrorContext(x.r.Context(), "panic in request", "request_id", x.id, "type", fmt.Sprintf("%T", v), "stack", string(debug.Stack()))
	if x.w.status != 0 {
		return true
	}
	writePage(x.w, x.r, http.StatusInternalServerError, x.id)
	return false
}

// refuse answers a request that goes no further.
func (x *exchange) refuse(reason string, status int) {
	x.proxy.metrics.refused.Add(x.r.Context(), 1, byReason(reason))
	writePage(x.w, x.r, status, x.id)
}

// abandon ends a request whose client went away. Without it, net/http would send an empty 200.
func (x *exchange) abandon() { panic(http.ErrAbortHandler) }

// judge reads the inspected part of the body and asks the Judge. It reports whether the request may go on; if not, it
// is answered.
func (x *exchange) judge() bool {
	p, ctx := x.proxy, x.r.Context()
	if x.host.Mode == fleet.ModeOff && !x.host.Rules.SetsModes() {
		return true
	}
	prefix, truncated, err := x.inspect()
	if err != nil {
		x.refuseBody(err)
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, p.limits.JudgeTimeout)
	defer cancel()
	in := waf.Input{
		Tenant: x.host.Tenant, Host: x.name, Mode: x.host.Mode, Rules: x.host.Rules, RulesMissing: x.host.RulesMissing,
		FailPolicy: x.host.FailPolicy, ClientAddr: x.client, Now: x.start,
		Request: request.Parse(request.Input{
			Method: x.r.Method, Scheme: x.scheme, Proto: x.r.Proto, Host: string(x.name), URI: target(x.r),
			Header: x.r.Header, Body: prefix, Truncated: truncated, ClientIP: x.client.Addr(),
		}, request.Limits{}),
	}
	d := p.options.Judge.Judge(ctx, in)
	if d.Malicious {
		p.counters.of(x.host.Tenant).detected.Add(1)
		x.trace(d)
	}
	x.events = append(x.events, d.Events...)
	if d.Block {
		x.block(d, in)
		return false
	}
	if x.r.Context().Err() != nil {
		x.abandon() // the Judge may have been interrupted
	}
	x.headers = in.Rules.Headers(in.Request, in.Now)
	return x.onePath(in.Request.Location())
}

func (x *exchange) inspect() (prefix []byte, truncated bool, err error) {
	if x.body == nil {
		return nil, false, nil
	}
	prefix, truncated, err = x.body.inspect(x.proxy.limits.InspectBytes, x.start.Add(x.proxy.limits.InspectTimeout))
	// The client was told to go on, if it asked: waiting for the origin's consent has no purpose any more.
	x.r.Header.Del("Expect")
	return prefix, truncated, err
}

// refuseBody answers a request whose body cannot be read.
func (x *exchange) refuseBody(err error) {
	var timeout interface{ Timeout() bool }
	switch {
	case errors.Is(err, errBodyTooLarge):
		x.refuse("body_too_large", http.StatusRequestEntityTooLarge)
	case errors.As(err, &timeout) && timeout.Timeout():
		x.refuse("body_timeout", http.StatusRequestTimeout)
	case x.r.Context().Err() != nil:
		x.abandon()
	default:
		x.refuse("body_malformed", http.StatusBadRequest)
	}
}

// target is the path and query as the client wrote them; the origin gets the same.
func target(r *http.Request) string {
	if r.URL.IsAbs() {
		return r.URL.RequestURI()
	}
	return r.RequestURI
}

// trace records a span for a malicious request and gives its events the trace's id. Others cost no span.
func (x *exchange) trace(d waf.Decision) {
	_, span := x.proxy.options.Telemetry.Tracer.Start(context.WithoutCancel(x.r.Context()), "malicious request",
		trace.WithTimestamp(x.start), trace.WithNewRoot(), trace.WithAttributes(
			attribute.String("tenant", string(x.host.Tenant)), attribute.String("host", string(x.host.Name)),
			attribute.String("request_id", x.id), attribute.Bool("blocked", d.Block),
		))
	defer span.End()
	if id := span.SpanContext().TraceID(); id.IsValid() {
		for i := range d.Events {
			d.Events[i].TraceID = id.String()
		}
	}
}

// report hands the events of the request to the sink, once.
func (x *exchange) report(status int) {
	events := x.events
	x.events = nil
	for _, ev := range events {
		ev.RequestID, ev.ResponseStatus, ev.Time = x.id, status, x.start.UTC()
		ev.NodeID, ev.Region, ev.Software = x.proxy.options.Node, x.proxy.options.Region, observability.Version
		ev.Ruleset = x.snapshot.Versions[fleet.HeadRuleset]
		x.proxy.options.Events.Append(ev)
	}
}
