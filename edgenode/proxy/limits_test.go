package proxy_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/edgefleet/edgefleet/edgenode/config"
	"github.com/edgefleet/edgefleet/edgenode/proxy"
	"github.com/edgefleet/edgefleet/fleet"
)

func limited(t *testing.T, l proxy.Limits, h http.HandlerFunc) *edge {
	t.Helper()
	return newEdge(t, func(o *proxy.Options, _ *config.Host) {
		l.Linger, l.Drain = o.Limits.Linger, o.Limits.Drain
		o.Limits = l
	}, originServer(t, h))
}

// endless is a body without end; it counts what was taken.
type endless struct{ taken atomic.Int64 }

func (e *endless) Read(p []byte) (int, error) {
	e.taken.Add(int64(len(p)))
	return len(p), nil
}

func TestBodiesOverTheLimitAreRefused(t *testing.T) {
	e := limited(t, proxy.Limits{BodyBytes: 300 << 10}, echo)
	bothProtocols(t, e, func(t *testing.T, c *http.Client) {
		declared := do(t, c, http.MethodPost, "https://"+hostName+"/", strings.NewReader(strings.Repeat("x", 300<<10+1)))
		if declared.StatusCode != 413 || !strings.Contains(declared.body, declared.Header.Get("X-Request-Id")) {
			t.Errorf("declared: %d %q", declared.StatusCode, declared.body)
		}
		if a := do(t, c, http.MethodPost, "https://"+hostName+"/", strings.NewReader(strings.Repeat("x", 300<<10))); a.StatusCode != 200 {
			t.Errorf("at the limit: %d", a.StatusCode)
		}
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://"+hostName+"/", &endless{})
		if err != nil {
			t.Fatal(err)
		}
		// HTTP/1.1 may cut the connection under a client that still sends; no other outcome is accepted.
		res, err := c.Do(req)
		if err == nil {
			defer func() { _ = res.Body.Close() }()
			if res.StatusCode != 413 {
				t.Errorf("endless: %d, want 413", res.StatusCode)
			}
		} else if t.Context().Err() != nil {
			t.Error(err)
		}
	})
	if got := e.scrape(); !strings.Contains(got, `edgefleet_proxy_refused_total{reason="body_too_large"} 4`) || strings.Contains(got, "origin_errors_total{") {
		t.Errorf("an origin is blamed, or the refusals are not counted:\n%s", got)
	}
}

func TestHeadersOverTheLimitAreRefused(t *testing.T) {
	e := limited(t, proxy.Limits{HeaderBytes: 8 << 10}, hello)
	bothProtocols(t, e, func(t *testing.T, c *http.Client) {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+hostName+"/", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("X-Long", strings.Repeat("x", 7<<10))
		req.Header.Set("X-More", strings.Repeat("x", 7<<10))
		if res, err := c.Do(req); err == nil {
			defer func() { _ = res.Body.Close() }()
			if res.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
				t.Errorf("status %d, want 431", res.StatusCode)
			}
		} else if !strings.Contains(err.Error(), "larger than peer's advertised limit") { // Go's client may already know
			t.Error(err)
		}
		if a := do(t, c, http.MethodGet, "https://"+hostName+"/", nil, "X-Long", strings.Repeat("x", 4<<10)); a.StatusCode != 200 {
			t.Errorf("status %d below the limit", a.StatusCode)
		}
	})
}

