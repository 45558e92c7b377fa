package api

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path"
	"runtime/debug"
	"time"
	"unicode/utf8"

	"go.opentelemetry.io/otel/trace"

	"github.com/edgefleet/edgefleet/fleet"
)

const (
	// headerForwarded marks a request that a follower passed on; it is not passed on again.
	headerForwarded = "Edgefleet-Forwarded-By"
	// headerSource is the original caller's address, headerIdentity the verified identity of its certificate; like
	// headerForwarded, they are believed from members only.
	headerSource   = "Edgefleet-Source"
	headerIdentity = "Edgefleet-Identity"
	// headerRequestID names a request in answers, logs and the audit log.
	headerRequestID = "X-Request-Id"
	// headerReason is why a change is made, for the audit log.
	headerReason = "Edgefleet-Reason"
	// headerIndex is the index of the log up to which, at least, the answer to a read includes everything.
	headerIndex = "Edgefleet-Index"
	// headerIncarnation is the life of the cluster that headerIndex is of: after a restore, indices say nothing about those
	// before it.
	headerIncarnation = "Edgefleet-Incarnation"
)

// ServeHTTP implements http.Handler. A handler that panics costs its own request only.
func (a *API) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	started := a.o.Now()
	c := &caller{requestID: newRequestID()}
	rec := &recorder{ResponseWriter: w}
	defer func() {
		v := recover()
		if v != nil {
			a.recovered(rec, r, c, v)
		}
		a.finished(r, c, rec.Status(), a.o.Now().Sub(started))
		if v != nil && rec.status != http.StatusInternalServerError {
			panic(http.ErrAbortHandler) // the answer had begun: the client must see that it broke off
		}
	}()
	ctx, span := a.trace(r, c)
	defer span.End()
	r = r.WithContext(ctx)
	h := rec.Header()
	h.Set(headerTrace, traceparent(ctx))
	h.Set(headerRequestID, c.requestID)
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	if err := a.serve(rec, r, c); err != nil {
		h.Set(headerRequestID, c.requestID) // which may be the one of the member that passed the request on
		if c.forwarded && errors.Is(err, fleet.ErrNotLeader) {
			h.Set(headerNotLeader, "true")
		}
		writeProblem(rec, problem(err, *c))
	}
}

// serve answers r, or returns why it does not.
func (a *API) serve(w http.ResponseWriter, r *http.Request, c *caller) error {
	identified := a.identify(c, r)
	if why := r.Header.Get(headerReason); len(why) > fleet.MaxCommentLength || !utf8.ValidString(why) {
		return fleet.NewError(fleet.ErrTooLarge, "reason", "the reason has %d bytes; use at most %d, of UTF-8", len(why), fleet.MaxCommentLength)
	}
	w.Header().Set(headerRequestID, c.requestID)
	for _, name := range []string{headerForwarded, headerSource, headerIdentity} {
		r.Header.Del(name) // whoever may be believed was
	}
	op, err := a.find(w, r)
	if err != nil {
		return cmp.Or(identified, err)
	}
	local := a.local(op, r)
	if identified != nil && (local || c.forwarded || !c.unknown) {
		return a.rejected(c, identified)
	}
	if op.scope != public && c.anonymous() {
		return a.authorize(op, *c, "") // before a byte of the body is read
	}
	left, err := a.callers.enter(c.limitKey(), op.long || waitsFor[op.id] != nil && r.URL.Query().Has("index"), a.o.Now())
	if err != nil {
		return err
	}
	defer left()
	if op.upload > 0 {
		r.Body = a.uploaded(w, r, op.upload)
	} else if err := a.readBody(w, r); err != nil {
		return err
	}
	if op.crowded { // after its body, so that slow ones take no place
		left, err := a.crowd.enter(c.limitKey())
		if err != nil {
			a.metrics.crowded.Add(r.Context(), 1)
			return err
		}
		defer left()
	}
	c.request = r
	trace.SpanFromContext(r.Context()).SetName(op.pattern())
	ctx, leave := a.withSession(context.WithValue(r.Context(), callerKey{}, *c), r.Method, c)
	defer leave()
	r, waited, err := a.startWait(w, r.WithContext(ctx), op, c)
	if err != nil {
		return err
	}
	defer waited()
	switch {
	case local:
		return a.show(w, r, op, func() error { return a.own(w, r) })
	case op.place == leaderFirst:
		return a.leaderFirst(w, r, *c, op, identified)
	}
	return a.answer(w, r, c, op)
}

// leaderFirst has the leader answer, else this member.
func (a *API) leaderFirst(w http.ResponseWriter, r *http.Request, c caller, op operation, identified error) error {
	leader, self := a.o.Consensus.Leader()
	switch {
	case !self && leader != "" && !c.forwarded:
		return a.forward(w, r, leader, c, op)
	case identified != nil:
		return a.rejected(&c, identified)
	}
	a.mux.ServeHTTP(w, r)
	return nil
}

