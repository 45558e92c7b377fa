package api

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/edgefleet/edgefleet/controlplane/state"
	"github.com/edgefleet/edgefleet/fleet"
)

// waitsFor are the reads that can wait for a change, with the tables that they show.
var waitsFor = map[string][]state.Table{
	"access-show":         {state.Access},
	"approval-list":       {state.Approvals},
	"approval-show":       {state.Approvals},
	"audit-list":          {state.Audit},
	"drill-list":          {state.Drills},
	"drill-show":          {state.Drills},
	"group-list":          {state.Groups},
	"group-show":          {state.Groups},
	"cert-list":           {state.Hosts, state.Certificates, state.Orders, state.Revocations, state.Nodes, state.Heads},
	"host-certificate":    {state.Hosts, state.Certificates, state.Orders, state.Revocations, state.Nodes, state.Heads},
	"host-list":           {state.Hosts},
	"host-show":           {state.Hosts, state.Clusters, state.Origins},
	"incarnation-list":    {state.Incarnations},
	"node-list":           {state.Nodes},
	"node-show":           {state.Nodes},
	"group-keys":          {state.Groups, state.Epochs, state.Tenants, state.Hosts, state.Certificates, state.Clusters},
	"origin-list":         {state.Hosts, state.OriginCerts},
	"region-list":         {state.Regions, state.Nodes, state.DNSSets, state.Groups},
	"region-show":         {state.Regions, state.Nodes, state.DNSSets, state.Groups},
	"operator-role-list":  {state.Roles},
	"role-list":           {state.Roles},
	"operator-token-list": {state.Tokens},
	"token-list":          {state.Tokens},
	"operator-user-list":  {state.Users},
	"operator-user-show":  {state.Users},
	"user-list":           {state.Users},
	"user-show":           {state.Users},
	"rule-list":           {state.Rules},
	"rule-show":           {state.Rules},
	"ruleset-status":      {state.Heads, state.Nodes, state.Tenants},
	"tenant-list":         {state.Tenants},
	"tenant-show":         {state.Tenants},
}

const (
	// defaultWait and maxWait are how long a read waits; up to a sixteenth is added, so that not all come back at once.
	defaultWait = time.Minute
	maxWait     = 5 * time.Minute
	// lookPause is the least time between two looks at what may have changed.
	lookPause = 50 * time.Millisecond
	// maxWaiting and maxWaitingEach bound the reads that wait at this member, of all callers and of one.
	maxWaiting     = 2048
	maxWaitingEach = 128
)

// wait is what a read that waits asked for.
type wait struct {
	// index is what the caller has seen.
	index uint64
	until time.Time
}

type waitKey struct{}

// waitOf is the wait of a request; nil if it does not wait.
func waitOf(ctx context.Context) *wait {
	w, _ := ctx.Value(waitKey{}).(*wait)
	return w
}

// parseWait reads ?index=N&wait=30s; nil without index.
func parseWait(op operation, q url.Values, now time.Time) (*wait, error) {
	if !q.Has("index") && !q.Has("wait") || op.method != http.MethodGet {
		return nil, nil
	}
	if waitsFor[op.id] == nil {
		return nil, fleet.Invalid("query.index", "%s cannot wait for a change: leave out index and wait", op.id)
	}
	index, err := strconv.ParseUint(q.Get("index"), 10, 64)
	if err != nil {
		return nil, fleet.Invalid("query.index", "%.40q is not the Edgefleet-Index of an answer, which is a number; 0 answers at once", q.Get("index"))
	}
	d := defaultWait
	if q.Has("wait") {
		if d, err = time.ParseDuration(q.Get("wait")); err != nil || d <= 0 || d > maxWait {
			return nil, fleet.Invalid("query.wait", "%.40q is not a duration of at most %s, such as 30s", q.Get("wait"), maxWait)
		}
	}
	d += rand.N(d/16 + 1) //nolint:gosec // it spreads load, and hides nothing
	return &wait{index: index, until: now.Add(d)}, nil
}

// rest is the query for another member: what is left of the wait.
func (w *wait) rest(q url.Values) string {
	q.Set("wait", min(max(time.Until(w.until), time.Millisecond), maxWait).String())
	return q.Encode()
}

// waiting counts the reads that wait.
type waiting struct {
	maxAll, maxEach int

	mu   sync.Mutex
	all  int
	each map[string]int
}

func newWaiting() *waiting {
	return &waiting{maxAll: maxWaiting, maxEach: maxWaitingEach, each: map[string]int{}}
}

// enter counts a read of a caller, and refuses one too many.
func (w *waiting) enter(key string) (leave func(), err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.all >= w.maxAll:
		err = fleet.NewError(fleet.ErrRateLimited, "query.index", "%d reads wait for a change at this member, which is the limit: ask another member, or without index", w.all)
	case key != "" && w.each[key] >= w.maxEach:
		err = fleet.NewError(fleet.ErrRateLimited, "query.index", "%d reads of this caller wait for a change at this member, which is the limit: end one, or ask without index", w.each[key])
	}
	if err != nil {
		return nil, retryError{err, time.Second}
	}
	w.all++
	w.each[key]++
	return func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.all--
		if w.each[key]--; w.each[key] == 0 {
			delete(w.each, key)
		}
	}, nil
}

// waitKey is as whom a read that waits is counted: a tenant's tokens count together, because it makes as many as it likes.
func (c caller) waitKey() string {
	if key := c.limitKey(); key == "" || c.token.Tenant == "" {
		return key
	}
	return "tenant/" + string(c.token.Tenant)
}

