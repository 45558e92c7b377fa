package proxy_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/edgefleet/edgefleet/edgenode/config"
	"github.com/edgefleet/edgefleet/edgenode/proxy"
	"github.com/edgefleet/edgefleet/edgenode/waf"
	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/observability"
)

// judgeBy makes an edge whose Judge finds the requests malicious whose inspected body or target holds "attack", and
// blocks them in mode block.
func judgeBy(t *testing.T, mode fleet.Mode, origin http.HandlerFunc) *edge {
	t.Helper()
	return newEdge(t, func(o *proxy.Options, h *config.Host) {
		h.Mode = mode
		o.Judge = judgeFunc(func(in waf.Input) waf.Decision {
			req := in.Request.Input()
			if !bytes.Contains(req.Body, []byte("attack")) && !strings.Contains(req.URI, "attack") {
				return waf.Decision{}
			}
			d := waf.Decision{Malicious: true, Block: in.Mode == fleet.ModeBlock}
			status := fleet.Monitored
			if d.Block {
				status = fleet.Blocked
			}
			d.Events = []fleet.Event{{Tenant: in.Tenant, Host: in.Host, Type: "sqli", Status: status, Path: "*", ClientIP: in.ClientAddr.Addr().String()}}
			return d
		})
	}, originServer(t, origin))
}

func TestBlockedRequestsGetAPageAndNothingElse(t *testing.T) {
	var reached atomic.Int64
	e := judgeBy(t, fleet.ModeBlock, func(http.ResponseWriter, *http.Request) { reached.Add(1) })
	bothProtocols(t, e, func(t *testing.T, c *http.Client) {
		for accept, contentType := range map[string]string{
			"":                                    "text/html; charset=utf-8",
			"application/json":                    "application/json",
			"text/html,application/xhtml+xml,*/*": "text/html; charset=utf-8",
		} {
			a := do(t, c, http.MethodPost, "https://"+hostName+"/x", strings.NewReader("an attack"), "Accept", accept)
			id := a.Header.Get("X-Request-Id")
			if a.StatusCode != 403 || a.Header.Get("Content-Type") != contentType || a.Header.Get("Cache-Control") != "no-store" || !strings.Contains(a.body, id) || !requestID.MatchString(id) {
				t.Errorf("Accept %q: %d %v %q", accept, a.StatusCode, a.Header, a.body)
			}
			if strings.Contains(a.body, "sqli") || strings.Contains(a.body, "127.0.0.1") {
				t.Errorf("the page tells too much: %q", a.body)
			}
		}
	})
	if n := reached.Load(); n != 0 {
		t.Errorf("%d blocked requests reached the origin", n)
	}
	want := []fleet.TenantCounters{{Tenant: "tenant-a", Requests: 6, Detected: 6, Blocked: 6}}
	if diff := cmp.Diff(want, e.proxy.Counters()); diff != "" {
		t.Errorf("counters (-want +got):\n%s", diff)
	}
	if !strings.Contains(e.scrape(), "edgefleet_proxy_blocked_total 6") {
		t.Error("blocked requests are not counted")
	}
}

func TestEventsAreCompletedAndReportedOnce(t *testing.T) {
	for _, mode := range []fleet.Mode{fleet.ModeMonitoring, fleet.ModeBlock} {
		t.Run(string(mode), func(t *testing.T) {
			e := judgeBy(t, mode, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) })
			before := time.Now()
			a := do(t, e.client(true), http.MethodGet, "https://"+hostName+"/?q=attack", nil)
			got := e.events.list()
			if len(got) != 1 {
				t.Fatalf("%d events, want 1", len(got))
			}
			ev := got[0]
			if ev.Time.Before(before) || ev.Time.After(time.Now()) || len(ev.TraceID) != 32 {
				t.Errorf("time %s, trace %q", ev.Time, ev.TraceID)
			}
			ev.Time, ev.TraceID = time.Time{}, ""
			want := fleet.Event{
				NodeID: "n1", Region: "eu", Software: observability.Version, Tenant: "tenant-a", Host: hostName, Ruleset: fleet.Version{Incarnation: 1, Generation: 7},
				RequestID: a.Header.Get("X-Request-Id"), Type: "sqli", Status: fleet.Monitored, Path: "*", ClientIP: "127.0.0.1", ResponseStatus: 418,
			}
			if mode == fleet.ModeBlock {
				want.Status, want.ResponseStatus = fleet.Blocked, 403
			}
			if diff := cmp.Diff(want, ev); diff != "" {
				t.Errorf("event (-want +got):\n%s", diff)
			}
		})
	}
}

func TestEventsOfStreamsAreReportedWhenTheAnswerBegins(t *testing.T) {
	release := make(chan struct{})
	e := judgeBy(t, fleet.ModeMonitoring, func(w http.ResponseWriter, _ *http.Request) {
		_ = http.NewResponseController(w).Flush()
		<-release
	})
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+hostName+"/?q=attack", nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := e.client(false).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	if n := len(e.events.list()); n != 1 {
		t.Errorf("%d events while the answer streams, want 1", n)
	}
	close(release)
}

func TestModeOffIsNotJudged(t *testing.T) {
	e := judgeBy(t, fleet.ModeOff, hello)
	if a := do(t, e.client(false), http.MethodGet, "https://"+hostName+"/?q=attack", nil); a.StatusCode != 200 || len(e.events.list()) != 0 {
		t.Errorf("status %d, %d events", a.StatusCode, len(e.events.list()))
	}
}