// leaderPatience is how long a request waits for a leader: longer than an election, so that clients do not see one.
const leaderPatience = 3 * time.Second

// leader names the leader and whether it is this member; with wait, it gives an election the time to end.
func (a *API) leader(ctx context.Context, wait bool) (fleet.MemberID, bool) {
	id, self := a.o.Consensus.Leader()
	if !wait || id != "" {
		return id, self
	}
	ctx, cancel := context.WithTimeout(ctx, leaderPatience)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for id == "" {
		select {
		case <-ctx.Done():
			return "", false
		case <-tick.C:
			id, self = a.o.Consensus.Leader()
		}
	}
	return id, self
}

// find returns the operation that r asks for. There are no redirects: a client would take its token along.
func (a *API) find(w http.ResponseWriter, r *http.Request) (operation, error) {
	h, pattern := a.mux.Handler(r)
	if op, ok := a.ops[pattern]; ok && path.Clean(r.URL.EscapedPath()) == r.URL.EscapedPath() {
		return op, nil
	}
	probe := &probe{header: http.Header{}}
	h.ServeHTTP(probe, r)
	if probe.status != http.StatusMethodNotAllowed {
		return operation{}, fleet.NewError(fleet.ErrNotFound, "path", "there is nothing at %.200q: /v1/openapi.json describes this API", r.URL.Path)
	}
	allow := probe.header.Get("Allow")
	w.Header().Set("Allow", allow)
	return operation{}, newProblem(http.StatusMethodNotAllowed, kindOf(http.StatusMethodNotAllowed), "method", fmt.Sprintf("%.20q is not a method of this path: use %s", r.Method, allow))
}

// probe learns what the mux would answer to a request that it has no route for.
type probe struct {
	header http.Header
	status int
}

func (p *probe) Header() http.Header         { return p.header }
func (p *probe) Write(b []byte) (int, error) { return len(b), nil }
func (p *probe) WriteHeader(status int)      { p.status = status }

// local says whether this member answers from its own state.
func (a *API) local(op operation, r *http.Request) bool {
	return op.place == here || op.method == http.MethodGet && r.URL.Query().Get("consistency") == "stale"
}

// readBody reads the whole body within the limits of size and time.
func (a *API) readBody(w http.ResponseWriter, r *http.Request) error {
	if r.Body == nil || r.Body == http.NoBody {
		return nil
	}
	// Deadlines are supported by servers; recorders in tests have no slow bodies.
	rc := http.NewResponseController(w)
	_ = rc.SetReadDeadline(time.Now().Add(a.bodyTimeout))
	b, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	_ = rc.SetReadDeadline(time.Time{})
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		return fleet.NewError(fleet.ErrTooLarge, "body", "the body has more than %d bytes", maxBody)
	case errors.Is(err, os.ErrDeadlineExceeded):
		w.Header().Set("Connection", "close")
		return newProblem(http.StatusRequestTimeout, kindOf(http.StatusRequestTimeout), "body", fmt.Sprintf("the body did not arrive within %s", a.bodyTimeout))
	case err != nil:
		return newProblem(http.StatusBadRequest, kindOf(http.StatusBadRequest), "body", "the body broke off")
	}
	r.ContentLength, r.TransferEncoding = int64(len(b)), nil
	r.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b)), nil }
	r.Body, err = r.GetBody()
	return err
}

func (a *API) recovered(w *recorder, r *http.Request, c *caller, v any) {
	if err, ok := v.(error); ok && errors.Is(err, http.ErrAbortHandler) {
		return
	}
	a.o.Telemetry.Logger.ErrorContext(r.Context(), "request panicked", "request_id", c.requestID, "method", r.Method, "path", r.URL.Path,
		"panic", fmt.Sprint(v), "stack", string(debug.Stack()))
	if w.status == 0 {
		writeProblem(w, problem(fmt.Errorf("panic: %v", v), *c))
	}
}

// finished counts and logs a request. The query and all headers stay out of the log.
func (a *API) finished(r *http.Request, c *caller, status int, d time.Duration) {
	a.metrics.observe(r.Context(), r.Method, status, d, r.URL.Query().Has("index"))
	a.o.Telemetry.Logger.DebugContext(r.Context(), "request", "request_id", c.requestID, "method", r.Method, "path", r.URL.Path,
		"status", status, "duration", d, "source", c.source, "actor", c.name())
}

// recorder remembers the status of an answer; 0 before there is one.
type recorder struct {
	http.ResponseWriter
	status int
}

// Status is the status that the client sees.
func (r *recorder) Status() int {
	if r.status == 0 {
		return http.StatusOK
	}
	return r.status
}

func (r *recorder) WriteHeader(status int) {
	if r.status == 0 && status >= 200 {
		r.status = status
	}
	r.ResponseWriter.WriteHeader(status)
}

func (r *recorder) Write(b []byte) (int, error) {
	if r.status == 0 {
		r.status = http.StatusOK
	}
	return r.ResponseWriter.Write(b)
}

// Unwrap lets http.ResponseController flush.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }
