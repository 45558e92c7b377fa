package client_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/edgefleet/edgefleet/controlplane/client"
	"github.com/edgefleet/edgefleet/fleet"
)

// said is one answer to a read that waits.
type said struct {
	status             int
	index, incarnation uint64
	body               string
}

// talk answers one after the other, and notes the index that each request waits at; then the object is gone.
type talk struct {
	mu      sync.Mutex
	answers []said
	asked   []string
}

func (k *talk) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.asked = append(k.asked, r.URL.Query().Get("index"))
	a := said{status: http.StatusNotFound, body: `{"status":404,"kind":"not_found","detail":"gone"}`}
	if len(k.answers) > 0 {
		a, k.answers = k.answers[0], k.answers[1:]
	}
	if a.index > 0 {
		w.Header().Set("Edgefleet-Index", strconv.FormatUint(a.index, 10))
		w.Header().Set("Edgefleet-Incarnation", strconv.FormatUint(a.incarnation, 10))
	}
	w.WriteHeader(a.status)
	_, _ = w.Write([]byte(a.body))
}

func openWith(t *testing.T, o client.Options) *client.Client {
	t.Helper()
	c, err := client.New(o)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// watching is short, so that tests are.
var watching = client.Watching{Wait: time.Second, Pause: time.Millisecond}

func TestWatchGoesOnFromTheIndexOfEachAnswer(t *testing.T) {
	const busy = `{"status":503,"kind":"unavailable","detail":"no leader"}`
	for name, tt := range map[string]struct {
		answers []said
		asked   []string
		shown   []string
		broken  int
	}{
		"what changes is shown":                        {[]said{{200, 5, 1, `1`}, {200, 9, 1, `2`}}, []string{"0", "5", "9"}, []string{"1", "2"}, 0},
		"what does not is not":                         {[]said{{200, 5, 1, `1`}, {200, 7, 1, `1`}, {200, 9, 1, `2`}}, []string{"0", "5", "7", "9"}, []string{"1", "2"}, 0},
		"a lower index begins anew":                    {[]said{{200, 50, 1, `1`}, {200, 9, 1, `1`}, {200, 10, 1, `2`}}, []string{"0", "50", "0", "10"}, []string{"1", "2"}, 0},
		"another life of the cluster too":              {[]said{{200, 50, 1, `1`}, {200, 60, 2, `2`}, {200, 61, 2, `3`}}, []string{"0", "50", "0", "61"}, []string{"1", "2", "3"}, 0},
		"an API that says no index is asked from 0 on": {[]said{{200, 0, 0, `1`}, {200, 0, 0, `2`}}, []string{"0", "0", "0"}, []string{"1", "2"}, 0},
		"a failure keeps the index":                    {[]said{{200, 5, 1, `1`}, {503, 0, 0, busy}, {503, 0, 0, busy}, {200, 6, 1, `2`}}, []string{"0", "5", "5", "5", "6"}, []string{"1", "2"}, 2},
		"it begins with failures, too":                 {[]said{{503, 0, 0, busy}, {200, 6, 1, `2`}}, []string{"0", "0", "6"}, []string{"2"}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			k := &talk{answers: tt.answers}
			s := serve(t, k.ServeHTTP)
			c := openWith(t, client.Options{Addrs: []string{s.addr()}, CACert: s.ca(), Token: "t"})
			o, broken, shown := watching, 0, []string(nil)
			o.Broken = func(err error) {
				if broken++; !errors.Is(err, fleet.ErrUnavailable) {
					t.Error(err)
				}
			}
			err := client.Watch(t.Context(), c, "/v1/x", nil, o, func(v json.RawMessage) error {
				shown = append(shown, string(v))
				return nil
			})
			if !errors.Is(err, fleet.ErrNotFound) || broken != tt.broken {
				t.Errorf("it ended with %v; %d requests failed", err, broken)
			}
			if diff := cmp.Diff(tt.asked, k.asked) + cmp.Diff(tt.shown, shown); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestWatchAsksTheNextMemberWhenOneIsBusyAndEndsWithItsCaller(t *testing.T) {
	busy := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusServiceUnavailable)
		_, _ = w.Write([]byte(`{"status":503,"kind":"unavailable","detail":"stopping"}`))
	})
	k := &talk{answers: []said{{200, 5, 1, `1`}}}
	well := serve(t, k.ServeHTTP)
	c := openWith(t, client.Options{Addrs: []string{busy.addr(), well.addr()}, CACert: append(busy.ca(), well.ca()...), Token: "t"})
	ctx, cancel := context.WithCancel(t.Context())
	err := client.Watch(ctx, c, "/v1/x", nil, watching, func(int) error {
		cancel()
		return nil
	})
	if !errors.Is(err, context.Canceled) || busy.hits.Load() != 1 {
		t.Errorf("%v after %d requests of the busy member", err, busy.hits.Load())
	}
	stop := errors.New("enough")
	k.answers = []said{{200, 5, 1, `1`}}
	if err := client.Watch(t.Context(), c, "/v1/x", nil, watching, func(int) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("the caller's own end is %v", err)
	}
}

func TestStaleReadsAreAskedForAndSayWhatTheyInclude(t *testing.T) {
	var query string
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		query = r.URL.RawQuery
		w.Header().Set("Edgefleet-Index", "12")
		w.Header().Set("Edgefleet-Incarnation", "2")
		w.Header().Set("Edgefleet-Age", "1500")
		_, _ = w.Write([]byte(`{}`))
	})
	var seen []client.Freshness
	c := openWith(t, client.Options{Addrs: []string{s.addr()}, CACert: s.ca(), Token: "t", Reads: client.Reads{
		Stale: true, MaxAge: 10 * time.Second, Seen: func(f client.Freshness) { seen = append(seen, f) },
	}})
	if err := c.Do(t.Context(), "GET", "/v1/x", nil, nil, nil); err != nil || query != "consistency=stale&max_age=10s" {
		t.Errorf("%q: %v", query, err)
	}
	if err := c.Do(t.Context(), "POST", "/v1/x", nil, struct{}{}, nil); err != nil || query != "" {
		t.Errorf("a change was sent with %q: %v", query, err)
	}
	want := []client.Freshness{{Index: 12, Incarnation: 2, Age: 1500 * time.Millisecond, Aged: true}}
	if diff := cmp.Diff(want, seen); diff != "" {
		t.Error(diff)
	}
}
