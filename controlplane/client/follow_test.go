package client_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/edgefleet/edgefleet/fleet"
)

// sends writes messages and then hangs up.
func sends(asked *[]string, messages ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		*asked = append(*asked, r.Header.Get("Last-Event-ID")+" "+r.URL.RawQuery)
		for _, m := range messages {
			_, _ = io.WriteString(w, m+"\n\n")
		}
		w.(http.Flusher).Flush() //nolint:forcetypeassert // a server's
		hangUp(w, r)
	}
}

func TestFollowGoesOnAfterTheLastEventAtTheNextMember(t *testing.T) {
	event := func(at, n int) string { return fmt.Sprintf("id: %d-n1:b1:%d\nevent: event\ndata: %d", at, n, n) }
	var asked []string
	first := serve(t, sends(&asked, event(10, 1), event(20, 2), event(15, 3)))
	second := serve(t, sends(&asked, event(15, 3), event(16, 4), event(20, 2), event(30, 5), "event: gap\ndata: {\"kept_since\":\"x\"}", "event: resume\ndata: {\"reason\":\"member stops\"}"))
	ca := slices.Concat(first.ca(), second.ca())
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var got, broken []string
	err := open(t, ca, first.addr(), second.addr()).Follow(ctx, "/v1/x", map[string][]string{"host": {"a"}}, func(err error) {
		if broken = append(broken, err.Error()); len(broken) == 3 {
			cancel()
		}
	}, func(data []byte) error {
		got = append(got, string(data))
		return nil
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if diff := cmp.Diff([]string{" host=a", "20-n1:b1:2 host=a&overlap=10m0s"}, asked); diff != "" {
		t.Errorf("asked: %s", diff)
	}
	for i, want := range []string{"the stream broke", "events may be missing here", "member stops"} {
		if !strings.Contains(broken[i], want) {
			t.Errorf("broken: %q, want %q", broken[i], want)
		}
	}
	if diff := cmp.Diff([]string{"1", "2", "3", "4", "5"}, got); diff != "" {
		t.Error(diff)
	}
}

func TestFollowGoesOnFromWhereAStreamBeganThatBroughtNothing(t *testing.T) {
	var asked []string
	first := serve(t, sends(&asked, ": hello\n\nid: 5-start:start:0"))
	second := serve(t, sends(&asked, "id: 9-start:start:0", "id: 7-n1:b1:1\nevent: event\ndata: 1"))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var got []string
	err := open(t, slices.Concat(first.ca(), second.ca()), first.addr(), second.addr()).Follow(ctx, "/v1/x", map[string][]string{"host": {"a"}}, nil, func(data []byte) error {
		got = append(got, string(data))
		cancel()
		return nil
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if diff := cmp.Diff([]string{" host=a", "5-start:start:0 host=a"}, asked); diff != "" {
		t.Errorf("asked: %s", diff)
	}
	if diff := cmp.Diff([]string{"1"}, got); diff != "" {
		t.Error(diff)
	}
}

func TestFollowWaitsForAPlace(t *testing.T) {
	full := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusTooManyRequests)
		_, _ = io.WriteString(w, `{"status":429,"kind":"rate_limited","detail":"full"}`)
	})
	enough := errors.New("enough")
	other := serve(t, answer("id: 1-n1:b1:1\nevent: event\ndata: x\n\n"))
	err := open(t, slices.Concat(full.ca(), other.ca()), full.addr(), other.addr()).Follow(t.Context(), "/v1/x", nil, nil, func([]byte) error { return enough })
	if !errors.Is(err, enough) || full.hits.Load() != 1 {
		t.Errorf("got %v", err)
	}
}

func TestFollowEndsWithWhatWillNotMend(t *testing.T) {
	denied := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusForbidden)
		_, _ = io.WriteString(w, `{"status":403,"kind":"denied","detail":"no"}`)
	})
	if err := open(t, denied.ca(), denied.addr()).Follow(t.Context(), "/v1/x", nil, nil, nil); !errors.Is(err, fleet.ErrDenied) || denied.hits.Load() != 1 {
		t.Errorf("got %v after %d requests", err, denied.hits.Load())
	}
	ctx, cancel := context.WithCancel(t.Context())
	away := closedAddr(t)
	err := open(t, denied.ca(), away).Follow(ctx, "/v1/x", nil, func(err error) {
		if !strings.Contains(err.Error(), away) {
			t.Errorf("broken: %v", err)
		}
		cancel()
	}, nil)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	enough := errors.New("enough")
	plain := serve(t, answer("data: x\n\n"))
	if err := open(t, plain.ca(), plain.addr()).Follow(t.Context(), "/v1/x", nil, nil, func([]byte) error { return enough }); !errors.Is(err, enough) {
		t.Errorf("got %v, want the error of the function", err)
	}
}
