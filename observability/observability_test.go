package observability_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.opentelemetry.io/otel/trace"

	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/observability"
)

func get(t *testing.T, tel *observability.Telemetry, path string) (int, string) {
	t.Helper()
	w := httptest.NewRecorder()
	tel.Handler().ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, nil))
	return w.Code, w.Body.String()
}

func TestScrapeShowsTheBuildAndMatchesTheRegistry(t *testing.T) {
	tel := observability.Discard()
	code, body := get(t, tel, "/metrics")
	if code != http.StatusOK || !strings.Contains(body, `edgefleet_build_info{version="dev"} 1`) {
		t.Errorf("status %d:\n%s", code, body)
	}
	if err := observability.CheckExposition(strings.NewReader(body)); err != nil {
		t.Error(err)
	}
	if diff := tel.Undeclared(); len(diff) > 0 {
		t.Error(diff)
	}
}

func TestEveryDeclaredMetricCanBeMade(t *testing.T) {
	tel := observability.Discard()
	for _, m := range observability.Metrics() {
		switch m.Kind {
		case observability.KindCounter:
			if tel.Counter(m.Name) != tel.Counter(m.Name) {
				t.Errorf("%s is made twice", m.Name)
			}
		case observability.KindHistogram:
			tel.Histogram(m.Name)
		case observability.KindGauge:
			tel.Gauge(m.Name, func() []observability.Sample { return nil })
		}
	}
	if code, body := get(t, tel, "/metrics"); code != http.StatusOK {
		t.Errorf("status %d:\n%s", code, body)
	}
}

func TestRegistryRowsAreWellFormed(t *testing.T) {
	name := regexp.MustCompile(`^edgefleet_[a-z][a-z0-9]*(_[a-z0-9]+)*$`)
	label := regexp.MustCompile(`^[a-z][a-z0-9_]*$`)
	seen := map[string]bool{}
	for _, m := range observability.Metrics() {
		if !name.MatchString(m.Name) || seen[m.Name] {
			t.Errorf("%q is not a name, or declared twice", m.Name)
		}
		seen[m.Name] = true
		if (m.Kind == observability.KindCounter) != strings.HasSuffix(m.Name, "_total") {
			t.Errorf("%s: counters, and nothing else, end in _total", m.Name)
		}
		if m.Kind == observability.KindHistogram && (m.Unit != "s" || !strings.HasSuffix(m.Name, "_seconds")) {
			t.Errorf("%s: histograms count seconds", m.Name)
		}
		if m.Unit == "" || !strings.HasSuffix(m.Description, ".") {
			t.Errorf("%s needs a unit and a sentence that describes it", m.Name)
		}
		for i, l := range m.Labels {
			if !label.MatchString(l) || slices.Contains([]string{"le", "quantile", "job", "instance"}, l) || slices.Contains(m.Labels[:i], l) {
				t.Errorf("%s: %q cannot be a label", m.Name, l)
			}
		}
	}
}

func TestExpositionIsRefused(t *testing.T) {
	for name, tc := range map[string]struct{ body, want string }{
		"when a name is not declared": {"# TYPE edgefleet_nonsense_total counter\nedgefleet_nonsense_total 1\n", "edgefleet_nonsense_total is not declared"},
		"when the type differs":       {"# TYPE edgefleet_build_info counter\nedgefleet_build_info{version=\"1\"} 1\n", "is a counter and declared as a gauge"},
		"when a label is missing":     {"# TYPE edgefleet_build_info gauge\nedgefleet_build_info 1\n", "declared with [version]"},
		"when a label is too much":    {"# TYPE edgefleet_build_info gauge\nedgefleet_build_info{ip=\"1\",version=\"1\"} 1\n", "has the labels [ip version]"},
		"when it is none":             {"<html>", "not a Prometheus exposition"},
	} {
		t.Run(name, func(t *testing.T) {
			err := observability.CheckExposition(strings.NewReader(tc.body))
			if !errors.Is(err, fleet.ErrInvalid) || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want %q", err, tc.want)
			}
		})
	}
	if err := observability.CheckExposition(strings.NewReader("# TYPE other counter\nother{x=\"1\"} 1\n")); err != nil {
		t.Errorf("a library's metric is refused: %v", err)
	}
}

func TestACounterWithoutLabelsIsShownBeforeItCounts(t *testing.T) {
	tel := observability.Discard()
	tel.Counter("edgefleet_proxy_panics_total")
	if _, body := get(t, tel, "/metrics"); !strings.Contains(body, "\nedgefleet_proxy_panics_total 0\n") {
		t.Errorf("it is not in:\n%s", body)
	}
}

func TestUndeclaredInstrumentsPanic(t *testing.T) {
	tel := observability.Discard()
	for name, use := range map[string]func(){
		"unknown counter":         func() { tel.Counter("edgefleet_nonsense_total") },
		"unknown histogram":       func() { tel.Histogram("edgefleet_nonsense_seconds") },
		"unknown gauge":           func() { tel.Gauge("edgefleet_nonsense", nil) },
		"gauge used as a counter": func() { tel.Counter("edgefleet_build_info") },
	} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				if recover() == nil {
					t.Error("no panic")
				}
			}()
			use()
		})
	}
}