func TestWhatCouldNotBeJudgedPasses(t *testing.T) {
	e := newEdge(t, func(o *proxy.Options, _ *config.Host) {
		o.Judge = judgeFunc(func(waf.Input) waf.Decision { return waf.Decision{EngineError: errors.New("away")} })
	}, originServer(t, hello))
	if a := do(t, e.client(false), http.MethodGet, "https://"+hostName+"/", nil); a.StatusCode != 200 {
		t.Errorf("status %d", a.StatusCode)
	}
}

// busyJudge never has a free slot.
type busyJudge struct{}

func (busyJudge) Judge(ctx context.Context, _ waf.Input) waf.Decision {
	<-ctx.Done()
	return waf.Decision{EngineError: ctx.Err()}
}

func TestABusyJudgeIsNotWaitedForWithoutEnd(t *testing.T) {
	e := newEdge(t, func(o *proxy.Options, _ *config.Host) {
		o.Judge, o.Limits.JudgeTimeout = busyJudge{}, 20*time.Millisecond
	}, originServer(t, hello))
	if a := do(t, e.client(true), http.MethodGet, "https://"+hostName+"/", nil); a.StatusCode != 200 {
		t.Errorf("status %d", a.StatusCode)
	}
}

func TestTheJudgeSeesTheRequestAndThePrefixOfItsBody(t *testing.T) {
	seen := make(chan waf.Input, 1)
	e := newEdge(t, func(o *proxy.Options, _ *config.Host) {
		o.Limits.InspectBytes = 10
		o.Judge = judgeFunc(func(in waf.Input) waf.Decision {
			seen <- in
			return waf.Decision{}
		})
	}, originServer(t, echo))
	bothProtocols(t, e, func(t *testing.T, c *http.Client) {
		for body, want := range map[string]struct {
			prefix    string
			truncated bool
		}{
			"":            {"", false},
			"short":       {"short", false},
			"0123456789":  {"0123456789", false},
			"0123456789+": {"0123456789", true},
		} {
			a := do(t, c, http.MethodPost, "https://"+hostName+"/a%2fb?c=d", io.MultiReader(strings.NewReader(body)), "X-Forwarded-For", "203.0.113.9")
			in := <-seen
			req := in.Request.Input()
			if string(req.Body) != want.prefix || req.Truncated != want.truncated {
				t.Errorf("%q: judged %q, truncated %v", body, req.Body, req.Truncated)
			}
			if in.Host != hostName || in.Tenant != "tenant-a" || in.ClientAddr.Addr().String() != "127.0.0.1" || in.ClientAddr.Port() == 0 || req.URI != "/a%2fb?c=d" || req.Scheme != "https" || req.Method != http.MethodPost || req.Host != hostName {
				t.Errorf("judged %+v %+v", in, req)
			}
			if got := a.seen(t).Body; got != body {
				t.Errorf("origin got %q, want %q", got, body)
			}
		}
	})
}

func TestAPanicCostsOneRequest(t *testing.T) {
	var fail atomic.Bool
	e := newEdge(t, func(o *proxy.Options, _ *config.Host) {
		o.Judge = judgeFunc(func(in waf.Input) waf.Decision {
			if fail.Load() {
				panic("secret of " + in.Request.Input().URI)
			}
			return waf.Decision{}
		})
	}, originServer(t, hello))
	bothProtocols(t, e, func(t *testing.T, c *http.Client) {
		fail.Store(true)
		a := do(t, c, http.MethodGet, "https://"+hostName+"/?token=12345", nil)
		id := a.Header.Get("X-Request-Id")
		if a.StatusCode != 500 || !strings.Contains(a.body, id) {
			t.Errorf("%d %q", a.StatusCode, a.body)
		}
		fail.Store(false)
		if a := do(t, c, http.MethodGet, "https://"+hostName+"/", nil); a.StatusCode != 200 {
			t.Errorf("the next request on the connection: %d", a.StatusCode)
		}
		if logs := e.logs.String(); !strings.Contains(logs, id) || strings.Contains(logs, "12345") || strings.Contains(logs, "secret") {
			t.Errorf("log:\n%s", logs)
		}
	})
	if !strings.Contains(e.scrape(), "edgefleet_proxy_panics_total 2") {
		t.Error("panics are not counted")
	}
}

func TestAnOriginThatBreaksOffCutsTheAnswer(t *testing.T) {
	e := newEdge(t, nil, originServer(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "100")
		_, _ = fmt.Fprint(w, "half")
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	}))
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
		if b, err := io.ReadAll(res.Body); err == nil {
			t.Errorf("a cut answer looks whole: %q", b)
		}
	})
}

func TestEveryMetricIsDeclared(t *testing.T) {
	e := judgeBy(t, fleet.ModeBlock, hello)
	do(t, e.client(true), http.MethodGet, "https://"+hostName+"/?attack", nil)
	do(t, e.client(false), http.MethodGet, "https://"+hostName+"/", nil)
	do(t, e.client(false), http.MethodGet, "https://"+hostName+"/", nil, "Host", otherName)
	if u := e.options.Telemetry.Undeclared(); len(u) != 0 {
		t.Error(strings.Join(u, "\n"))
	}
	eventually(t, "requests are counted", func() bool {
		got := e.scrape()
		return strings.Contains(got, `edgefleet_proxy_requests_total{class="2xx"} 1`) && strings.Contains(got, `edgefleet_proxy_requests_total{class="4xx"} 2`) &&
			strings.Contains(got, "edgefleet_proxy_request_seconds_count 3") && strings.Contains(got, "edgefleet_proxy_active_requests 0") &&
			strings.Contains(got, `edgefleet_proxy_refused_total{reason="other_host"} 1`)
	})
}
