package api_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/edgefleet/edgefleet/controlplane/api"
	"github.com/edgefleet/edgefleet/controlplane/client"
	"github.com/edgefleet/edgefleet/controlplane/events"
	"github.com/edgefleet/edgefleet/controlplane/events/storetest"
	"github.com/edgefleet/edgefleet/fleet"
)

// stream reads server-sent events line by line; its channel is closed when the stream ends.
func (a as) stream(path string) (lines <-chan string, hangUp func()) {
	a.f.t.Helper()
	t := a.f.t
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+a.addr+path, nil)
	must(t, err)
	maps.Copy(req.Header, a.header)
	req.Header.Set("Authorization", "Bearer "+a.token)
	open := *a.http
	open.Timeout = 0
	res, err := open.Do(req) //nolint:bodyclose // closed by the goroutine that reads it
	must(t, err)
	if res.StatusCode != http.StatusOK || res.Header.Get("Content-Type") != "text/event-stream" {
		b, _ := io.ReadAll(res.Body)
		t.Fatalf("got %s %s", res.Status, b)
	}
	ch := make(chan string, 1024)
	go func() {
		defer close(ch)
		defer func() { _ = res.Body.Close() }()
		for s := bufio.NewScanner(res.Body); s.Scan(); {
			if s.Text() != "" {
				ch <- s.Text()
			}
		}
	}()
	return ch, cancel
}

func next(t *testing.T, lines <-chan string) string {
	t.Helper()
	select {
	case l, ok := <-lines:
		if !ok {
			return "END"
		}
		return l
	case <-time.After(patience):
		t.Fatal("nothing came")
		return ""
	}
}

// ends waits for the end of a stream, past what is still in it.
func ends(t *testing.T, lines <-chan string) {
	t.Helper()
	for l := ""; l != "END"; {
		l = next(t, lines)
	}
}

func TestATailShowsTheTenantsEventsAsTheyCome(t *testing.T) {
	for _, proto := range []string{"HTTP/1.1", "HTTP/2"} {
		t.Run(proto, func(t *testing.T) {
			f := open(t, 2)
			red := f.tenant("red", "")
			f.tenant("blue", "")
			f.lead("") // a tail works without a leader
			a := f.at(1, red)
			if proto == "HTTP/1.1" {
				a = a.http1()
			}
			lines, _ := a.stream("/v1/tenants/red/events:tail")
			if l := next(t, lines); !strings.HasPrefix(l, ":") {
				t.Errorf("the stream begins with %q", l)
			}
			if l := next(t, lines); !strings.HasPrefix(l, "id: ") {
				t.Errorf("it does not say from where to go on: %q", l)
			}
			want := storetest.Event("n1", "b1", 2, "red", 0)
			must(t, f.members[1].events.Put(t.Context(), []fleet.Event{storetest.Event("n1", "b1", 1, "blue", 0), want}))
			if l, want := next(t, lines), "id: "+events.PositionOf(want).String(); l != want {
				t.Errorf("got %q, want %q", l, want)
			}
			if l := next(t, lines); l != "event: event" {
				t.Errorf("got %q", l)
			}
			data, ok := strings.CutPrefix(next(t, lines), "data: ")
			var got fleet.Event
			if err := json.Unmarshal([]byte(data), &got); !ok || err != nil || cmp.Diff(want, got) != "" {
				t.Errorf("got %s, %v", data, err)
			}
		})
	}
}

func TestATailOutlivesTheLimitsOfARequest(t *testing.T) {
	f := open(t, 1, func(s *http.Server) { s.WriteTimeout = 200 * time.Millisecond })
	red := f.tenant("red", "")
	f.members[0].api.HurryTails(50*time.Millisecond, time.Hour)
	for name, a := range map[string]as{"HTTP/1.1": f.at(0, red).http1(), "HTTP/2": f.at(0, red)} {
		lines, hangUp := a.stream("/v1/tenants/red/events:tail")
		for i := range 12 { // three times as long as WriteTimeout
			if l := next(t, lines); !strings.HasPrefix(l, ":") && i != 1 {
				t.Errorf("%s: line %d is %q, want a heartbeat", name, i, l)
				break
			}
		}
		hangUp()
	}
}

func TestATailEnds(t *testing.T) {
	start := func(t *testing.T) (*fixture, string, <-chan string) {
		t.Helper()
		f := open(t, 1)
		f.members[0].api.HurryTails(time.Hour, 20*time.Millisecond)
		red := f.tenant("red", "")
		lines, _ := f.at(0, red).stream("/v1/tenants/red/events:tail")
		next(t, lines)
		return f, red, lines
	}
	t.Run("when its token is revoked", func(t *testing.T) {
		f, red, lines := start(t)
		f.op().call("DELETE", "/v1/tenants/red/tokens/"+strings.Split(red, ".")[1], nil).want(200)
		ends(t, lines)
	})
	t.Run("when its tenant is deleted", func(t *testing.T) {
		f, _, lines := start(t)
		f.op().call("DELETE", "/v1/tenants/red", nil).want(200)
		ends(t, lines)
	})
	t.Run("when the server stops, at once", func(t *testing.T) {
		f, _, lines := start(t)
		began := time.Now()
		must(t, f.members[0].server.Shutdown(t.Context()))
		if d := time.Since(began); d > patience/2 {
			t.Errorf("the server waited %s for the stream", d)
		}
		ends(t, lines)
	})
	t.Run("when the store is closed", func(t *testing.T) {
		f, _, lines := start(t)
		must(t, f.members[0].events.Close())
		ends(t, lines)
	})
}

