package proxy_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/edgefleet/edgefleet/edgenode/config"
	"github.com/edgefleet/edgefleet/edgenode/proxy"
	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/fleet/rules"
)

func compiled(t testing.TB, bundle ...fleet.BundleRule) *rules.Set {
	t.Helper()
	s, err := rules.Compile(bundle)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestATenantsPageIsWhatABlockedClientSees(t *testing.T) {
	judge, err := engine()
	if err != nil {
		t.Fatal(err)
	}
	page := func(id fleet.RuleID, p fleet.BlockPage, conditions ...fleet.RuleCondition) fleet.BundleRule {
		return fleet.BundleRule{ID: id, Spec: fleet.RuleSpec{Kind: fleet.RuleBlockPage, Page: &p, Conditions: conditions}}
	}
	set := compiled(t,
		page("html", fleet.BlockPage{ContentType: "text/html", Body: "<p>{{host}} {{client_address}} {{request_id}}</p>"}),
		page("json", fleet.BlockPage{ContentType: "application/json", Status: 451, Body: `{"id":"{{request_id}}"}`}, fleet.RuleCondition{Type: "equal", Point: "path[0]", Value: "api"}),
		fleet.BundleRule{ID: "stop", Spec: fleet.RuleSpec{Kind: fleet.RuleVPatch, Point: fleet.Point{{"get", "stop"}}}},
		fleet.BundleRule{ID: "frame", Spec: fleet.RuleSpec{Kind: fleet.RuleResponseHeader, Header: "X-Frame-Options", Value: "DENY"}},
	)
	e := newEdge(t, func(o *proxy.Options, h *config.Host) { o.Judge, h.Mode, h.Rules = judge, fleet.ModeMonitoring, set }, originServer(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("X-Frame-Options", "SAMEORIGIN")
	}))
	bothProtocols(t, e, func(t *testing.T, c *http.Client) {
		a := do(t, c, http.MethodGet, "https://"+hostName+"/?stop=1", http.NoBody)
		if want := "<p>" + hostName + " 127.0.0.1 " + a.Header.Get("X-Request-Id") + "</p>"; a.StatusCode != 403 || a.body != want || a.Header.Get("Content-Type") != "text/html; charset=utf-8" {
			t.Errorf("%d %v %q, want %q", a.StatusCode, a.Header, a.body, want)
		}
		a = do(t, c, http.MethodGet, "https://"+hostName+"/api/x?stop=1", http.NoBody)
		if want := `{"id":"` + a.Header.Get("X-Request-Id") + `"}`; a.StatusCode != 451 || a.body != want || a.Header.Get("Cache-Control") != "no-store" {
			t.Errorf("%d %q", a.StatusCode, a.body)
		}
		a = do(t, c, http.MethodGet, "https://"+hostName+"/", http.NoBody)
		if got := a.Header["X-Frame-Options"]; a.StatusCode != 200 || len(got) != 1 || got[0] != "DENY" {
			t.Errorf("%d %v", a.StatusCode, got)
		}
	})
	for _, ev := range e.events.list() {
		if ev.ResponseStatus != 403 && ev.ResponseStatus != 451 || ev.Type != fleet.AttackVPatch || ev.Status != fleet.Blocked {
			t.Errorf("event %+v", ev)
		}
	}
}

func TestALocationIsJudgedAlthoughItsHostIsOff(t *testing.T) {
	judge, err := engine()
	if err != nil {
		t.Fatal(err)
	}
	set := compiled(t, fleet.BundleRule{ID: "admin", Spec: fleet.RuleSpec{Kind: fleet.RuleMode, Mode: fleet.ModeBlock, Conditions: []fleet.RuleCondition{{Type: "equal", Point: "path[0]", Value: "admin"}}}})
	e := newEdge(t, func(o *proxy.Options, h *config.Host) { o.Judge, h.Mode, h.Rules = judge, fleet.ModeOff, set }, originServer(t, echo))
	bothProtocols(t, e, func(t *testing.T, c *http.Client) {
		for path, want := range map[string]int{"/shop/": 200, "/admin/": 403} {
			if a := do(t, c, http.MethodGet, "https://"+hostName+path+"?id=1%27%20OR%20%271%27=%271", http.NoBody, "User-Agent", "Mozilla/5.0"); a.StatusCode != want {
				t.Errorf("%s: %d, want %d", path, a.StatusCode, want)
			}
		}
	})
}

func TestWhatCannotBeJudgedIsRefusedWhereTheHostSaysSo(t *testing.T) {
	judge, err := engine()
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		change func(*proxy.Options, *config.Host)
		body   string
		want   int
	}{
		"a large body":        {func(_ *proxy.Options, h *config.Host) { h.FailPolicy.OverLimit = fleet.FailClose }, strings.Repeat("a", 300<<10), 413},
		"a large body passes": {func(*proxy.Options, *config.Host) {}, strings.Repeat("a", 300<<10), 200},
		"a large body, monitored": {func(_ *proxy.Options, h *config.Host) {
			h.Mode, h.FailPolicy.OverLimit = fleet.ModeMonitoring, fleet.FailClose
		}, strings.Repeat("a", 300<<10), 200},
		"rules that are not loaded": {func(_ *proxy.Options, h *config.Host) {
			h.RulesMissing, h.FailPolicy.ConfigNotLoaded = true, fleet.FailClose
		}, "a", 503},
		"no time": {func(o *proxy.Options, h *config.Host) {
			o.Limits.JudgeTimeout, h.FailPolicy.Timeout = time.Nanosecond, fleet.FailClose
		}, "a", 503},
	} {
		t.Run(name, func(t *testing.T) {
			e := newEdge(t, func(o *proxy.Options, h *config.Host) {
				o.Judge = judge
				test.change(o, h)
			}, originServer(t, func(http.ResponseWriter, *http.Request) {}))
			send := func() answer {
				return do(t, e.client(false), http.MethodPost, "https://"+hostName+"/", strings.NewReader(test.body), "Content-Type", "text/plain", "User-Agent", "Mozilla/5.0")
			}
			if name == "no time" {
				// A request whose deadline has passed is judged when a slot is free: one of many finds none.
				eventually(t, "a request that had no time", func() bool { return send().StatusCode == test.want })
				return
			}
			if a := send(); a.StatusCode != test.want {
				t.Errorf("%d, want %d: %s", a.StatusCode, test.want, a.body)
			}
		})
	}
}
