package client_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/edgefleet/edgefleet/controlplane/client"
	"github.com/edgefleet/edgefleet/fleet"
)

// keys remembers the idempotency keys of the requests that it passes on.
type keys struct {
	mu   sync.Mutex
	seen []string
}

func (k *keys) of(h http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		k.mu.Lock()
		k.seen = append(k.seen, r.Header.Get("Idempotency-Key"))
		k.mu.Unlock()
		h(w, r)
	}
}

func (k *keys) all() []string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.seen
}

func refuse(status int, problem string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_, _ = io.WriteString(w, problem)
	}
}

func brokenOff(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Length", "100")
	_, _ = io.WriteString(w, `{"id":`)
}

func TestAChangeWithAnUnknownOutcomeIsRepeatedUnderItsKey(t *testing.T) {
	const unknown = `{"title":"t","status":503,"kind":"unavailable","detail":"d","outcome_unknown":true}`
	for name, bad := range map[string]http.HandlerFunc{
		"the connection breaks":       hangUp,
		"the answer breaks off":       brokenOff,
		"the member says that itself": refuse(503, unknown),
	} {
		for _, method := range []string{http.MethodPost, http.MethodPatch, http.MethodDelete} {
			t.Run(name+" "+method, func(t *testing.T) {
				var k keys
				broken, good := serve(t, k.of(bad)), serve(t, k.of(answer(`{}`)))
				c := open(t, append(broken.ca(), good.ca()...), broken.addr(), good.addr())
				for range 2 {
					if _, err := c.Raw(t.Context(), method, "/v1/x", nil, map[string]int{"n": 1}); err != nil {
						t.Fatal(err)
					}
				}
				seen := k.all()
				if len(seen) < 4 || len(seen[0]) < 16 || seen[0] != seen[1] || seen[len(seen)-1] == seen[0] {
					t.Errorf("the keys were %q: want one for each change", seen)
				}
			})
		}
	}
}

func TestAChangeIsNotRepeatedWithoutNeed(t *testing.T) {
	const refused = `{"title":"t","status":503,"kind":"unavailable","detail":"no leader"}`
	bare := func(t *testing.T, ca []byte, addrs ...string) *client.Client {
		t.Helper()
		c, err := client.New(client.Options{Addrs: addrs, CACert: ca})
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	for name, test := range map[string]struct {
		bad  http.HandlerFunc
		open func(*testing.T, []byte, ...string) *client.Client
		opts []client.Option
		key  bool
	}{
		"when it was refused":          {bad: refuse(503, refused), open: open, key: true},
		"without a token, so no key":   {bad: hangUp, open: bare},
		"when its author says so":      {bad: hangUp, open: open, opts: []client.Option{client.Unrepeatable()}},
		"when it conflicts with a key": {bad: refuse(422, `{"status":422,"kind":"key_reused","detail":"d"}`), open: open, opts: []client.Option{client.Key("mine")}, key: true},
	} {
		t.Run(name, func(t *testing.T) {
			var k keys
			first, second := serve(t, k.of(test.bad)), serve(t, answer(`{}`))
			_, err := test.open(t, append(first.ca(), second.ca()...), first.addr(), second.addr()).Raw(t.Context(), http.MethodPost, "/v1/x", nil, nil, test.opts...)
			if err == nil || second.hits.Load() != 0 || len(k.all()) != 1 || (k.all()[0] != "") != test.key {
				t.Errorf("got %v after the keys %q and %d requests to the next member", err, k.all(), second.hits.Load())
			}
		})
	}
}

func TestAnOutcomeThatStaysUnknownNamesItsKey(t *testing.T) {
	s := serve(t, hangUp)
	c, err := client.New(client.Options{Addrs: []string{s.addr()}, CACert: s.ca(), Token: "t", Key: "my-key", Timeout: 300 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.Raw(t.Context(), http.MethodPost, "/v1/x", nil, nil)
	if !errors.Is(err, fleet.ErrOutcomeUnknown) || !errors.Is(err, fleet.ErrUnavailable) && !errors.Is(err, fleet.ErrTimeout) || !strings.Contains(err.Error(), "my-key") || s.hits.Load() < 2 {
		t.Errorf("got %v after %d requests", err, s.hits.Load())
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.Raw(ctx, http.MethodPost, "/v1/x", nil, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want the cancellation", err)
	}
}
