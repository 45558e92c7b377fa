package api

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"net/http"
	"time"

	"github.com/edgefleet/edgefleet/controlplane/command"
	"github.com/edgefleet/edgefleet/fleet"
)

// headerNotLeader tells the member that passed a request on that this one does not lead and has done nothing.
const headerNotLeader = "Edgefleet-Not-Leader"

// passPause and maxPassPause space the attempts of one request to find the leader while leadership moves.
const (
	passPause    = 2 * time.Millisecond
	maxPassPause = 25 * time.Millisecond
)

// answer has r answered by this member, if it leads, or by the leader. While leadership moves it holds r, and passes it
// on when the new leader is known: the caller sees no hand-over. Only what certainly was not proposed, and reads, are
// tried again; a request whose outcome is unknown never is.
func (a *API) answer(w http.ResponseWriter, r *http.Request, c *caller, op operation) error {
	patience := leaderPatience
	if q := waitOf(r.Context()); q != nil {
		patience += time.Until(q.until)
	}
	held, cancel := context.WithTimeout(r.Context(), patience)
	defer cancel()
	for pause := passPause; ; pause = min(2*pause, maxPassPause) {
		err := a.answerOnce(w, r, c, op)
		if c.forwarded || !errors.Is(err, fleet.ErrNotLeader) {
			return err
		}
		select {
		case <-held.Done():
			return err
		case <-time.After(pause):
		}
		if c.unknown { // not to the leader, which this member may be by now
			fresh := caller{requestID: c.requestID, traceID: c.traceID}
			_ = a.identify(&fresh, r) // answerOnce says it
			*c = fresh
		}
	}
}

// answerOnce is one attempt. fleet.ErrNotLeader: nothing was done, and nothing of the answer was written.
func (a *API) answerOnce(w http.ResponseWriter, r *http.Request, c *caller, op operation) error {
	leader, self := a.leader(r.Context(), !c.forwarded)
	r = r.WithContext(context.WithValue(r.Context(), callerKey{}, *c))
	if r.GetBody != nil {
		var err error
		if r.Body, err = r.GetBody(); err != nil {
			return err
		}
	}
	switch {
	case !self && leader != "" && !c.forwarded:
		return a.forward(w, r, leader, *c, op)
	case !self && c.forwarded:
		return notLeader("member %s does not lead (any more)", a.o.Member)
	case !self:
		return fleet.NewError(fleet.ErrUnavailable, "", "the control plane has no leader at the moment; reads answer with ?consistency=stale, try writes again")
	case c.unknown:
		if err := a.leads(r.Context()); err != nil {
			return err // what is not known here may be known to the next leader
		}
		now := caller{requestID: c.requestID}
		return a.rejected(&now, cmp.Or(a.identify(&now, r), error(errKnownNow)))
	case r.Method == http.MethodGet:
		return a.read(w, r, op)
	}
	if err := a.o.Consensus.Settled(r.Context()); err != nil {
		return elsewhere(err)
	}
	t := &attempt{ResponseWriter: w, header: w.Header().Clone()}
	ctx, err := a.withKey(r.Context(), r, op, *c)
	if err != nil {
		return err
	}
	r = r.WithContext(context.WithValue(ctx, attemptKey{}, t))
	a.mux.ServeHTTP(t, r)
	if t.again {
		return notLeader("member %s does not lead any more", a.o.Member)
	}
	t.begin()
	return nil
}

// read answers a linearizable read; this member led a moment ago.
func (a *API) read(w http.ResponseWriter, r *http.Request, op operation) error {
	if err := current(r); err != nil {
		return err
	}
	return a.show(w, r, op, func() error {
		index, err := a.o.Consensus.ReadIndex(r.Context())
		if err != nil {
			return elsewhere(err)
		}
		a.included(w, index)
		return nil
	})
}

// leads returns nil if this member leads, and its state includes everything that was acknowledged before the call.
func (a *API) leads(ctx context.Context) error {
	_, err := a.o.Consensus.ReadIndex(ctx)
	return elsewhere(err)
}