// startWait prepares a read that waits: it counts it, and gives its answer more time than others have.
func (a *API) startWait(w http.ResponseWriter, r *http.Request, op operation, c *caller) (*http.Request, func(), error) {
	q, err := parseWait(op, r.URL.Query(), time.Now())
	if err != nil || q == nil {
		return r, func() {}, err
	}
	leave, err := a.waiting.enter(c.waitKey())
	if err != nil {
		return r, nil, err
	}
	// Servers support it; the recorders of tests have no deadline.
	_ = http.NewResponseController(w).SetWriteDeadline(q.until.Add(writeTimeout))
	return r.WithContext(context.WithValue(r.Context(), waitKey{}, q)), leave, nil
}

// show has a read answered from this member's state, once there is something that the caller has not seen, or it has
// waited long enough. fresh makes sure, before each look, that the state is as fresh as the caller wants it.
func (a *API) show(w http.ResponseWriter, r *http.Request, op operation, fresh func() error) error {
	q := waitOf(r.Context())
	if q == nil {
		if err := fresh(); err != nil {
			return err
		}
		a.mux.ServeHTTP(w, r)
		return nil
	}
	ctx, cancel := context.WithDeadline(r.Context(), q.until)
	defer cancel()
	look, tables := withoutWait(r), waitsFor[op.id]
	var seen *[sha256.Size]byte
	for {
		if r.Context().Err() != nil {
			return endedCause(r.Context(), r.Context().Err())
		}
		// What changes from here on wakes; a watch that came after the look could miss it.
		ws := a.o.State.Watch(tables...)
		ws.Add(a.tails.ended)
		last := ctx.Err() != nil || a.stops()
		if !last && q.index > 0 && a.behind(ctx, q.index) {
			continue
		}
		if err := fresh(); err != nil {
			return err
		}
		changed := a.o.State.ChangedAt(tables...)
		out := &draft{header: w.Header().Clone()}
		a.mux.ServeHTTP(out, look)
		sum := sha256.Sum256(out.body.Bytes())
		switch {
		case last, q.index == 0, out.status != http.StatusOK:
			out.send(w)
			return nil
		case seen == nil && changed > q.index:
			out.send(w)
			return nil
		case seen == nil && a.o.State.ChangedAt(tables...) > q.index:
			continue // it changed during the look, which may show it or not
		case seen == nil:
			seen = &sum // nothing that it shows has changed since the caller looked
		case *seen != sum:
			out.send(w)
			return nil
		}
		pause := time.NewTimer(lookPause)
		_ = ws.WatchCtx(ctx) // the next look says what ended it
		select {
		case <-pause.C:
		case <-ctx.Done():
		}
		pause.Stop()
	}
}

// behind reports whether this member has not got as far as the caller has seen elsewhere; then it has waited for more.
func (a *API) behind(ctx context.Context, index uint64) bool {
	ws := a.o.State.Watch(state.Applied)
	ws.Add(a.tails.ended)
	if a.view().Index() >= index {
		return false
	}
	_ = ws.WatchCtx(ctx) // the next look says what ended it
	return true
}

// stops reports whether this member's server is stopping: what waits is answered with what there is.
func (a *API) stops() bool {
	select {
	case <-a.tails.ended:
		return true
	default:
		return false
	}
}

// withoutWait is r without the parameters of the wait, which operations do not know.
func withoutWait(r *http.Request) *http.Request {
	u := *r.URL
	q := u.Query()
	q.Del("index")
	q.Del("wait")
	u.RawQuery = q.Encode()
	out := r.WithContext(r.Context())
	out.URL = &u
	return out
}

// draft is an answer that may not be given.
type draft struct {
	header http.Header
	status int
	body   bytes.Buffer
}

// Header implements http.ResponseWriter.
func (d *draft) Header() http.Header { return d.header }

// WriteHeader implements http.ResponseWriter.
func (d *draft) WriteHeader(status int) { d.status = cmp.Or(d.status, status) }

// Write implements http.ResponseWriter.
func (d *draft) Write(b []byte) (int, error) {
	d.WriteHeader(http.StatusOK)
	return d.body.Write(b)
}

func (d *draft) send(w http.ResponseWriter) {
	clear(w.Header())
	maps.Copy(w.Header(), d.header)
	w.WriteHeader(d.status)
	_, _ = w.Write(d.body.Bytes()) // a client that went away
}

// describeWait says in the OpenAPI document which reads can wait.
func (a *API) describeWait(op operation) {
	if waitsFor[op.id] == nil {
		return
	}
	described := operationOf(a.huma.OpenAPI().Paths[op.path], op.method)
	zero, length := 0.0, 40
	described.Parameters = append(described.Parameters,
		&huma.Param{
			Name: "index", In: "query", Schema: &huma.Schema{Type: huma.TypeInteger, Format: "int64", Minimum: &zero},
			Description: "Edgefleet-Index of the answer before: wait until there is something else to show; 0 answers at once",
		},
		&huma.Param{
			Name: "wait", In: "query", Schema: &huma.Schema{Type: huma.TypeString, MaxLength: &length}, Example: "30s",
			Description: fmt.Sprintf("with index: how long to wait, at most %s; default %s; then the answer is as before. Up to a sixteenth is added", maxWait, defaultWait),
		})
	setHeader(described.Responses["200"], headerIndex, "log index that the answer includes")
	setHeader(described.Responses["200"], headerIncarnation, "life of the cluster that the index is of: in another one, begin again with 0")
}
