package proxy

import (
	"cmp"
	"net/http"
	"strconv"

	"github.com/edgefleet/edgefleet/edgenode/waf"
	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/fleet/rules"
)

// block answers a request that was judged not to go on: with the tenant's block page where there is one. What could not be
// judged is not the client's fault, or its size is: it gets 503, or 413.
func (x *exchange) block(d waf.Decision, in waf.Input) {
	if d.Reason == rules.BlockedFailure {
		status := http.StatusServiceUnavailable
		if d.Cause == fleet.FailOverLimit {
			status = http.StatusRequestEntityTooLarge
		}
		x.refuse("fail_policy", status)
		return
	}
	x.proxy.counters.of(x.host.Tenant).blocked.Add(1)
	x.proxy.metrics.blocked.Add(x.r.Context(), 1)
	page := in.Rules.Page(in.Request, in.Now)
	if page == nil {
		writePage(x.w, x.r, http.StatusForbidden, x.id)
		return
	}
	content := rules.RenderPage(*page, rules.PageValues{RequestID: x.id, Host: string(x.name), ClientAddress: x.client.Addr().String()})
	h := x.w.Header()
	clear(h)
	h.Set("Content-Type", page.ContentType+"; charset=utf-8")
	h.Set("Content-Length", strconv.Itoa(len(content)))
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Request-Id", x.id)
	x.w.WriteHeader(cmp.Or(page.Status, http.StatusForbidden))
	_, _ = x.w.Write([]byte(content)) // a client that is gone needs no page
}