func TestReadinessListsFailingChecks(t *testing.T) {
	tel := observability.Discard()
	if code, _ := get(t, tel, "/healthz"); code != http.StatusOK {
		t.Errorf("healthz: %d", code)
	}
	if code, body := get(t, tel, "/readyz"); code != http.StatusOK || body != "{\"ready\":true}\n" {
		t.Errorf("readyz: %d %s", code, body)
	}
	tel.Health.Set("raft", errors.New("no leader"))
	tel.Health.Set("disk", errors.New("full"))
	tel.Health.Set("disk", nil)
	code, body := get(t, tel, "/readyz")
	if want := "{\"ready\":false,\"failing\":{\"raft\":\"no leader\"}}\n"; code != http.StatusServiceUnavailable || body != want {
		t.Errorf("readyz: %d %s", code, body)
	}
	tel.Health.Ready()["raft"] = "changed by a caller"
	if diff := cmp.Diff(map[string]string{"raft": "no leader"}, tel.Health.Ready()); diff != "" {
		t.Error(diff)
	}
}

func TestLogCarriesServiceInstanceAndTrace(t *testing.T) {
	var out bytes.Buffer
	tel, err := observability.Setup(t.Context(), observability.Options{Service: "edgenode", Instance: "n1", LogFormat: "json", LogLevel: "warn", Output: &out})
	if err != nil {
		t.Fatal(err)
	}
	ctx, span := tel.Tracer.Start(t.Context(), "work")
	tel.Logger.InfoContext(ctx, "not shown")
	tel.Logger.With("node", "n2").WarnContext(ctx, "shown")
	span.End()
	var got map[string]any
	if err := json.Unmarshal(out.Bytes(), &got); err != nil {
		t.Fatalf("%v: %s", err, &out)
	}
	delete(got, "time")
	sc := trace.SpanContextFromContext(ctx)
	want := map[string]any{
		"level": "WARN", "msg": "shown", "service": "edgenode", "instance": "n1", "node": "n2",
		"trace_id": sc.TraceID().String(), "span_id": sc.SpanID().String(),
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if err := tel.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestOptionsAreRefusedWithTheField(t *testing.T) {
	for field, o := range map[string]observability.Options{
		"service":       {},
		"log_level":     {Service: "x", LogLevel: "loud"},
		"log_format":    {Service: "x", LogFormat: "xml"},
		"otlp_endpoint": {Service: "x", OTLPEndpoint: "127.0.0.1:4318"},
	} {
		_, err := observability.Setup(t.Context(), o)
		if e := fleet.AsError(err); e == nil || e.Field != field || e.Kind != "invalid" {
			t.Errorf("%s: %v", field, err)
		}
	}
	_, err := observability.Setup(t.Context(), observability.Options{Service: "x", OTLPEndpoint: "http://user:secret@127.0.0.1"})
	if !errors.Is(err, fleet.ErrInvalid) || strings.Contains(err.Error(), "secret") {
		t.Errorf("credentials in an endpoint: %v", err)
	}
}

// collector is an HTTP server that notes what was pushed to it.
type collector struct {
	mu    sync.Mutex
	paths map[string]int
}

func (c *collector) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	b, _ := io.ReadAll(r.Body)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.paths[r.URL.Path] += len(b)
	w.Header().Set("Content-Type", "application/x-protobuf")
}

func TestTracesAndMetricsArePushedToTheCollector(t *testing.T) {
	c := &collector{paths: map[string]int{}}
	srv := httptest.NewServer(c)
	defer srv.Close()
	tel, err := observability.Setup(t.Context(), observability.Options{Service: "controlplane", OTLPEndpoint: srv.URL, Output: io.Discard})
	if err != nil {
		t.Fatal(err)
	}
	_, span := tel.Tracer.Start(t.Context(), "work")
	span.End()
	if err := tel.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.paths["/v1/traces"] == 0 || c.paths["/v1/metrics"] == 0 || len(c.paths) != 2 {
		t.Errorf("pushed: %v", c.paths)
	}
}

func TestShutdownEndsWithItsContextWhenTheCollectorIsAway(t *testing.T) {
	srv := httptest.NewServer(http.NotFoundHandler())
	srv.Close()
	tel, err := observability.Setup(t.Context(), observability.Options{Service: "controlplane", OTLPEndpoint: srv.URL, Output: io.Discard})
	if err != nil {
		t.Fatal(err)
	}
	_, span := tel.Tracer.Start(t.Context(), "work")
	span.End()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := tel.Shutdown(ctx); err == nil {
		t.Error("nothing was pushed and nothing is said")
	}
}

func TestTextIsTheDefaultLogFormat(t *testing.T) {
	var out bytes.Buffer
	tel, err := observability.Setup(t.Context(), observability.Options{Service: "fleetctl", Output: &out})
	if err != nil {
		t.Fatal(err)
	}
	tel.Logger.WithGroup("g").InfoContext(t.Context(), "ready", "port", 1)
	if !strings.Contains(out.String(), "msg=ready service=fleetctl g.port=1") {
		t.Error(out.String())
	}
}
