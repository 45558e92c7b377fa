package observability

import (
	"encoding/json"
	"maps"
	"net/http"
	"net/http/pprof"
	"sync"

	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Health holds the state of the checks that decide whether this process is ready for work. The zero value is ready.
type Health struct {
	mu       sync.Mutex
	failing  map[string]string
	degraded map[string]string
}

// Set records the state of one check: nil means that it passes. Errors are shown on /readyz: they hold no secrets.
func (h *Health) Set(check string, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err == nil {
		delete(h.failing, check)
		return
	}
	if h.failing == nil {
		h.failing = map[string]string{}
	}
	h.failing[check] = err.Error()
}

// Degrade records the state of something that this process works without: it is shown on /readyz and leaves it ready.
func (h *Health) Degrade(check string, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err == nil {
		delete(h.degraded, check)
		return
	}
	if h.degraded == nil {
		h.degraded = map[string]string{}
	}
	h.degraded[check] = err.Error()
}

// Degraded returns what this process works without now, with the errors; empty means nothing.
func (h *Health) Degraded() map[string]string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return maps.Clone(h.degraded)
}

// Ready returns the failing checks with their errors; empty means ready.
func (h *Health) Ready() map[string]string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return maps.Clone(h.failing)
}

// Handler serves the admin endpoints, which belong on a loopback or management address: /metrics for Prometheus,
// /healthz which answers as long as the process lives, /readyz which answers 503 with the failing checks, and
// /debug/pprof for Go's profiles.
func (t *Telemetry) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(t.registry, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte("ok\n"))
	})
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		failing := t.Health.Ready()
		w.Header().Set("Content-Type", "application/json")
		if len(failing) > 0 {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		_ = json.NewEncoder(w).Encode(readiness{Ready: len(failing) == 0, Failing: failing, Degraded: t.Health.Degraded()})
	})
	return mux
}

type readiness struct {
	Ready    bool              `json:"ready"`
	Failing  map[string]string `json:"failing,omitempty"`
	Degraded map[string]string `json:"degraded,omitempty"`
}