// refusal is for a change that is refused by what this member holds, before anything was proposed. A member that was
// deposed and does not know it yet holds the past: the request is taken back then, for the leader to decide.
func (a *API) refusal(ctx context.Context, err error) error {
	t, ok := ctx.Value(attemptKey{}).(*attempt)
	if !ok || t.proposed || t.begun || errors.Is(err, fleet.ErrNotLeader) {
		return err
	}
	return cmp.Or(a.leads(ctx), err)
}

// elsewhere is for the error of what changes nothing: it may be tried again whatever came of it.
func elsewhere(err error) error {
	if errors.Is(err, fleet.ErrUnavailable) {
		return elsewhereError{err}
	}
	return err
}

// notLeader is an error with which the request may be passed on as it is.
func notLeader(format string, args ...any) error {
	return elsewhereError{fleet.NewError(fleet.ErrUnavailable, "", format, args...)}
}

// elsewhereError makes an error a fleet.ErrNotLeader too.
type elsewhereError struct{ error }

func (e elsewhereError) Unwrap() []error { return []error{e.error, fleet.ErrNotLeader} }

// attempt is the answer of this member to a change that it may have to take back: nothing is written until it is clear
// that the change was proposed, or needs no proposal.
type attempt struct {
	http.ResponseWriter
	header http.Header
	begun  bool
	// proposed: the log may hold something of this request. again: it certainly does not, and another member leads.
	proposed, again bool
}

// errKnownNow: this member learnt of the caller while the request was under way.
var errKnownNow = fleet.NewError(fleet.ErrUnavailable, "", "this member has just learnt of the caller; try again")

type attemptKey struct{}

// Header implements http.ResponseWriter.
func (t *attempt) Header() http.Header { return t.header }

// WriteHeader implements http.ResponseWriter.
func (t *attempt) WriteHeader(status int) {
	if t.again {
		return
	}
	t.begin()
	t.ResponseWriter.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (t *attempt) Write(b []byte) (int, error) {
	if t.again {
		return len(b), nil
	}
	t.begin()
	return t.ResponseWriter.Write(b)
}

// Unwrap lets http.ResponseController set deadlines.
func (t *attempt) Unwrap() http.ResponseWriter { return t.ResponseWriter }

func (t *attempt) begin() {
	if !t.begun {
		t.begun = true
		h := t.ResponseWriter.Header()
		clear(h)
		maps.Copy(h, t.header)
	}
}

// failed notes why a handler failed; it reports whether the request is taken back.
func (t *attempt) failed(err error) bool {
	t.again = !t.proposed && !t.begun && errors.Is(err, fleet.ErrNotLeader)
	return t.again
}

// takenBack reports whether the request ends here with err for another member to take it up.
func takenBack(ctx context.Context, err error) bool {
	t, ok := ctx.Value(attemptKey{}).(*attempt)
	return ok && t.failed(err)
}

// watched notes in a request's attempt what was proposed for it, and proposes nothing for a token that ended meanwhile: a
// request may take as long as its body.
type watched struct {
	Consensus
	still func(ctx context.Context) error
}

// note takes the result of whatever changes the log.
func note(ctx context.Context, err error) {
	if t, ok := ctx.Value(attemptKey{}).(*attempt); ok && !errors.Is(err, fleet.ErrNotLeader) {
		t.proposed = true
	}
}

// Propose implements Consensus.
func (w watched) Propose(ctx context.Context, h command.Header, b command.Body) (any, error) {
	if err := w.still(ctx); err != nil {
		return nil, err
	}
	obj, err := w.Consensus.Propose(ctx, h, b)
	note(ctx, err)
	return obj, err
}

// Admit implements Consensus.
func (w watched) Admit(ctx context.Context, id fleet.MemberID, addr string, known func() error) error {
	err := w.Consensus.Admit(ctx, id, addr, known)
	note(ctx, err)
	return err
}

// Remove implements Consensus.
func (w watched) Remove(ctx context.Context, id fleet.MemberID, retire func() error) error {
	err := w.Consensus.Remove(ctx, id, retire)
	note(ctx, err)
	return err
}
