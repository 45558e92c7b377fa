package api

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"time"

	"github.com/edgefleet/edgefleet/controlplane/state"
	"github.com/edgefleet/edgefleet/fleet"
)

// errEnded ends what is open or under way when its token ends.
var errEnded = fleet.NewError(fleet.ErrUnauthenticated, "token", "the API token ended")

// sessions are the reads that are under way: streams and blocking queries may last for hours, and end with their token.
type sessions struct {
	mu   sync.Mutex
	last uint64
	open map[uint64]session
}

type session struct {
	token fleet.TokenID
	end   context.CancelCauseFunc
}

func newSessions() *sessions { return &sessions{open: map[uint64]session{}} }

// enter makes a context that ends when the token does; leave must be called.
func (s *sessions) enter(ctx context.Context, token fleet.TokenID) (inner context.Context, leave func()) {
	inner, end := context.WithCancelCause(ctx)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last++
	id := s.last
	s.open[id] = session{token, end}
	return inner, func() {
		s.mu.Lock()
		delete(s.open, id)
		s.mu.Unlock()
		end(nil)
	}
}

// sweep ends the sessions of tokens that are good for nothing any more.
func (s *sessions) sweep(good func(fleet.TokenID) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	known := map[fleet.TokenID]bool{}
	for _, o := range s.open {
		ok, seen := known[o.token]
		if !seen {
			ok = good(o.token)
			known[o.token] = ok
		}
		if !ok {
			o.end(errEnded)
		}
	}
}

// withSession ties a read to its token; what changes something is held against the token when it is applied.
func (a *API) withSession(ctx context.Context, method string, c *caller) (inner context.Context, leave func()) {
	if c.token.ID == "" || method != http.MethodGet {
		return ctx, func() {}
	}
	return a.sessions.enter(ctx, c.token.ID)
}

func (a *API) sweep() {
	a.sessions.sweep(func(id fleet.TokenID) bool {
		_, ok := a.current(id)
		return ok
	})
}

// endedCause replaces the error of a request that ended with its token.
func endedCause(ctx context.Context, err error) error {
	if ctx.Err() != nil && errors.Is(context.Cause(ctx), fleet.ErrUnauthenticated) {
		return context.Cause(ctx)
	}
	return err
}

const (
	// sweepPause is how often tokens are looked at that ended by the clock.
	sweepPause = 5 * time.Second
	// usesPause is how often the use of tokens is written down.
	usesPause = time.Minute
)

// Run ends sessions when their token does, and writes down when tokens were used, until ctx ends.
func (a *API) Run(ctx context.Context) error {
	clock, uses := time.NewTicker(sweepPause), time.NewTicker(usesPause)
	defer clock.Stop()
	defer uses.Stop()
	changed := make(chan struct{}, 1)
	stop := a.watchAccess(ctx, changed)
	defer stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
			a.sweep()
		case <-clock.C:
			a.sweep()
		case <-uses.C:
			if err := a.WriteUses(ctx); err != nil {
				a.o.Telemetry.Logger.DebugContext(ctx, "use of tokens not written down yet", "err", err)
			}
		}
	}
}

// watchAccess tells of each change of tokens and users until it is stopped, which waits for its end.
func (a *API) watchAccess(ctx context.Context, changed chan<- struct{}) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			ws := a.o.State.Watch(state.Tokens, state.Users)
			select {
			case changed <- struct{}{}:
			default: // it was told already
			}
			_ = ws.WatchCtx(ctx) // it ends with ctx
		}
	}()
	return func() {
		cancel()
		<-done
	}
}
