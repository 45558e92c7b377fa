package proxy_test

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/edgefleet/edgefleet/edgenode/config"
	"github.com/edgefleet/edgefleet/edgenode/proxy"
	"github.com/edgefleet/edgefleet/edgenode/waf"
	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/fleet/request"
)

// target sends a request for s, as it is written, and returns the status and body of the answer.
func (e *edge) target(s string) (status int, body string) {
	e.t.Helper()
	c := e.dial()
	if _, err := fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", s, hostName); err != nil {
		e.t.Fatal(err)
	}
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		e.t.Fatalf("%s: %v", s, err)
	}
	defer func() { _ = res.Body.Close() }()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		e.t.Fatalf("%s: %v", s, err)
	}
	return res.StatusCode, string(b)
}

// The origin is net/http: it answers with the target that it got, and with the path that it makes of it.
func TestTheOriginSeesThePathThatTheRulesSaw(t *testing.T) {
	var judged atomic.Pointer[request.Request]
	origin := originServer(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, r.RequestURI+"\n"+r.URL.Path)
	})
	e := newEdge(t, func(o *proxy.Options, _ *config.Host) {
		o.Judge = judgeFunc(func(in waf.Input) waf.Decision {
			judged.Store(in.Request)
			return waf.Decision{}
		})
	}, origin)
	for target, want := range map[string]string{
		"/a/b.php?q=../x":                    "/a/b.php?q=../x",
		"/a/../admin?q":                      "/admin?q",
		"/a/%2e%2e/admin":                    "/admin",
		"/../../etc/passwd":                  "/etc/passwd",
		"/a//../admin":                       "/a/admin",
		"//evil.example/x":                   "//evil.example/x",
		"/a//b":                              "/a//b",
		"/group%2fproject":                   "/group%2fproject",
		"/group%2fa|b":                       "/group%2fa%7Cb",
		`/group%2fa\b"<x>`:                   "/group%2fa%5Cb%22%3Cx%3E",
		"/%2561dmin":                         "/%2561dmin",
		"/a;jsessionid=1/b":                  "/a;jsessionid=1/b",
		"/a%23b%3Fc":                         "/a%23b%3Fc",
		"/a#b":                               "/a%23b",
		"/a/b%5Cc":                           "/a/b%5Cc",
		"/%e4%b8%96\xe4\xb8\x96":             "/%e4%b8%96%E4%B8%96",
		"http://" + hostName + "/a/../b%2fc": "/b%2fc",

		"/x%2f..%2fadmin|":   "",
		"/static/..%2fadmin": "",
		"/static/..%5cadmin": "",
		`/static\..\admin`:   "",
		"/%252e%252e/admin":  "",
		"/..;/admin":         "",
		"/a/..;x=y/admin":    "",
		"/%c0%ae%c0%ae/a":    "",
		"/a%c0%afb":          "",
		"/a%00.php":          "",
		"/a%0d%0aX:%20y":     "",
		"/a/..%ef%bc%8fb":    "",
	} {
		t.Run(target, func(t *testing.T) {
			judged.Store(nil)
			status, body := e.target(target)
			r := judged.Load()
			if r == nil {
				t.Fatal("it was not judged")
			}
			if want == "" {
				if status != http.StatusBadRequest {
					t.Errorf("%d %q, want 400", status, body)
				}
				return
			}
			got, path, _ := strings.Cut(body, "\n")
			if status != http.StatusOK || got != want {
				t.Fatalf("%d, the origin got %q, want %q", status, got, want)
			}
			if readings := r.Location().Readings; !slices.Contains(readings, path) {
				t.Errorf("the origin reads %q, the rules %q", path, readings)
			}
		})
	}
	if !strings.Contains(e.scrape(), `edgefleet_proxy_refused_total{reason="ambiguous_path"} 12`) {
		t.Error("what is ambiguous is not counted")
	}
}

// What nobody judges is the origin's business: it gets what the client wrote, and no other path.
func TestInModeOffNoPathIsRefused(t *testing.T) {
	e := newEdge(t, func(_ *proxy.Options, h *config.Host) { h.Mode = fleet.ModeOff }, originServer(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, r.RequestURI)
	}))
	if status, got := e.target("/x%2f..%2fadmin|"); status != http.StatusOK || got != "/x%2f..%2fadmin%7C" {
		t.Errorf("%d %q", status, got)
	}
}

// An attempt that is refused is reported all the same.
func TestAnAmbiguousPathIsJudgedBeforeItIsRefused(t *testing.T) {
	e := judgeBy(t, fleet.ModeMonitoring, func(http.ResponseWriter, *http.Request) { t.Error("it reached the origin") })
	if status, _ := e.target("/..%2fattack"); status != http.StatusBadRequest {
		t.Errorf("status %d, want 400", status)
	}
	if got := e.events.list(); len(got) != 1 || got[0].ResponseStatus != http.StatusBadRequest {
		t.Errorf("events %+v", got)
	}
}
