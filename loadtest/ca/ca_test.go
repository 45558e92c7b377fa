package ca_test

import (
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/edgefleet/edgefleet/loadtest/ca"
)

// server counts what it serves, each request until it may leave.
type server struct {
	looks, orders, together atomic.Int32
	entered                 chan string
	leave                   chan struct{}
}

func (s *server) ServeHTTP(_ http.ResponseWriter, r *http.Request) {
	here, others := &s.looks, &s.orders
	switch r.URL.Path {
	case "/order-plz":
		here, others = others, here
	case "/authZ/1":
	default:
		here, others = new(atomic.Int32), new(atomic.Int32)
	}
	here.Add(1)
	if others.Load() > 0 {
		s.together.Add(1)
	}
	s.entered <- r.URL.Path
	<-s.leave
	here.Add(-1)
}

func TestNoOrderBeginsWhileAuthorizationsAreLookedAt(t *testing.T) {
	s := &server{entered: make(chan string, 64), leave: make(chan struct{})}
	h := ca.Apart(s)
	var wg sync.WaitGroup
	ask := func(path string) {
		wg.Go(func() {
			h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodPost, path, http.NoBody))
		})
	}
	served := func(want string) {
		t.Helper()
		select {
		case got := <-s.entered:
			if got != want {
				t.Errorf("%s is served, wanted %s", got, want)
			}
		case <-time.After(30 * time.Second):
			t.Errorf("%s is not served", want)
		}
	}
	for range 2 {
		ask("/authZ/1") // looks are served at one time
	}
	served("/authZ/1")
	served("/authZ/1")
	for range 8 {
		ask("/order-plz")
	}
	ask("/my-order/1") // and others, whatever waits
	served("/my-order/1")
	for range 8 {
		ask("/authZ/1")
	}
	close(s.leave)
	wg.Wait()
	if n := s.together.Load(); n > 0 {
		t.Errorf("an order and a look were served together %d times", n)
	}
	if n := len(s.entered); n != 16 {
		t.Errorf("%d of the 16 others were served", n)
	}
}
