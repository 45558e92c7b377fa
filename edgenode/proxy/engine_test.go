package proxy_test

import (
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/edgefleet/edgefleet/edgenode/config"
	"github.com/edgefleet/edgefleet/edgenode/proxy"
	"github.com/edgefleet/edgefleet/edgenode/waf"
	"github.com/edgefleet/edgefleet/fleet"
)

var engine = sync.OnceValues(func() (*waf.Engine, error) { return waf.NewEngine(waf.Options{}) })

// TestTheWholeChain judges with the real engine.
func TestTheWholeChain(t *testing.T) {
	judge, err := engine()
	if err != nil {
		t.Fatal(err)
	}
	for _, mode := range fleet.Modes {
		t.Run(string(mode), func(t *testing.T) {
			e := newEdge(t, func(o *proxy.Options, h *config.Host) { o.Judge, h.Mode = judge, mode }, originServer(t, echo))
			bothProtocols(t, e, func(t *testing.T, c *http.Client) {
				for name, tc := range map[string]struct {
					method, target, contentType, body string
					bad                               bool
				}{
					"a page":              {http.MethodGet, "/shop/1?sort=price", "", "", false},
					"a document":          {http.MethodPost, "/orders", "application/json", `{"item":"kettle","note":"please ring"}`, false},
					"SQL in the query":    {http.MethodGet, "/shop?id=1%27%20OR%20%271%27=%271", "", "", true},
					"script in a form":    {http.MethodPost, "/comments", "application/x-www-form-urlencoded", "text=%3Cscript%3Ealert(1)%3C/script%3E", true},
					"a path in a field":   {http.MethodPost, "/files", "application/json", `{"name":"../../../../etc/passwd"}`, true},
					"a command in a form": {http.MethodPost, "/ping", "application/x-www-form-urlencoded", "host=;cat+/etc/passwd", true},
				} {
					t.Run(name, func(t *testing.T) {
						before := len(e.events.list())
						header := []string{"User-Agent", "Mozilla/5.0", "Accept", "*/*"}
						if tc.contentType != "" {
							header = append(header, "Content-Type", tc.contentType)
						}
						a := do(t, c, tc.method, "https://"+hostName+tc.target, strings.NewReader(tc.body), header...)
						want, reported := 200, tc.bad && mode != fleet.ModeOff
						if tc.bad && mode == fleet.ModeBlock {
							want = 403
						}
						if a.StatusCode != want {
							t.Errorf("status %d, want %d", a.StatusCode, want)
						}
						got := e.events.list()[before:]
						if (len(got) > 0) != reported {
							t.Errorf("%d events", len(got))
						}
						for _, ev := range got {
							if ev.RequestID != a.Header.Get("X-Request-Id") || ev.ResponseStatus != want || ev.Type == "" || len(ev.Rules) == 0 {
								t.Errorf("event %+v", ev)
							}
						}
					})
				}
			})
		})
	}
}
