package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/edgefleet/edgefleet/fleet"
)

// tails are the streams of events that are open.
type tails struct {
	// heartbeat keeps proxies from closing a silent stream, recheck is how long a revoked token keeps one, stalled how
	// long a client may leave what was sent to it.
	heartbeat, recheck, stalled time.Duration
	ended                       chan struct{}
	end                         func()

	mu   sync.Mutex
	open map[fleet.TenantID]int
}

// maxTails bounds the open streams of one tenant on one member.
const maxTails = 32

func newTails() *tails {
	t := &tails{heartbeat: 15 * time.Second, recheck: 2 * time.Second, stalled: 10 * time.Second, ended: make(chan struct{}), open: map[fleet.TenantID]int{}}
	t.end = sync.OnceFunc(func() { close(t.ended) })
	return t
}

func (t *tails) enter(tenant fleet.TenantID) (leave func(), err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.open[tenant] >= maxTails {
		return nil, fleet.NewError(fleet.ErrRateLimited, "tenant", "tenant %s has %d open streams of events at this member, which is the limit: close one", tenant, maxTails)
	}
	t.open[tenant]++
	return func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		if t.open[tenant]--; t.open[tenant] == 0 {
			delete(t.open, tenant)
		}
	}, nil
}

func (a *API) registerTail() {
	op := operation{
		id: "event-tail", method: http.MethodGet, path: "/v1/tenants/{tenant}/events:tail", scope: tenantOwn, permission: fleet.PermEventsRead, duty: fleet.DutyConsole,
		summary: "A tenant's attack events as this member stores them (server-sent events of type event, each an Event as JSON)",
	}.locally()
	handle(a, op, func(ctx context.Context, in *TenantPath) (*huma.StreamResponse, error) {
		leave, err := a.tails.enter(in.tenant())
		if err != nil {
			return nil, err
		}
		return &huma.StreamResponse{Body: func(hc huma.Context) {
			defer leave()
			_, w := humago.Unwrap(hc)
			a.tail(ctx, w, in.tenant(), op)
		}}, nil
	})
	doc := a.huma.OpenAPI()
	event := doc.Components.Schemas.Schema(reflect.TypeFor[fleet.Event](), true, "Event")
	doc.Paths[op.path].Get.Responses["200"].Content = map[string]*huma.MediaType{"text/event-stream": {Schema: event}}
}

// tail writes events until the client leaves, the server stops, or the caller may not see them any more.
func (a *API) tail(ctx context.Context, w http.ResponseWriter, tenant fleet.TenantID, op operation) {
	ch, cancel := a.o.Events.Subscribe()
	defer cancel()
	w.Header().Set("Content-Type", "text/event-stream")
	w.WriteHeader(http.StatusOK)
	rc := http.NewResponseController(w)
	send := func(format string, args ...any) bool {
		_ = rc.SetWriteDeadline(time.Now().Add(a.tails.stalled)) // servers support it
		_, err := fmt.Fprintf(w, format, args...)
		err = errors.Join(err, rc.Flush())
		_ = rc.SetWriteDeadline(time.Time{}) // which would end an HTTP/2 stream while it is silent
		return err == nil
	}
	heartbeat, recheck := time.NewTicker(a.tails.heartbeat), time.NewTicker(a.tails.recheck)
	defer heartbeat.Stop()
	defer recheck.Stop()
	for ok := send(": events of %s\n\n", tenant); ok; {
		select {
		case <-ctx.Done():
			return
		case <-a.tails.ended:
			return
		case <-recheck.C:
			ok = a.mayStill(ctx, op, tenant)
		case <-heartbeat.C:
			ok = send(": still here\n\n")
		case e, more := <-ch:
			if !more {
				return
			}
			if e.Tenant != tenant {
				continue
			}
			b, err := json.Marshal(e)
			ok = err == nil && send("event: event\ndata: %s\n\n", b)
		}
	}
}

// mayStill reports whether the caller's token is still there and good for op.
func (a *API) mayStill(ctx context.Context, op operation, tenant fleet.TenantID) bool {
	c := callerOf(ctx)
	t, ok := a.current(c.token.ID)
	c.token = t
	return ok && a.authorize(op, c, tenant) == nil
}
