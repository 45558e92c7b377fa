package proxy_test

import (
	"net/http"
	"sync/atomic"
	"testing"

	"github.com/edgefleet/edgefleet/edgenode/config"
	"github.com/edgefleet/edgefleet/edgenode/proxy"
	"github.com/edgefleet/edgefleet/fleet"
)

func TestANodeReportsWhichOriginsAreOutAndWhy(t *testing.T) {
	var well atomic.Bool
	sick := originServer(t, func(w http.ResponseWriter, _ *http.Request) {
		if !well.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	})
	gone := closedPort(t)
	e := newEdge(t, func(_ *proxy.Options, h *config.Host) {
		h.Forwarding.Health = fleet.HealthCheck{Path: "/healthz", IntervalSeconds: 1, Unhealthy: 1, Healthy: 1}
	}, originServer(t, hello), sick, gone)
	reported := func() map[string]string {
		out := map[string]string{}
		for _, o := range e.proxy.OriginsOut() {
			if o.Host != hostName || o.Since.IsZero() {
				t.Errorf("%+v", o)
			}
			out[o.Server] = o.Reason
		}
		return out
	}
	eventually(t, "both are out, each for its reason", func() bool {
		got := reported()
		return len(got) == 2 && got[sick.Address()] == "health check: status 503" && got[gone.Address()] == "health check: dial"
	})
	well.Store(true)
	eventually(t, "one is back", func() bool {
		got := reported()
		return len(got) == 1 && got[gone.Address()] != ""
	})
}

func TestAnOriginThatDemandsACertificateIsReportedForIt(t *testing.T) {
	known := newAuthority("known")
	at := demandingOrigin(t, 0, true, known)
	e := newEdge(t, nil, at)
	_ = do(t, e.client(true), http.MethodGet, "https://"+hostName+"/", nil)
	if got := e.proxy.OriginsOut(); len(got) != 1 || got[0].Reason != "client_cert" || got[0].Server != at.Address() {
		t.Errorf("%+v", got)
	}
	e.withCerts(showing(at, "1", known.issue(t, "edge.example.net")))
	if a := do(t, e.client(true), http.MethodGet, "https://"+hostName+"/", nil); a.StatusCode != 200 || len(e.proxy.OriginsOut()) != 0 {
		t.Errorf("%d %+v", a.StatusCode, e.proxy.OriginsOut())
	}
}
