package proxy_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/edgefleet/edgefleet/edgenode/config"
	"github.com/edgefleet/edgefleet/edgenode/proxy"
	"github.com/edgefleet/edgefleet/edgenode/waf"
	"github.com/edgefleet/edgefleet/fleet"
)

func TestAHostBehindAnotherCDNIsServedOverPlainHTTP(t *testing.T) {
	var scheme string
	own := originServer(t, func(w http.ResponseWriter, r *http.Request) {
		scheme = r.Header.Get("X-Forwarded-Proto")
		w.WriteHeader(http.StatusTeapot)
	})
	e := newEdge(t, func(o *proxy.Options, _ *config.Host) {
		o.Judge = judgeFunc(func(in waf.Input) waf.Decision {
			return waf.Decision{Block: strings.Contains(in.Request.Input().URI, "attack")}
		})
	}, own)
	plain := protected(t, hostName, "a", own, fleet.HostTLS{})
	plain.Plain, plain.Mode = true, fleet.ModeBlock
	e.serve(plain, protected(t, otherName, "a", own, fleet.HostTLS{}))
	c := e.client(false)
	if a := do(t, c, http.MethodGet, "http://"+hostName+"/x", nil); a.StatusCode != http.StatusTeapot || scheme != "http" || a.Header.Get("Strict-Transport-Security") != "" {
		t.Errorf("%d, %s to the origin, %v", a.StatusCode, scheme, a.Header)
	}
	if a := do(t, c, http.MethodGet, "http://"+hostName+"/attack", nil); a.StatusCode != http.StatusForbidden {
		t.Errorf("an attack: %d", a.StatusCode)
	}
	if a := do(t, c, http.MethodGet, "http://"+otherName+"/x", nil); a.StatusCode != http.StatusPermanentRedirect {
		t.Errorf("another host: %d", a.StatusCode)
	}
}
