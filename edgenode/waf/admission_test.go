package waf_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"github.com/edgefleet/edgefleet/edgenode/waf"
	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/observability"
)

// expensive is a form that keeps the engine busy for long, for its length.
var expensive = sent{method: "POST", uri: "/", contentType: form, body: strings.Repeat("a=select+lorem+ipsum+dolor&", 90)}

// occupy keeps more requests in e than any share has slots, until the test ends. Each takes the place of the last at
// once: the shares that they use are never free.
func occupy(t *testing.T, e *waf.Engine, requests int, in func(i int) waf.Input) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var running, ended sync.WaitGroup
	running.Add(requests)
	for i := range requests {
		ended.Go(func() {
			running.Done()
			for ctx.Err() == nil {
				e.Judge(ctx, in(i))
			}
		})
	}
	running.Wait()
	t.Cleanup(func() {
		cancel()
		ended.Wait()
	})
}

func from(s sent, tenant fleet.TenantID, client string) waf.Input {
	in := s.input(fleet.ModeBlock)
	in.Tenant, in.ClientAddr = tenant, netip.AddrPortFrom(netip.MustParseAddr(client), 4711)
	return in
}

// servedAtOnce reports whether in is judged without waiting for a slot, in one of many attempts: with its deadline behind
// it a request gets a slot only if one is free, and not always then.
func servedAtOnce(t *testing.T, e *waf.Engine, in waf.Input) bool {
	t.Helper()
	ended, end := context.WithCancel(t.Context())
	end()
	for range 500 {
		d := e.Judge(ended, in)
		if d.EngineError == nil {
			return d.Block
		}
		if d.Block || !errors.Is(d.EngineError, fleet.ErrTimeout) {
			t.Fatalf("%+v", d)
		}
	}
	return false
}

func sharedEngine(t *testing.T) (*waf.Engine, *observability.Telemetry) {
	t.Helper()
	tel := observability.Discard()
	e, err := waf.NewEngine(waf.Options{Concurrency: 4, TenantShare: 2, ClientShare: 1, Telemetry: tel})
	if err != nil {
		t.Fatal(err)
	}
	return e, tel
}

func TestAClientWithExpensiveRequestsLeavesTheEngineToOthers(t *testing.T) {
	e, tel := sharedEngine(t)
	occupy(t, e, 8, func(int) waf.Input { return from(expensive, "acme", "192.0.2.1") })
	for name, in := range map[string]waf.Input{
		"another client of the tenant": from(sqli, "acme", "192.0.2.2"),
		"another tenant's client":      from(sqli, "other", "2001:db8::1"),
	} {
		if !servedAtOnce(t, e, in) {
			t.Errorf("%s is not served", name)
		}
	}
	// The client's own request finds its share taken.
	for !metricHas(tel, `edgefleet_waf_errors_total{reason="busy_client",tenant="acme"}`) {
		servedAtOnce(t, e, from(sqli, "acme", "192.0.2.1"))
	}
}

func TestATenantWithManyClientsLeavesTheEngineToOthers(t *testing.T) {
	e, tel := sharedEngine(t)
	occupy(t, e, 8, func(i int) waf.Input {
		return from(expensive, "acme", netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}).String())
	})
	if !servedAtOnce(t, e, from(sqli, "other", "192.0.2.100")) {
		t.Error("another tenant is not served")
	}
	for !metricHas(tel, `edgefleet_waf_errors_total{reason="busy_tenant",tenant="acme"}`) {
		servedAtOnce(t, e, from(sqli, "acme", "192.0.2.200"))
	}
}

// An attacker with IPv6 has addresses without end.
func TestTheAddressesOfANetworkAreOneClient(t *testing.T) {
	e, tel := sharedEngine(t)
	occupy(t, e, 8, func(i int) waf.Input {
		a := netip.MustParseAddr("2001:db8:0:1::").As16()
		a[15] = byte(i)
		return from(expensive, "acme", netip.AddrFrom16(a).String())
	})
	if !servedAtOnce(t, e, from(sqli, "acme", "2001:db8:0:2::1")) {
		t.Error("another network is not served")
	}
	for !metricHas(tel, `edgefleet_waf_errors_total{reason="busy_client",tenant="acme"}`) {
		servedAtOnce(t, e, from(sqli, "acme", "2001:db8:0:1::ffff"))
	}
}

func TestRequestsBeyondAClientsQueueDoNotWait(t *testing.T) {
	e, _ := sharedEngine(t)
	occupy(t, e, 100, func(int) waf.Input { return from(expensive, "acme", "192.0.2.1") })
	// Its context never ends: without a bound it would wait.
	for {
		if d := e.Judge(t.Context(), from(sqli, "acme", "192.0.2.1")); d.EngineError != nil {
			if d.Block || !errors.Is(d.EngineError, fleet.ErrTimeout) || !strings.Contains(d.EngineError.Error(), "wait already") {
				t.Errorf("%+v", d)
			}
			return
		}
	}
}

func metricHas(tel *observability.Telemetry, text string) bool {
	w := httptest.NewRecorder()
	tel.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", http.NoBody))
	return strings.Contains(w.Body.String(), text)
}
