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

	"github.com/edgefleet/edgefleet/controlplane/events"
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

// TailInput asks for a stream of events.
type TailInput struct {
	TenantPath
	LastEventID string `header:"Last-Event-ID" maxLength:"256" doc:"go on after the event of this id; any member knows it"`
	Overlap     string `query:"overlap" maxLength:"16" doc:"with Last-Event-ID: how long before that event to begin again, at most 1h, for events that came late; drop what you have by its id" example:"10m"`
}

// maxOverlap bounds how far back a stream begins again.
const maxOverlap = time.Hour

// resume is where a stream begins; the zero value begins now.
type resume struct {
	events.Position
	overlap time.Duration
}

func (in *TailInput) resume() (r resume, err error) {
	if in.Overlap != "" {
		if r.overlap, err = time.ParseDuration(in.Overlap); err != nil || r.overlap < 0 || r.overlap > maxOverlap {
			return r, fleet.Invalid("overlap", "%q is not a duration of at most %s, such as 10m", in.Overlap, maxOverlap)
		}
	}
	if in.LastEventID != "" {
		r.Position, err = events.ParsePosition(in.LastEventID)
	}
	return r, err
}

func (a *API) registerTail() {
	op := operation{
		long: true,
		id:   "event-tail", method: http.MethodGet, path: "/v1/tenants/{tenant}/events:tail", scope: tenantOwn, permission: fleet.PermEventsRead, duty: fleet.DutyConsole,
		summary: "A tenant's attack events as this member stores them (server-sent events: event, each an Event as JSON with its id; gap, when this member may not hold all events after Last-Event-ID; resume, when the client should connect again with its last id)",
	}.locally()
	handle(a, op, func(ctx context.Context, in *TailInput) (*huma.StreamResponse, error) {
		from, err := in.resume()
		if err != nil {
			return nil, err
		}
		leave, err := a.tails.enter(in.tenant())
		if err != nil {
			return nil, err
		}
		return &huma.StreamResponse{Body: func(hc huma.Context) {
			defer leave()
			_, w := humago.Unwrap(hc)
			a.newStream(w, in.tenant(), op).run(ctx, from)
		}}, nil
	})
	doc := a.huma.OpenAPI()
	event := doc.Components.Schemas.Schema(reflect.TypeFor[fleet.Event](), true, "Event")
	doc.Paths[op.path].Get.Responses["200"].Content = map[string]*huma.MediaType{"text/event-stream": {Schema: event}}
}

// stream is one open stream of events.
type stream struct {
	a      *API
	w      http.ResponseWriter
	rc     *http.ResponseController
	tenant fleet.TenantID
	op     operation
	// again are the events that were read from the store while they may come from the subscription as well.
	again map[fleet.EventID]bool
}

func (a *API) newStream(w http.ResponseWriter, tenant fleet.TenantID, op operation) *stream {
	return &stream{a: a, w: w, rc: http.NewResponseController(w), tenant: tenant, op: op, again: map[fleet.EventID]bool{}}
}

func (s *stream) send(format string, args ...any) bool {
	_ = s.rc.SetWriteDeadline(time.Now().Add(s.a.tails.stalled)) // servers support it
	_, err := fmt.Fprintf(s.w, format, args...)
	err = errors.Join(err, s.rc.Flush())
	_ = s.rc.SetWriteDeadline(time.Time{}) // which would end an HTTP/2 stream while it is silent
	return err == nil
}

func (s *stream) event(e fleet.Event) bool {
	b, err := json.Marshal(e)
	return err == nil && s.send("id: %s\nevent: event\ndata: %s\n\n", events.PositionOf(e), b)
}

// run writes events until the client leaves, the server stops, or the caller may not see them any more. It subscribes
// before it reads what came since from, so that nothing falls between the two.
func (s *stream) run(ctx context.Context, from resume) {
	ch, cancel := s.a.o.Events.Subscribe()
	defer cancel()
	s.w.Header().Set("Content-Type", "text/event-stream")
	s.w.WriteHeader(http.StatusOK)
	begun := s.send(": events of %s\n\n", s.tenant)
	if from.ID == "" { // a stream that breaks before its first event goes on from here
		begun = begun && s.send("id: %s\n\n", s.a.o.Events.Start())
	}
	if !begun || from.ID != "" && !s.catchUp(ctx, from) {
		return
	}
	heartbeat, recheck := time.NewTicker(s.a.tails.heartbeat), time.NewTicker(s.a.tails.recheck)
	defer heartbeat.Stop()
	defer recheck.Stop()
	for ok := true; ok; {
		select {
		case <-ctx.Done():
			return
		case <-s.a.tails.ended:
			s.send("event: resume\ndata: {\"reason\":\"member stops\"}\n\n")
			return
		case <-recheck.C:
			ok = s.a.mayStill(ctx, s.op, s.tenant)
		case <-heartbeat.C:
			ok = s.send(": still here\n\n")
		case e, more := <-ch:
			if !more {
				s.send("event: resume\ndata: {\"reason\":\"this client is too slow, or the store was closed\"}\n\n")
				return
			}
			if e.Tenant == s.tenant && !s.again[e.ID] {
				ok = s.event(e)
			}
			delete(s.again, e.ID)
		}
	}
}

// maxAgain bounds the events that are remembered as sent from the store; the last are those that may come again.
const maxAgain = 4096

// catchUp sends what the store has since from.
func (s *stream) catchUp(ctx context.Context, from resume) bool {
	if kept := s.a.o.Events.Kept(); from.Time.Before(kept) {
		b, err := json.Marshal(map[string]time.Time{"after": from.Time, "kept_since": kept})
		if err != nil || !s.send("event: gap\ndata: %s\n\n", b) {
			return false
		}
	}
	q := events.Query{Tenant: s.tenant, Ascending: true, Limit: events.MaxLimit, Since: from.Time.Add(-from.overlap)}
	if from.overlap == 0 {
		cursor, err := from.Cursor()
		if err != nil {
			return false
		}
		q.Cursor = cursor
	}
	var sent []fleet.EventID
	for {
		page, err := s.a.o.Events.Query(ctx, q)
		if err != nil {
			s.send("event: resume\ndata: {\"reason\":\"the store cannot be read\"}\n\n")
			return false
		}
		for _, e := range page.Events {
			if !s.event(e) {
				return false
			}
			s.again[e.ID] = true
			if sent = append(sent, e.ID); len(sent) > maxAgain {
				delete(s.again, sent[0])
				sent = sent[1:]
			}
		}
		if !s.a.mayStill(ctx, s.op, s.tenant) {
			return false
		}
		if q.Cursor = page.Next; q.Cursor == "" {
			return true
		}
		select {
		case <-s.a.tails.ended:
			s.send("event: resume\ndata: {\"reason\":\"member stops\"}\n\n")
			return false
		default:
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
