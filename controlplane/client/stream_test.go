package client_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"

	"github.com/edgefleet/edgefleet/controlplane/client"
	"github.com/edgefleet/edgefleet/fleet"
)

func TestStreamGivesEachEventUntilTheCallerHasEnough(t *testing.T) {
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		for i := range 3 {
			_, _ = fmt.Fprintf(w, "event: event\ndata: {\"n\":%d}\n\n", i)
			w.(http.Flusher).Flush()
		}
		<-r.Context().Done()
	})
	enough := errors.New("enough")
	var got []string
	err := open(t, s.ca(), closedAddr(t), s.addr()).Stream(t.Context(), "/v1/x", nil, func(data []byte) error {
		if got = append(got, string(data)); len(got) == 3 {
			return enough
		}
		return nil
	})
	if diff := cmp.Diff([]string{`{"n":0}`, `{"n":1}`, `{"n":2}`}, got); !errors.Is(err, enough) || diff != "" {
		t.Errorf("%v %s", err, diff)
	}
}

func TestAStreamEndsWithTheContextAndSaysWhenItBreaks(t *testing.T) {
	silent := serve(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, "data: x\n\n")
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	})
	ctx, cancel := context.WithCancel(t.Context())
	err := open(t, silent.ca(), silent.addr()).Stream(ctx, "/v1/x", nil, func([]byte) error { cancel(); return nil })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want the cancellation", err)
	}
	for name, h := range map[string]http.HandlerFunc{
		"the member ends it": answer("data: x\n\n"),
		"the member dies": func(w http.ResponseWriter, r *http.Request) {
			w.(http.Flusher).Flush()
			hangUp(w, r)
		},
	} {
		s := serve(t, h)
		if err := open(t, s.ca(), s.addr()).Stream(t.Context(), "/v1/x", nil, func([]byte) error { return nil }); !errors.Is(err, fleet.ErrUnavailable) {
			t.Errorf("%s: got %v, want unavailable", name, err)
		}
	}
	denied := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusForbidden)
		_, _ = io.WriteString(w, `{"status":403,"kind":"denied","detail":"no"}`)
	})
	if err := open(t, denied.ca(), denied.addr()).Stream(t.Context(), "/v1/x", nil, nil); !errors.Is(err, fleet.ErrDenied) {
		t.Errorf("got %v, want denied", err)
	}
}

func TestTheEventFormatIsReadAsItIsWritten(t *testing.T) {
	for name, test := range map[string]struct {
		in   string
		want []string
		err  error
	}{
		"one event":                        {"data: a\n\n", []string{"a"}, fleet.ErrUnavailable},
		"fields that do not matter":        {": ping\nid: 1\nevent: event\nretry: 5\ndata:a\n\n\n", []string{"a"}, fleet.ErrUnavailable},
		"data of several lines":            {"data: a\ndata:  b\n\n", []string{"a\n b"}, fleet.ErrUnavailable},
		"CRLF":                             {"data: a\r\n\r\ndata: b\r\n\r\n", []string{"a", "b"}, fleet.ErrUnavailable},
		"empty data":                       {"data\n\n", []string{""}, fleet.ErrUnavailable},
		"an event that breaks off":         {"data: a\n\ndata: b\n", []string{"a"}, fleet.ErrUnavailable},
		"a line that is too long":          {"data: " + strings.Repeat("x", 2<<20), nil, fleet.ErrTooLarge},
		"an event of too many short lines": {strings.Repeat("data: "+strings.Repeat("x", 1<<19)+"\n", 3), nil, fleet.ErrTooLarge},
	} {
		t.Run(name, func(t *testing.T) {
			var got []string
			err := client.ReadEvents(iotest.HalfReader(strings.NewReader(test.in)), func(data []byte) error {
				got = append(got, string(data))
				return nil
			})
			if diff := cmp.Diff(test.want, got); diff != "" || !errors.Is(err, test.err) {
				t.Errorf("%v %s", err, diff)
			}
		})
	}
}

// Whatever a server sends, the decoder ends, and gives no event over the limit.
func FuzzReadEvents(f *testing.F) {
	for _, seed := range []string{"data: a\n\n", "event: e\ndata: {}\n\n: c\n", "data\r\ndata:\r\n\r\n", "\n\n\ndata: x"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		err := client.ReadEvents(strings.NewReader(string(in)), func(data []byte) error {
			if len(data) > len(in) {
				t.Errorf("%d bytes of data out of %d", len(data), len(in))
			}
			return nil
		})
		if err == nil {
			t.Error("the stream ended without saying why")
		}
	})
}
