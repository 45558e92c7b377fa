package client

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"

	"github.com/edgefleet/edgefleet/fleet"
)

// Freshness is what the answer to a read includes.
type Freshness struct {
	// Index is the log index up to which, at least, the answer includes everything; 0 if the API did not say.
	Index uint64
	// Incarnation is the life of the cluster that the index is of; 0 if the API did not say.
	Incarnation uint64
	// Age is how long ago the member that answered heard from the leader; Aged is false if it did not say: a linearizable
	// answer has no age, and a member that never heard from a leader knows none.
	Age  time.Duration
	Aged bool
}

// Seen tells fn what the answer to a read includes.
func Seen(fn func(Freshness)) Option { return func(r *request) { r.seen = fn } }

// freshness reads the headers of an answer.
func freshness(h http.Header) (f Freshness) {
	f.Index, _ = strconv.ParseUint(h.Get("Edgefleet-Index"), 10, 64) // 0 is not known
	f.Incarnation, _ = strconv.ParseUint(h.Get("Edgefleet-Incarnation"), 10, 64)
	ms, err := strconv.ParseInt(h.Get("Edgefleet-Age"), 10, 64)
	f.Age, f.Aged = time.Duration(ms)*time.Millisecond, err == nil
	return f
}

// stale is query with what the client wants of reads.
func (c *Client) stale(query url.Values) url.Values {
	if !c.reads.Stale {
		return query
	}
	q := maps.Clone(query)
	if q == nil {
		q = url.Values{}
	}
	q.Set("consistency", "stale")
	if c.reads.MaxAge > 0 {
		q.Set("max_age", c.reads.MaxAge.String())
	}
	return q
}

// Watching says how Watch waits; the zero value is good.
type Watching struct {
	// Wait is how long one request waits at the API; default, and at most, half of the client's timeout.
	Wait time.Duration
	// Pause is the first pause after a request that nobody answered, doubled up to a minute; default 500ms. A tenth of it
	// is between two answers at least, so that what changes all the time is not asked for all the time.
	Pause time.Duration
	// Broken, if set, is told why a request failed, before the next.
	Broken func(error)
}

const (
	watchPause    = 500 * time.Millisecond
	maxWatchPause = time.Minute
)

// Watch reads path, gives what it shows to fn, and again whenever it shows something else, until ctx ends or fn returns an
// error. Members that are away or busy are asked again, in turn; other errors, such as that the object is gone, are
// returned. What came and went between two answers is not shown. After a restore, when the log of another life of the
// cluster is read, it begins anew.
func Watch[T any](ctx context.Context, c *Client, path string, query url.Values, o Watching, fn func(T) error) error {
	w := &watch{client: *c, path: path, query: query, o: o}
	w.o.Wait = min(cmp.Or(o.Wait, c.timeout/2), c.timeout/2)
	w.o.Pause = cmp.Or(o.Pause, watchPause)
	for {
		raw, err := w.next(ctx)
		if err != nil {
			return err
		}
		var v T
		if err := json.Unmarshal(raw, &v); err != nil {
			return fmt.Errorf("decode the answer of GET %s: %w", path, err)
		}
		if err := fn(v); err != nil {
			return err
		}
	}
}

// watch is what was read so far.
type watch struct {
	client Client
	path   string
	query  url.Values
	o      Watching

	last  []byte
	index uint64
	// incarnation is the life of the cluster that index is of.
	incarnation uint64
}

// next waits for an answer that is not the last.
func (w *watch) next(ctx context.Context) ([]byte, error) {
	for failed := w.o.Pause; ; {
		if w.last != nil && !sleep(ctx, jittered(w.between())) {
			return nil, ctx.Err()
		}
		raw, err := w.ask(ctx)
		switch {
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case err == nil && !bytes.Equal(raw, w.last):
			w.last = raw
			return raw, nil
		case err == nil:
			failed = w.o.Pause
			continue
		case !errors.Is(err, fleet.ErrUnavailable) && !errors.Is(err, fleet.ErrTimeout) && !errors.Is(err, fleet.ErrRateLimited):
			return nil, err
		}
		if w.o.Broken != nil {
			w.o.Broken(err)
		}
		w.client.addrs = slices.Concat(w.client.addrs[1:], w.client.addrs[:1])
		if !sleep(ctx, jittered(failed)) {
			return nil, ctx.Err()
		}
		failed = min(2*failed, maxWatchPause)
	}
}

// between is the pause between two answers: longer where the API says no index, and so does not wait.
func (w *watch) between() time.Duration {
	if w.index == 0 {
		return w.o.Pause
	}
	return w.o.Pause / 10
}

// ask sends one request, and remembers up to where its answer goes.
func (w *watch) ask(ctx context.Context) ([]byte, error) {
	q := url.Values{}
	maps.Copy(q, w.query)
	q.Set("index", strconv.FormatUint(w.index, 10))
	q.Set("wait", w.o.Wait.String())
	var f Freshness
	raw, err := w.client.Raw(ctx, http.MethodGet, w.path, q, nil, Seen(func(now Freshness) { f = now }))
	if err != nil {
		return nil, err
	}
	// An index is of one life of the cluster, and in it only grows: another one says nothing about what was seen.
	if f.Index < w.index || w.incarnation != 0 && f.Incarnation != w.incarnation {
		f.Index = 0
	}
	w.index, w.incarnation = f.Index, f.Incarnation
	return raw, nil
}

// jittered is d, spread over half of it to one and a half, so that those that failed together do not come back together.
func jittered(d time.Duration) time.Duration {
	return d/2 + rand.N(d+1) //nolint:gosec // it spreads load, and hides nothing
}

// sleep waits, unless ctx ends before.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
