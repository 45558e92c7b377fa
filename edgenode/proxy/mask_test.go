package proxy_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/edgefleet/edgefleet/edgenode/config"
	"github.com/edgefleet/edgefleet/edgenode/proxy"
	"github.com/edgefleet/edgefleet/fleet"
)

// TestNoSecretLeavesTheEdge sends secrets to an origin that gets them, to one that is away, and to none, and looks for
// them in events, spans, log lines, metrics and what the client is told.
func TestNoSecretLeavesTheEdge(t *testing.T) {
	const secret = "Hunter2+Geheim/42"
	judge, err := engine()
	if err != nil {
		t.Fatal(err)
	}
	gone := originServer(t, echo)
	gone.Port = 1 // nobody listens there
	for name, origin := range map[string]fleet.Endpoint{"an origin": originServer(t, func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		w.Header().Set("X-Got", fmt.Sprint(strings.Contains(string(b)+r.RequestURI+fmt.Sprint(r.Header), "Geheim")))
	}), "no origin": gone} {
		t.Run(name, func(t *testing.T) {
			spans := tracetest.NewSpanRecorder()
			e := newEdge(t, func(o *proxy.Options, h *config.Host) {
				o.Judge, h.Mode = judge, fleet.ModeMonitoring
				o.Telemetry.Tracer = sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans)).Tracer("test")
			}, origin)
			c, attack := e.client(true), "q="+url.QueryEscape("' OR 1=1--")
			var told strings.Builder
			for target, body := range map[string]string{
				"/?" + attack + "&password=" + url.QueryEscape(secret): "",
				"/" + url.PathEscape(secret) + "?" + attack:            `{"password":"` + secret + `"}`,
				"/..%2f" + url.PathEscape(secret) + "?" + attack:       `{"token":"` + secret + `"}`,
				"/broken?" + attack: `{"token":"` + secret,
			} {
				a := do(t, c, http.MethodPost, "https://"+hostName+target, strings.NewReader(body), "Content-Type", "application/json",
					"Authorization", "Bearer "+secret, "Cookie", "SID="+secret, "Referer", "https://x/?token="+url.QueryEscape(secret), "User-Agent", "sqlmap "+secret)
				fmt.Fprintln(&told, a.Status, a.Header, a.body)
				if name == "an origin" && a.StatusCode == http.StatusOK && a.Header.Get("X-Got") != "true" {
					t.Errorf("%s: the origin did not get what was sent", target)
				}
			}
			if len(spans.Ended()) == 0 || len(e.events.list()) == 0 {
				t.Fatalf("%d spans and %d events", len(spans.Ended()), len(e.events.list()))
			}
			b, err := json.Marshal(e.events.list())
			if err != nil {
				t.Fatal(err)
			}
			for _, s := range spans.Ended() {
				fmt.Fprintln(&told, s.Name(), s.Attributes(), s.Events(), s.Status())
			}
			out := strings.ToLower(string(b) + e.logs.String() + e.scrape() + told.String())
			for _, form := range []string{secret, url.QueryEscape(secret), url.PathEscape(secret), "hunter2", "geheim", base64.StdEncoding.EncodeToString([]byte(secret))} {
				if i := strings.Index(out, strings.ToLower(form)); i >= 0 {
					t.Errorf("%q leaves in …%s…", form, out[max(0, i-200):min(len(out), i+100)])
				}
			}
		})
	}
}
