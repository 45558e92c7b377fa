package api_test

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/edgefleet/edgefleet/controlplane/api"
	"github.com/edgefleet/edgefleet/controlplane/client"
)

// spend sends n requests, which must be answered.
func spend(a as, n int) {
	a.f.t.Helper()
	for range n {
		a.call("GET", "/v1/whoami", nil).want(200)
	}
}

// limit makes every member begin to count, with limits so low that nothing comes back while a test runs.
func (f *fixture) limit(l api.CallerLimits) {
	for _, m := range f.members {
		m.api.Limit(l)
	}
}

func TestACallerThatAsksTooMuchIsToldWhenToComeBackAndOthersAreNot(t *testing.T) {
	f := open(t, 2)
	red, blue := f.tenant("red", ""), f.tenant("blue", "")
	node := f.at(0, "", f.nodeCert("n1"))
	f.limit(api.CallerLimits{Rate: 1, Burst: 20})
	spend(f.at(0, red), 20)
	got := f.at(0, red).call("GET", "/v1/whoami", nil).want(429)
	if after, err := strconv.Atoi(got.header.Get("Retry-After")); got.Kind != "rate_limited" || err != nil || after < 1 || !strings.Contains(got.Detail, "api_rate") {
		t.Errorf("got %s, Retry-After %q", got.body, got.header.Get("Retry-After"))
	}
	for range 40 { // a storm of nodes, and of strangers
		node.call("GET", "/v1/whoami", nil)
		f.at(1, "").call("GET", "/v1/openapi.json", nil)
	}
	f.at(1, "").call("GET", "/v1/openapi.json", nil).want(429)
	spend(f.op(), 20)
	spend(f.at(0, blue), 20)
}

func TestARequestThatIsPassedOnCountsAtTheMemberThatGotIt(t *testing.T) {
	f := open(t, 2)
	red := f.tenant("red", "")
	f.limit(api.CallerLimits{Rate: 1, Burst: 20})
	spend(f.at(1, red), 20) // answered by m1, the leader
	f.at(1, red).call("GET", "/v1/whoami", nil).want(429)
	spend(f.at(0, red), 20) // which counted none of them
	f.at(0, red).call("GET", "/v1/whoami", nil).want(429)
}

func TestARequestTooManyAtOnceIsRefused(t *testing.T) {
	f := open(t, 1)
	red := f.tenant("red", "")
	f.limit(api.CallerLimits{Concurrency: 2})
	began, release := make(chan struct{}), make(chan struct{})
	f.log.mu.Lock()
	f.log.readIndex = func() (uint64, error) {
		f.log.mu.Unlock()
		defer f.log.mu.Lock()
		began <- struct{}{}
		<-release
		return 1, nil
	}
	f.log.mu.Unlock()
	ended := make(chan int, 2)
	for range 2 {
		go func() { ended <- f.at(0, red).call("GET", "/v1/whoami", nil).status }()
		<-began
	}
	if got := f.at(0, red).call("GET", "/v1/whoami?consistency=stale", nil).want(429); got.header.Get("Retry-After") == "" || !strings.Contains(got.Detail, "api_concurrency") {
		t.Errorf("got %s", got.body)
	}
	f.op().call("GET", "/v1/tenants?consistency=stale", nil).want(200)
	lines, _ := f.at(0, red).stream("/v1/tenants/red/events:tail") // which has a limit of its own
	next(t, lines)
	close(release)
	for range 2 {
		if status := <-ended; status != http.StatusOK {
			t.Errorf("got %d", status)
		}
	}
	f.log.mu.Lock()
	f.log.readIndex = nil
	f.log.mu.Unlock()
	spend(f.at(0, red), 5)
}

func TestCallersWithoutNumberShareACount(t *testing.T) {
	c := api.NewCallers(api.CallerLimits{Rate: 1, Burst: 2})
	now := time.Now()
	for i := range api.MaxCallers + 10 {
		leave, err := c.Enter(fmt.Sprint("token/", i), now)
		if i < api.MaxCallers && err != nil {
			t.Fatalf("caller %d: %v", i, err)
		}
		if err == nil {
			leave()
		}
	}
	if n := c.Known(); n > api.MaxCallers+1 {
		t.Errorf("%d callers are counted", n)
	}
	if _, err := c.Enter("token/late", now); err == nil {
		t.Error("the count that new callers share has no limit")
	}
	now = now.Add(time.Minute) // those that asked for nothing since are forgotten
	if _, err := c.Enter("token/later", now); err != nil || c.Known() > 10 {
		t.Errorf("%v, %d callers are counted", err, c.Known())
	}
}

func TestABodyHasAtMostOneMebibyte(t *testing.T) {
	f := open(t, 2)
	for name, size := range map[string]int{"just": 1 << 20, "over": 1<<20 + 1} {
		body := `{"id":"a", "x":"` + strings.Repeat("x", size-18) + `"}`
		for i := range f.members {
			got := f.at(i, f.operator).call("POST", "/v1/tenants", body)
			if want := map[string]int{"just": 422, "over": 413}[name]; got.status != want || len(body) != size {
				t.Errorf("%s: %d bytes at m%d: %d %.200s, want %d", name, len(body), i+1, got.status, got.body, want)
			}
		}
	}
	f.op().call("POST", "/v1/tenants", client.TenantCreate{ID: "a"}).want(201)
}
