package faulttest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/edgefleet/edgefleet/fleet"
)

// repeats is how many times a client sends a change again whose outcome it does not know.
const repeats = 4

// request is one request but for its body.
type request struct {
	method, path string
	// match is its If-Match, key its idempotency key, if any.
	match, key string
}

// ask makes one request and tells history and ledger what came of it. told maps a status below 500 to an outcome. A change
// carries an idempotency key: while its outcome is unknown it is sent again, to any member, and all that counts as one
// operation. Now and then one that is done is sent again too, which must give the same answer.
func (w *worker) ask(ctx context.Context, in input, r request, body any, told map[int]outcome) {
	if in.verb != read {
		w.keys++
		r.key = fmt.Sprintf("%skey-%d-%d", w.prefix, w.number, w.keys)
	}
	called := w.history.tick()
	a, out, err := w.attempt(ctx, r, body, told)
	if errors.Is(err, errNobody) {
		return
	}
	for n := 0; in.verb != read && out.outcome == unknown && n < repeats; n++ {
		if sleep(ctx, time.Duration(50+w.rng.IntN(400))*time.Millisecond) != nil {
			break
		}
		// A repetition that is refused does not say that the first one, which may be under way, will be.
		again, more, _ := w.attempt(ctx, r, body, told)
		if more.outcome == done {
			a, out = again, more
			w.history.settle(again.replayed)
		}
	}
	var t fleet.Tenant
	if out.outcome == done && in.verb != remove {
		if err := json.Unmarshal(a.body, &t); err != nil || t.Spec.Name == "" || t.Revision == 0 {
			w.history.odd("%s %s: %d with no tenant: %.300s", r.method, r.path, a.status, a.body)
		}
		out.value, w.seen[in.object] = t.Spec.Name, t
	}
	w.history.add(w.number, called, in, out)
	w.tell(in, out, a, t.Revision)
	if in.verb != read && out.outcome == done && w.rng.IntN(4) == 0 {
		w.replay(ctx, in, r, body, a)
	}
}

// attempt sends a request once, and says what its answer means.
func (w *worker) attempt(ctx context.Context, r request, body any, told map[int]outcome) (answer, output, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Duration(500+w.rng.IntN(4500))*time.Millisecond)
	defer cancel()
	to := w.member()
	a, err := w.call(ctx, w.rng, to, w.operator, r, body)
	switch {
	case err != nil:
		return a, output{outcome: unknown}, err
	case a.without():
		return a, output{outcome: refused}, nil
	case a.status == http.StatusInternalServerError:
		w.history.odd("%s %s at %s: %d %.300s", r.method, r.path, to, a.status, a.body)
	case a.status < http.StatusInternalServerError:
		if out, known := told[a.status]; known {
			return a, output{outcome: out}, nil
		}
		w.history.odd("%s %s at %s: %d %.300s", r.method, r.path, to, a.status, a.body)
	}
	return a, output{outcome: unknown}, nil
}

// replay sends a change again that is done: whoever answers must give the answer of that time, whatever came since.
func (w *worker) replay(ctx context.Context, in input, r request, body any, first answer) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	to := w.member()
	a, err := w.call(ctx, w.rng, to, w.operator, r, body)
	if err != nil || a.status > http.StatusInternalServerError {
		return
	}
	if a.status != first.status || !a.replayed || in.verb != remove && !bytes.Equal(a.body, first.body) {
		w.history.odd("%s %s of %s with the key %s at %s, done before: %d (replayed: %t) %.300s, and at first %d %.300s",
			r.method, r.path, in.value, r.key, to, a.status, a.replayed, a.body, first.status, first.body)
		return
	}
	w.history.settle(true)
}

// tell notes a mutation in the ledger.
func (w *worker) tell(in input, out output, a answer, revision uint64) {
	if in.verb == read {
		return
	}
	m := Mutation{RequestID: a.requestID, Object: "tenant/" + in.object, Mark: in.value, Revision: revision, Replayed: a.replayed}
	if in.verb == take {
		m.Object = "node/" + in.value
	}
	l := w.ledger
	note, ok := map[outcome]func(Mutation){done: l.Acknowledged, unknown: l.Unknown}[out.outcome]
	if !ok {
		note = l.Refused
	}
	note(m)
}