func TestSlowClientsAreCut(t *testing.T) {
	const short = 100 * time.Millisecond
	t.Run("in the handshake", func(t *testing.T) {
		e := limited(t, proxy.Limits{HeaderTimeout: short}, hello)
		conn, err := net.Dial("tcp", e.https.Addr().String()) //nolint:noctx // loopback
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = conn.Close() }()
		if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Errorf("%v, want EOF", err)
		}
	})
	t.Run("in the headers", func(t *testing.T) {
		e := limited(t, proxy.Limits{HeaderTimeout: short}, hello)
		conn := e.dial()
		_, _ = fmt.Fprint(conn, "GET / HTTP/1.1\r\nHost: api")
		if b, err := io.ReadAll(conn); err != nil {
			t.Errorf("%q %v, want the end of the connection", b, err)
		}
	})
	t.Run("between requests", func(t *testing.T) {
		e := limited(t, proxy.Limits{IdleTimeout: short}, hello)
		conn := e.dial()
		_, _ = fmt.Fprintf(conn, "GET / HTTP/1.1\r\nHost: %s\r\n\r\n", hostName)
		if b, err := io.ReadAll(conn); err != nil || !strings.Contains(string(b), "hello") {
			t.Errorf("%q %v, want an answer and the end of the connection", b, err)
		}
	})
	t.Run("in the inspected body", func(t *testing.T) {
		e := limited(t, proxy.Limits{InspectTimeout: short}, hello)
		bothProtocols(t, e, func(t *testing.T, c *http.Client) {
			r, w := io.Pipe()
			defer func() { _ = w.Close() }()
			go func() { _, _ = fmt.Fprint(w, "first") }()
			if a := do(t, c, http.MethodPost, "https://"+hostName+"/", r); a.StatusCode != 408 {
				t.Errorf("status %d, want 408", a.StatusCode)
			}
		})
	})
	t.Run("in a streamed body", func(t *testing.T) {
		e := limited(t, proxy.Limits{ProgressTimeout: short, InspectBytes: 4}, echo)
		bothProtocols(t, e, func(t *testing.T, c *http.Client) {
			r, w := io.Pipe()
			defer func() { _ = w.Close() }()
			go func() { _, _ = fmt.Fprint(w, "longer than what is inspected") }()
			if a := do(t, c, http.MethodPost, "https://"+hostName+"/", r); a.StatusCode != 408 {
				t.Errorf("status %d, want 408", a.StatusCode)
			}
		})
	})
	t.Run("in reading the answer", func(t *testing.T) {
		done := make(chan error, 2)
		e := limited(t, proxy.Limits{ProgressTimeout: short}, func(w http.ResponseWriter, _ *http.Request) {
			chunk := make([]byte, 64<<10)
			for {
				if _, err := w.Write(chunk); err != nil {
					done <- err
					return
				}
			}
		})
		bothProtocols(t, e, func(t *testing.T, c *http.Client) {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+hostName+"/", nil)
			if err != nil {
				t.Fatal(err)
			}
			res, err := c.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = res.Body.Close() }()
			<-done // nothing reads, and the origin is let go nevertheless
		})
	})
}

func TestSilentStreamsOutliveTheProgressTimeout(t *testing.T) {
	t.Parallel()
	const progress = 150 * time.Millisecond
	e := limited(t, proxy.Limits{ProgressTimeout: progress}, func(w http.ResponseWriter, r *http.Request) {
		for range 3 {
			timer := time.NewTimer(4 * progress)
			select {
			case <-timer.C:
			case <-r.Context().Done():
				return
			}
			_, _ = fmt.Fprint(w, "tick")
			_ = http.NewResponseController(w).Flush()
		}
	})
	bothProtocols(t, e, func(t *testing.T, c *http.Client) {
		for range 2 { // twice: no deadline of the first may hit the second
			a := do(t, c, http.MethodPost, "https://"+hostName+"/", strings.NewReader("x"))
			if a.StatusCode != 200 || a.body != "tickticktick" {
				t.Errorf("%d %q", a.StatusCode, a.body)
			}
		}
	})
}

func TestTooManyRequestsAreRefused(t *testing.T) {
	release, started := make(chan struct{}), make(chan struct{}, 2)
	e := limited(t, proxy.Limits{Concurrent: 2}, func(http.ResponseWriter, *http.Request) {
		started <- struct{}{}
		<-release
	})
	c := e.client(true)
	results := make(chan int, 2)
	for range 2 {
		go func() {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+hostName+"/", nil)
			if err != nil {
				t.Error(err)
				return
			}
			res, err := c.Do(req)
			if err != nil {
				t.Error(err)
				return
			}
			_ = res.Body.Close()
			results <- res.StatusCode
		}()
		<-started
	}
	if a := do(t, c, http.MethodGet, "https://"+hostName+"/", nil); a.StatusCode != 503 || a.Header.Get("Retry-After") == "" {
		t.Errorf("%d, Retry-After %q", a.StatusCode, a.Header.Get("Retry-After"))
	}
	close(release)
	for range 2 {
		if s := <-results; s != 200 {
			t.Errorf("a request within the limit got %d", s)
		}
	}
}

