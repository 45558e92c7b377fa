package proxy_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/edgefleet/edgefleet/edgenode/config"
	"github.com/edgefleet/edgefleet/edgenode/proxy"
)

func TestDrainingFinishesRequestsAndSaysGoodbye(t *testing.T) {
	for name, h2 := range map[string]bool{"http/1.1": false, "h2": true} {
		t.Run(name, func(t *testing.T) {
			started, release := make(chan struct{}), make(chan struct{})
			e := newEdge(t, func(o *proxy.Options, _ *config.Host) { o.Limits.Drain = 10 * time.Second },
				originServer(t, func(w http.ResponseWriter, _ *http.Request) {
					close(started)
					<-release
					_, _ = fmt.Fprint(w, "whole")
				}))
			result := make(chan answer, 1)
			c := e.client(h2)
			go func() { result <- do(t, c, http.MethodGet, "https://"+hostName+"/", nil) }()
			<-started
			e.stop()
			eventually(t, "no new connections are accepted", func() bool {
				conn, err := net.Dial("tcp", e.https.Addr().String()) //nolint:noctx // loopback
				if err == nil {
					_ = conn.Close()
				}
				return err != nil
			})
			select {
			case <-e.done:
				t.Fatal("Run returned with a request in progress")
			default:
			}
			close(release)
			a := <-result
			if a.StatusCode != 200 || a.body != "whole" {
				t.Errorf("%d %q", a.StatusCode, a.body)
			}
			if !h2 && !a.Close {
				t.Error("the last answer of the connection does not say so")
			}
			e.wait()
		})
	}
}

func TestIdleConnectionsStayUsableWhileLingering(t *testing.T) {
	t.Parallel()
	e := newEdge(t, func(o *proxy.Options, _ *config.Host) {
		o.Limits.Linger, o.Limits.Drain = 5*time.Second, 5*time.Second
	}, originServer(t, hello))
	for _, h2 := range []bool{false, true} {
		c := e.client(h2)
		do(t, c, http.MethodGet, "https://"+hostName+"/", nil)
		defer func() {
			// On the connection from before: a new one would be refused.
			if a := do(t, c, http.MethodGet, "https://"+hostName+"/", nil); a.StatusCode != 200 {
				t.Errorf("h2 %v: %d", h2, a.StatusCode)
			}
		}()
	}
	e.stop()
	eventually(t, "draining began", func() bool {
		conn, err := net.Dial("tcp", e.https.Addr().String()) //nolint:noctx // loopback
		if err == nil {
			_ = conn.Close()
		}
		return err != nil
	})
}

func TestDrainingEndsAtItsDeadline(t *testing.T) {
	for name, h2 := range map[string]bool{"http/1.1": false, "h2": true} {
		t.Run(name, func(t *testing.T) {
			started := make(chan struct{})
			e := newEdge(t, func(o *proxy.Options, _ *config.Host) { o.Limits.Drain = 100 * time.Millisecond },
				originServer(t, func(_ http.ResponseWriter, r *http.Request) {
					close(started)
					<-r.Context().Done()
				}))
			c := e.client(h2)
			go func() {
				<-started
				e.stop()
			}()
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+hostName+"/", nil)
			if err != nil {
				t.Fatal(err)
			}
			if res, err := c.Do(req); err == nil {
				_ = res.Body.Close()
				t.Errorf("answered %d", res.StatusCode)
			}
			e.wait()
			if !strings.Contains(e.logs.String(), "drain deadline reached") {
				t.Error("that requests were cut is not logged")
			}
		})
	}
}

func TestHandingOverLosesNoRequest(t *testing.T) {
	t.Parallel()
	origin := originServer(t, hello)
	first := newEdge(t, func(o *proxy.Options, _ *config.Host) {
		o.Limits.Linger, o.Limits.Drain = 300*time.Millisecond, 10*time.Second
	}, origin)
	// The successor serves the same socket, as when it was inherited; its own listener goes unused.
	inherited, err := first.https.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = inherited.Close() }()
	shared, err := net.FileListener(inherited)
	if err != nil {
		t.Fatal(err)
	}
	second, err := proxy.New(first.options)
	if err != nil {
		t.Fatal(err)
	}
	var served atomic.Int64
	stop := make(chan struct{})
	var clients sync.WaitGroup
	for i := range 8 {
		c := first.client(i%2 == 1)
		clients.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://"+hostName+"/", strings.NewReader("x"))
				if err != nil {
					t.Error(err)
					return
				}
				res, err := c.Do(req)
				if err != nil {
					t.Errorf("a request was lost: %v", err)
					return
				}
				if b, err := io.ReadAll(res.Body); err != nil || string(b) != "hello" {
					t.Errorf("%q %v", b, err)
				}
				_ = res.Body.Close()
				served.Add(1)
			}
		})
	}
	eventually(t, "traffic flows", func() bool { return served.Load() > 50 })
	ctx, cancel := contextWithCancel()
	ran := make(chan error, 1)
	go func() { ran <- second.Run(ctx, shared, listen(t)) }()
	first.stop()
	first.wait()
	at := served.Load()
	eventually(t, "traffic flows through the successor", func() bool { return served.Load() > at+50 || t.Failed() })
	close(stop)
	clients.Wait()
	cancel()
	if err := <-ran; err != nil {
		t.Error(err)
	}
}

func TestRunReportsAListenerThatFails(t *testing.T) {
	e := newEdge(t, nil, originServer(t, hello))
	p, err := proxy.New(e.options)
	if err != nil {
		t.Fatal(err)
	}
	broken := listen(t)
	_ = broken.Close()
	if err := p.Run(t.Context(), broken, listen(t)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("%v, want the listener's error", err)
	}
}
