package client_test

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"github.com/edgefleet/edgefleet/controlplane/client"
	"github.com/edgefleet/edgefleet/fleet"
)

// TestAChangeThatAMemberTookBeforeItEndedHasAnUnknownOutcome: the connection breaks after the request arrived, the
// transport sends it again because of its key, and nobody listens any more. That says nothing of the first time.
func TestAChangeThatAMemberTookBeforeItEndedHasAnUnknownOutcome(t *testing.T) {
	var s *httptest.Server
	s = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet {
			_, _ = io.WriteString(w, `{}`)
			return
		}
		_ = s.Listener.Close()
		hangUp(w, r)
	}))
	t.Cleanup(s.Close)
	c, err := client.New(client.Options{Addrs: []string{s.URL}, Token: "eft1.t.secret", TLS: s.Client().Transport.(*http.Transport).TLSClientConfig, Timeout: 2 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.Get[struct{}](t.Context(), c, "/v1/any", nil); err != nil { // the connection is kept
		t.Fatal(err)
	}
	if _, err := client.Post[struct{}](t.Context(), c, "/v1/any", struct{}{}); !errors.Is(err, fleet.ErrOutcomeUnknown) {
		t.Errorf("the outcome of the change is not known, but the client says: %v", err)
	}
}

func TestAChangeThatWaitsForASecondPersonIsAnsweredAndNotSentAgain(t *testing.T) {
	var sent atomic.Int64
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		sent.Add(1)
		w.WriteHeader(http.StatusAccepted)
		_, _ = io.WriteString(w, `{"id":"ap-1"}`)
	}))
	t.Cleanup(s.Close)
	c, err := client.New(client.Options{Addrs: []string{s.URL}, Token: "eft1.t.secret", TLS: s.Client().Transport.(*http.Transport).TLSClientConfig})
	if err != nil {
		t.Fatal(err)
	}
	err = c.Do(t.Context(), http.MethodDelete, "/v1/any", nil, nil, nil)
	var held *client.Held
	if !errors.As(err, &held) || held.ID != "ap-1" || errors.Is(err, fleet.ErrOutcomeUnknown) || sent.Load() != 1 {
		t.Errorf("%v after %d requests", err, sent.Load())
	}
}