func TestExpectContinue(t *testing.T) {
	for _, mode := range []fleet.Mode{fleet.ModeOff, fleet.ModeBlock} {
		t.Run(string(mode), func(t *testing.T) {
			e := newEdge(t, func(_ *proxy.Options, h *config.Host) { h.Mode = mode }, originServer(t, echo))
			conn := e.dial()
			r := bufio.NewReader(conn)
			_, _ = fmt.Fprintf(conn, "POST / HTTP/1.1\r\nHost: %s\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n", hostName)
			if line, err := r.ReadString('\n'); err != nil || !strings.Contains(line, "100") {
				t.Fatalf("%q, %v; want 100", line, err)
			}
			if _, err := r.ReadString('\n'); err != nil {
				t.Fatal(err)
			}
			_, _ = fmt.Fprint(conn, "body")
			res, err := http.ReadResponse(r, nil)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = res.Body.Close() }()
			b, _ := io.ReadAll(res.Body)
			if s := (answer{res, string(b)}).seen(t); s.Body != "body" {
				t.Errorf("origin got %q", s.Body)
			}
		})
	}
	t.Run("a body over the limit is refused before it is sent", func(t *testing.T) {
		e := limited(t, proxy.Limits{BodyBytes: 3}, echo)
		conn := e.dial()
		_, _ = fmt.Fprintf(conn, "POST / HTTP/1.1\r\nHost: %s\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n", hostName)
		res, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = res.Body.Close() }()
		if res.StatusCode != 413 {
			t.Errorf("status %d, want 413", res.StatusCode)
		}
	})
}

func TestStreamedBodiesAreNotHeldInMemory(t *testing.T) {
	const size = 256 << 20
	e := limited(t, proxy.Limits{}, func(w http.ResponseWriter, r *http.Request) {
		n, _ := io.Copy(io.Discard, r.Body)
		_, _ = fmt.Fprint(w, n)
	})
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	a := do(t, e.client(true), http.MethodPost, "https://"+hostName+"/", io.LimitReader(&endless{}, size))
	runtime.ReadMemStats(&after)
	if a.body != fmt.Sprint(size) {
		t.Fatalf("origin got %s bytes of %d", a.body, size)
	}
	// The heap's system memory never shrinks by itself: its growth bounds the peak.
	if grown := int64(after.HeapSys) - int64(before.HeapSys); grown > 64<<20 {
		t.Errorf("the heap grew by %d MiB for a body of %d MiB", grown>>20, size>>20)
	}
}

func TestAClientThatLeavesIsNotAnOriginError(t *testing.T) {
	started, left := make(chan struct{}, 1), make(chan struct{}, 1)
	e := limited(t, proxy.Limits{}, func(_ http.ResponseWriter, r *http.Request) {
		started <- struct{}{}
		<-r.Context().Done()
		left <- struct{}{}
	})
	bothProtocols(t, e, func(t *testing.T, c *http.Client) {
		ctx, cancel := context.WithCancel(t.Context())
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+hostName+"/", nil)
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			<-started
			cancel()
		}()
		if res, err := c.Do(req); err == nil {
			_ = res.Body.Close()
			t.Fatal("answered")
		}
		<-left // the origin is let go
	})
	eventually(t, "both are counted as aborted", func() bool {
		return strings.Contains(e.scrape(), `edgefleet_proxy_requests_total{class="aborted"} 2`)
	})
	if strings.Contains(e.scrape(), "edgefleet_proxy_origin_errors_total{") {
		t.Error("the origin was blamed")
	}
}