func TestATailThatIsRefusedIsAProblem(t *testing.T) {
	f := open(t, 1)
	red := f.tenant("red", "")
	f.tenant("blue", "")
	for name, test := range map[string]struct {
		a      as
		tenant string
		status int
	}{
		"without a token":     {f.at(0, ""), "red", 401},
		"by an unknown token": {f.at(0, "eft1.x.y"), "red", 401},
		"of another tenant":   {f.at(0, red), "blue", 404},
		"of nobody":           {f.at(0, red), "green", 404},
		"of a node":           {f.at(0, "", f.nodeCert("n1")), "red", 403},
		"of nobody, by us":    {f.op(), "green", 404},
	} {
		if got := test.a.call("GET", "/v1/tenants/"+test.tenant+"/events:tail", nil); got.status != test.status {
			t.Errorf("%s: got %d %s, want %d", name, got.status, got.body, test.status)
		}
	}
}

func TestATenantDoesNotTakeAllTheStreams(t *testing.T) {
	f := open(t, 1)
	red, blue := f.tenant("red", ""), f.tenant("blue", "")
	var hangUps []func()
	for range api.MaxTails {
		lines, hangUp := f.at(0, red).stream("/v1/tenants/red/events:tail")
		next(t, lines)
		hangUps = append(hangUps, hangUp)
	}
	if a := f.at(0, red).call("GET", "/v1/tenants/red/events:tail", nil).want(429); a.Kind != "rate_limited" {
		t.Errorf("got %s", a.body)
	}
	lines, _ := f.at(0, blue).stream("/v1/tenants/blue/events:tail")
	next(t, lines)
	hangUps[0]()
	await(t, "a place is free again", func() bool {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+f.members[0].addr+"/v1/tenants/red/events:tail", nil)
		must(t, err)
		req.Header.Set("Authorization", "Bearer "+red)
		res, err := f.at(0, red).http.Do(req)
		must(t, err)
		_ = res.Body.Close()
		return res.StatusCode == http.StatusOK
	})
}

func TestEventsArePagedAndFiltered(t *testing.T) {
	f := open(t, 1)
	red := f.tenant("red", "")
	f.tenant("blue", "")
	var evs []fleet.Event
	for i := range uint64(5) {
		evs = append(evs, storetest.Event("n1", "b1", i+1, "red", time.Duration(i)*time.Minute))
	}
	evs = append(evs, storetest.Event("n1", "b1", 6, "blue", 0))
	must(t, f.members[0].events.Put(t.Context(), evs))
	a := f.at(0, red)
	var seen []fleet.EventID
	for path, pages := "/v1/tenants/red/events?limit=2", 0; ; pages++ {
		var p client.Page[fleet.Event]
		a.call("GET", path, nil).want(200).into(&p)
		for _, e := range p.Items {
			seen = append(seen, e.ID)
		}
		if p.Next == "" {
			break
		}
		if path = "/v1/tenants/red/events?limit=2&cursor=" + p.Next; pages > 5 {
			t.Fatal("the pages do not end")
		}
	}
	if diff := cmp.Diff([]fleet.EventID{"n1:b1:1", "n1:b1:2", "n1:b1:3", "n1:b1:4", "n1:b1:5"}, seen); diff != "" {
		t.Error(diff)
	}
	for query, want := range map[string]int{
		"": 5, "host=" + string(evs[0].Host): 5, "host=other.example.com": 0, "type=" + string(evs[0].Type): 5, "type=xyz": 0,
		"since=" + evs[2].Time.Format(time.RFC3339Nano): 3, "until=" + evs[2].Time.Format(time.RFC3339Nano): 2,
	} {
		var p client.Page[fleet.Event]
		if a.call("GET", "/v1/tenants/red/events?"+query, nil).want(200).into(&p); len(p.Items) != want || p.Items == nil {
			t.Errorf("%s: %d events, want %d", query, len(p.Items), want)
		}
	}
	for _, query := range []string{
		"limit=0", "limit=101", "limit=x", "cursor=nonsense", "status=maybe", "since=yesterday",
		"since=2026-01-02T00:00:00Z&until=2026-01-01T00:00:00Z", "order=asc", "type=" + strings.Repeat("x", 33),
	} {
		if got := a.call("GET", "/v1/tenants/red/events?"+query, nil).want(422); got.Field == "" {
			t.Errorf("%s: no field: %s", query, got.body)
		}
	}
	a.call("GET", "/v1/tenants/red/events/n1:b1:1", nil).want(200)
	for _, id := range []string{"n1:b1:6", "n1:b1:7", "x", fmt.Sprintf("n1:b1:%d", uint64(1)<<63)} {
		if got := a.call("GET", "/v1/tenants/red/events/"+id, nil); got.status != 404 && got.status != 422 {
			t.Errorf("%s: %d %s", id, got.status, got.body)
		}
	}
}
