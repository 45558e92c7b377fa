package api

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"time"

	"github.com/edgefleet/edgefleet/fleet"
)

// leaderFirstTimeout is how long a follower waits for the leader before it answers a poll itself.
const leaderFirstTimeout = 3 * time.Second

// errLeader: the leader answered that it cannot.
var errLeader = errors.New("the leader answered with an error of its own")

// errMoved: the member that was taken for the leader does not lead, and has done nothing.
var errMoved = errors.New("it does not lead")

// forward passes r on to the leader. Its body was read, so that it can be used again.
func (a *API) forward(w http.ResponseWriter, r *http.Request, to fleet.MemberID, c caller, op operation) error {
	m, ok := a.view().Member(to)
	switch {
	case !ok && op.place == leaderFirst:
		a.mux.ServeHTTP(w, r)
		return nil
	case !ok:
		return notLeader("the leader %s is not known to this member yet; try again", to)
	}
	out := r
	if op.place == leaderFirst {
		ctx, cancel := context.WithTimeout(r.Context(), leaderFirstTimeout)
		defer cancel()
		out = r.WithContext(ctx)
	}
	var failed error
	transport, wait := a.o.Forward, waitOf(r.Context())
	if wait != nil {
		transport = a.o.ForwardWaiting
	}
	proxy := &httputil.ReverseProxy{
		Transport: transport,
		ErrorLog:  slog.NewLogLogger(a.o.Telemetry.Logger.Handler(), slog.LevelDebug),
		Rewrite: func(p *httputil.ProxyRequest) {
			p.Out.URL.Scheme, p.Out.URL.Host, p.Out.Host = "https", m.API, m.API
			p.Out.Header.Set(headerForwarded, string(a.o.Member))
			p.Out.Header.Set(headerSource, c.source)
			p.Out.Header.Set(headerRequestID, c.requestID)
			p.Out.Header.Set(headerTrace, traceparent(r.Context()))
			p.Out.Header.Set(headerIdentity, c.identity())
			if wait != nil {
				p.Out.URL.RawQuery = wait.rest(p.Out.URL.Query())
			}
		},
		FlushInterval: -1,
		ModifyResponse: func(res *http.Response) error {
			if res.StatusCode == http.StatusUnauthorized {
				_ = a.rejected(&c, nil) // the leader's answer stands
			}
			if op.place == leaderFirst && res.StatusCode >= http.StatusInternalServerError {
				return errLeader
			}
			if res.Header.Get(headerNotLeader) != "" {
				return errMoved
			}
			for _, h := range []string{headerRequestID, headerTrace, "Cache-Control", "X-Content-Type-Options"} {
				w.Header().Del(h) // the leader's answer has its own
			}
			return nil
		},
		ErrorHandler: func(_ http.ResponseWriter, _ *http.Request, err error) { failed = err },
	}
	proxy.ServeHTTP(w, out)
	if failed == nil {
		return nil
	}
	level := slog.LevelWarn
	if errors.Is(failed, errMoved) {
		level = slog.LevelDebug
	}
	a.o.Telemetry.Logger.Log(r.Context(), level, "forward to leader", "leader", to, "request_id", c.requestID, "err", failed)
	if op.place != leaderFirst {
		var dial *net.OpError
		if errors.Is(failed, errMoved) || r.Method == http.MethodGet || errors.As(failed, &dial) && dial.Op == "dial" {
			return notLeader("the leader %s cannot be reached, or does not lead any more; try again", to)
		}
		return outcomeUnknownError{fleet.NewError(fleet.ErrUnavailable, "", "the leader %s cannot be reached; whether the request took effect is not known", to)}
	}
	body, err := r.GetBody()
	if err != nil {
		return err
	}
	r.Body = body
	a.mux.ServeHTTP(w, r)
	return nil
}

// outcomeUnknownError is an error after which a change may have taken effect.
type outcomeUnknownError struct{ error }

func (e outcomeUnknownError) Unwrap() []error { return []error{e.error, fleet.ErrOutcomeUnknown} }
