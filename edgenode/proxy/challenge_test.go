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

func TestChallenges(t *testing.T) {
	const base = "/.well-known/acme-challenge/"
	e := newEdge(t, func(o *proxy.Options, _ *config.Host) {
		o.Judge = judgeFunc(func(waf.Input) waf.Decision {
			t.Error("a challenge was judged")
			return waf.Decision{Block: true}
		})
	}, originServer(t, echo))
	c := e.client(false)
	for name, tc := range map[string]struct{ host, token, body string }{
		"a known token is answered":             {hostName, "tok-1_A", "tok-1_A.thumb"},
		"also with port and in other case":      {"API.example.com:80", "tok-1_A", "tok-1_A.thumb"},
		"also before the host is in the config": {"new.example.net", "tok-2", "tok-2.thumb"},
	} {
		t.Run(name, func(t *testing.T) {
			a := do(t, c, http.MethodGet, "http://"+hostName+base+tc.token, nil, "Host", tc.host)
			if a.StatusCode != 200 || a.body != tc.body || !strings.HasPrefix(a.Header.Get("Content-Type"), "text/plain") {
				t.Errorf("%d %v %q", a.StatusCode, a.Header, a.body)
			}
		})
	}
	t.Run("an unknown token goes to the origin with nothing else of the client", func(t *testing.T) {
		s := do(t, c, http.MethodGet, "http://"+hostName+base+"other", nil, "User-Agent", "${jndi:x}", "Cookie", "a=b", "Via", "1.1 ca").seen(t)
		if s.URI != base+"other" || s.Host != hostName || s.Header.Get("X-Forwarded-Proto") != "http" || s.Header.Get("User-Agent") != "" || s.Header.Get("Cookie") != "" {
			t.Errorf("origin got %+v", s)
		}
	})
	t.Run("another host's token goes to the origin", func(t *testing.T) {
		if s := do(t, c, http.MethodGet, "http://"+otherName+base+"tok-1_A", nil).seen(t); s.Host != otherName {
			t.Errorf("origin got %+v", s)
		}
	})
	t.Run("a loop is cut", func(t *testing.T) {
		if a := do(t, c, http.MethodGet, "http://"+hostName+base+"other", nil, "Via", "1.1 edgefleet-n1"); a.StatusCode != 508 {
			t.Errorf("status %d", a.StatusCode)
		}
	})
	for name, tc := range map[string]struct{ method, target string }{
		"with a query":          {http.MethodGet, base + "other?q=attack"},
		"with an escape":        {http.MethodGet, base + "%2e%2e"},
		"with a longer path":    {http.MethodGet, base + "other/../../admin"},
		"with a dot":            {http.MethodGet, base + "a.b"},
		"without a token":       {http.MethodGet, base},
		"that is too long":      {http.MethodGet, base + strings.Repeat("a", 300)},
		"that is posted":        {http.MethodPost, base + "other"},
		"known but with escape": {http.MethodGet, base + "tok%2d1_A"},
	} {
		t.Run("a token "+name+" is redirected like other paths", func(t *testing.T) {
			a := do(t, c, tc.method, "http://"+hostName+tc.target, nil)
			if a.StatusCode != 308 || a.Header.Get("Location") != "https://"+hostName+tc.target {
				t.Errorf("%d, Location %q", a.StatusCode, a.Header.Get("Location"))
			}
		})
	}
}

func TestPlainRequestsAreRedirected(t *testing.T) {
	for name, tc := range map[string]struct {
		port         uint16
		host, target string
		status       int
		location     string
	}{
		"with path and query":       {0, hostName, "/a%2Fb?c=d&e", 308, "https://api.example.com/a%2Fb?c=d&e"},
		"to the canonical name":     {0, "API.Example.com.:80", "/", 308, "https://api.example.com/"},
		"to another port":           {8443, hostName, "/", 308, "https://api.example.com:8443/"},
		"to this host only":         {0, hostName, "//evil.example/", 308, "https://api.example.com//evil.example/"},
		"unless the host is a loss": {0, "nobody.example.com", "/", 421, ""},
		"unless it is an address":   {0, "127.0.0.1", "/", 421, ""},
	} {
		t.Run(name, func(t *testing.T) {
			e := newEdge(t, func(o *proxy.Options, _ *config.Host) { o.HTTPSPort = tc.port }, originServer(t, hello))
			a := do(t, e.client(false), http.MethodPost, "http://"+hostName+tc.target, nil, "Host", tc.host)
			if a.StatusCode != tc.status || a.Header.Get("Location") != tc.location {
				t.Errorf("%d, Location %q; want %d, %q", a.StatusCode, a.Header.Get("Location"), tc.status, tc.location)
			}
		})
	}
}

func TestPlainRequestsAreCountedForTheirTenant(t *testing.T) {
	e := newEdge(t, nil, originServer(t, hello))
	do(t, e.client(false), http.MethodGet, "http://"+otherName+"/", nil)
	if got := e.proxy.Counters(); len(got) != 1 || got[0] != (fleet.TenantCounters{Tenant: "tenant-b", Requests: 1}) {
		t.Errorf("counters %+v", got)
	}
}
