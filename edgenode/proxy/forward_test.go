package proxy_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/textproto"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/edgefleet/edgefleet/edgenode/config"
	"github.com/edgefleet/edgefleet/edgenode/proxy"
)

// seen is a request as the origin got it.
type seen struct {
	Method, Host, URI string
	Header            http.Header
	Body              string
	Trailer           http.Header
}

// echo answers with the request as JSON.
func echo(w http.ResponseWriter, r *http.Request) {
	b, _ := io.ReadAll(r.Body)
	_ = json.NewEncoder(w).Encode(seen{r.Method, r.Host, r.RequestURI, r.Header, string(b), r.Trailer})
}

func (a answer) seen(t *testing.T) seen {
	t.Helper()
	var s seen
	if err := json.Unmarshal([]byte(a.body), &s); err != nil {
		t.Fatalf("status %d, %q: %v", a.StatusCode, a.body, err)
	}
	return s
}

var requestID = regexp.MustCompile(`^[0-9a-f]{32}$`)

func TestForwardingHeadersAreRebuilt(t *testing.T) {
	e := newEdge(t, nil, originServer(t, echo))
	bothProtocols(t, e, func(t *testing.T, c *http.Client) {
		a := do(t, c, http.MethodGet, "https://"+hostName+"/", nil,
			"X-Forwarded-For", "203.0.113.66", "X-Forwarded-Host", "evil.example", "X-Forwarded-Proto", "ftp", "X-Forwarded-Port", "1",
			"Forwarded", "for=203.0.113.66", "X-Real-Ip", "203.0.113.66", "X-Request-Id", "mine", "Via", "1.0 squid", "X-Mine", "kept",
			"X_Forwarded_For", "203.0.113.66", "X_Real-IP", "203.0.113.66", "X_Request_ID", "mine", "X_Mine", "kept", "Host", hostName+":8443")
		s := a.seen(t)
		if s.Host != hostName+":8443" {
			t.Errorf("Host %q was not passed as it was", s.Host)
		}
		want := map[string][]string{
			"X-Forwarded-For": {"127.0.0.1"}, "X-Forwarded-Host": {hostName + ":8443"}, "X-Forwarded-Proto": {"https"}, "X-Forwarded-Port": nil,
			"Forwarded": {`for=127.0.0.1;host="` + hostName + `:8443";proto=https`}, "X-Real-Ip": nil, "X-Mine": {"kept"},
			"X_forwarded_for": nil, "X_real-Ip": nil, "X_request_id": nil, "X_mine": {"kept"},
		}
		for name, v := range want {
			if diff := cmp.Diff(v, s.Header[name]); diff != "" {
				t.Errorf("%s (-want +got):\n%s", name, diff)
			}
		}
		if id := s.Header.Get("X-Request-Id"); !requestID.MatchString(id) || a.Header.Get("X-Request-Id") != id {
			t.Errorf("request id %q at the origin, %q at the client; want one of 128 bits", id, a.Header.Get("X-Request-Id"))
		}
		if via := s.Header["Via"]; len(via) != 2 || via[0] != "1.0 squid" || !strings.HasSuffix(via[1], " edgefleet-n1") {
			t.Errorf("Via %q", via)
		}
	})
}

func TestTargetReachesTheOriginUnchanged(t *testing.T) {
	e := newEdge(t, nil, originServer(t, echo))
	bothProtocols(t, e, func(t *testing.T, c *http.Client) {
		for _, uri := range []string{"/", "/a%2Fb/;v=1/c?x=1;y=2&z=%zz&&=", "//double", "/?", "/caf%C3%A9?q=a+b%20c"} {
			if s := do(t, c, http.MethodGet, "https://"+hostName+uri, nil).seen(t); s.URI != uri {
				t.Errorf("origin saw %q, want %q", s.URI, uri)
			}
		}
	})
}

func TestHopByHopHeadersStayOnTheirHop(t *testing.T) {
	var got http.Header
	e := newEdge(t, nil, originServer(t, func(w http.ResponseWriter, r *http.Request) {
		got = r.Header.Clone()
		w.Header().Set("Connection", "X-Private")
		w.Header().Set("X-Private", "1")
		w.Header().Set("Alt-Svc", `h3=":443"`)
		w.Header().Set("Server", "origin/1")
		w.Header().Set("X-Request-Id", "the origin's")
		w.WriteHeader(http.StatusTeapot)
	}))
	conn := e.dial()
	_, _ = fmt.Fprintf(conn, "GET / HTTP/1.1\r\nHost: %s\r\nConnection: X-Secret, Keep-Alive\r\nX-Secret: 1\r\nKeep-Alive: 5\r\nProxy-Authorization: x\r\nTE: trailers, gzip\r\n\r\n", hostName)
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	for _, name := range []string{"X-Secret", "Keep-Alive", "Proxy-Authorization", "Connection"} {
		if v, ok := got[name]; ok {
			t.Errorf("%s: %q reached the origin", name, v)
		}
	}
	if te := got.Get("Te"); te != "trailers" {
		t.Errorf("Te %q, want trailers", te)
	}
	if res.StatusCode != http.StatusTeapot || res.Header.Get("Server") != "origin/1" || !requestID.MatchString(res.Header.Get("X-Request-Id")) {
		t.Errorf("answer: %d %v", res.StatusCode, res.Header)
	}
	for _, name := range []string{"X-Private", "Alt-Svc"} {
		if v, ok := res.Header[name]; ok {
			t.Errorf("%s: %q reached the client", name, v)
		}
	}
}

func TestOtherUpgradesAreNotPassedOn(t *testing.T) {
	e := newEdge(t, nil, originServer(t, echo))
	for name, headers := range map[string]string{
		"h2c":                         "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n",
		"a list":                      "Connection: Upgrade\r\nUpgrade: websocket, h2c\r\n",
		"two fields":                  "Connection: Upgrade\r\nUpgrade: websocket\r\nUpgrade: h2c\r\n",
		"TLS":                         "Connection: Upgrade\r\nUpgrade: TLS/1.2\r\n",
		"a settings header by itself": "HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			conn := e.dial()
			_, _ = fmt.Fprintf(conn, "GET / HTTP/1.1\r\nHost: %s\r\n%s\r\n", hostName, headers)
			res, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = res.Body.Close() }()
			b, _ := io.ReadAll(res.Body)
			s := answer{res, string(b)}.seen(t)
			for _, h := range []string{"Connection", "Upgrade", "Http2-Settings"} {
				if v, ok := s.Header[h]; ok {
					t.Errorf("%s: %q reached the origin", h, v)
				}
			}
		})
	}
}

func TestLoopsAreCut(t *testing.T) {
	e := newEdge(t, nil, originServer(t, hello))
	bothProtocols(t, e, func(t *testing.T, c *http.Client) {
		for via, want := range map[string]int{
			"1.1 edgefleet-n1":                    508,
			"1.1 squid, 2 EDGEFLEET-n1 (comment)": 508,
			"1.1 edgefleet-n2":                    200,
			"edgefleet-n1":                        200,
		} {
			if a := do(t, c, http.MethodGet, "https://"+hostName+"/", nil, "Via", via); a.StatusCode != want {
				t.Errorf("Via %q: %d, want %d", via, a.StatusCode, want)
			}
		}
	})
}

func TestALoopThroughTheEdgeEnds(t *testing.T) {
	// The origin sends every request back to the edge.
	var e *edge
	e = newEdge(t, nil, originServer(t, func(w http.ResponseWriter, r *http.Request) {
		req, err := http.NewRequestWithContext(r.Context(), http.MethodGet, "https://"+hostName+"/", nil)
		if err != nil {
			t.Error(err)
			return
		}
		req.Header["Via"] = r.Header["Via"]
		res, err := e.client(false).Do(req)
		if err != nil {
			t.Error(err)
			return
		}
		defer func() { _ = res.Body.Close() }()
		w.WriteHeader(res.StatusCode)
	}))
	if a := do(t, e.client(false), http.MethodGet, "https://"+hostName+"/", nil); a.StatusCode != 508 {
		t.Errorf("status %d, want 508", a.StatusCode)
	}
}

func TestMalformedTargetsAndMethodsAreRefused(t *testing.T) {
	e := newEdge(t, nil, originServer(t, hello))
	for line, want := range map[string]int{
		"TRACE / HTTP/1.1":                           405,
		"CONNECT " + hostName + ":443 HTTP/1.1":      405,
		"GET http:admin HTTP/1.1":                    400,
		"GET https://" + hostName + "/abs HTTP/1.1":  200,
		"GET https://" + otherName + "/abs HTTP/1.1": 421,
		"OPTIONS * HTTP/1.1":                         200,
		"GET * HTTP/1.1":                             400,
	} {
		conn := e.dial()
		_, _ = fmt.Fprintf(conn, "%s\r\nHost: %s\r\nConnection: close\r\n\r\n", line, hostName)
		res, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		_ = res.Body.Close()
		if res.StatusCode != want {
			t.Errorf("%s: %d, want %d", line, res.StatusCode, want)
		}
	}
}

func TestBodiesPassIntact(t *testing.T) {
	const size = 20 << 20
	e := newEdge(t, nil, originServer(t, func(w http.ResponseWriter, r *http.Request) {
		sum, n := hash(r.Body)
		_, _ = fmt.Fprintf(w, "%d %x %d %v", n, sum, r.ContentLength, r.TransferEncoding)
	}))
	content := make([]byte, size)
	for i := range content {
		content[i] = byte(i * 7 / 3)
	}
	bothProtocols(t, e, func(t *testing.T, c *http.Client) {
		for _, n := range []int{0, 1, 128<<10 - 1, 128 << 10, 128<<10 + 1, size} {
			want, _ := hash(bytes.NewReader(content[:n]))
			a := do(t, c, http.MethodPost, "https://"+hostName+"/", bytes.NewReader(content[:n]))
			if got := fmt.Sprintf("%d %x %d []", n, want, n); a.body != got {
				t.Errorf("%d declared bytes: %q, want %q", n, a.body, got)
			}
			// Without a declared length: chunked.
			a = do(t, c, http.MethodPost, "https://"+hostName+"/", io.MultiReader(bytes.NewReader(content[:n])))
			if got := fmt.Sprintf("%d %x", n, want); !strings.HasPrefix(a.body, got) {
				t.Errorf("%d chunked bytes: %q, want %q", n, a.body, got)
			}
		}
	})
}

func TestRequestTrailersPass(t *testing.T) {
	e := newEdge(t, nil, originServer(t, echo))
	bothProtocols(t, e, func(t *testing.T, c *http.Client) {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://"+hostName+"/", io.MultiReader(strings.NewReader("body")))
		if err != nil {
			t.Fatal(err)
		}
		req.Trailer = http.Header{"X-Sum": {"42"}}
		res, err := c.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = res.Body.Close() }()
		b, _ := io.ReadAll(res.Body)
		if s := (answer{res, string(b)}).seen(t); s.Trailer.Get("X-Sum") != "42" || s.Body != "body" {
			t.Errorf("trailer %v, body %q", s.Trailer, s.Body)
		}
	})
}

func TestStreamsAreFlushedAndTrailersPass(t *testing.T) {
	next := make(chan string)
	handler := func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/grpc")
		w.Header().Set("Trailer", "Grpc-Status")
		w.WriteHeader(http.StatusOK)
		_ = http.NewResponseController(w).Flush()
		for m := range next {
			if m == "" {
				break
			}
			_, _ = fmt.Fprint(w, m)
			_ = http.NewResponseController(w).Flush()
		}
		w.Header().Set("Grpc-Status", "0")
		w.Header().Set(http.TrailerPrefix+"Grpc-Message", "fine")
	}
	for name, origin := range map[string]func() *edge{
		"over a plain origin": func() *edge { return newEdge(t, nil, originServer(t, handler)) },
		"over an h2 origin":   func() *edge { return newEdge(t, nil, tlsOrigin(t, handler, hostName)) },
	} {
		t.Run(name, func(t *testing.T) {
			bothProtocols(t, origin(), func(t *testing.T, c *http.Client) {
				req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://"+hostName+"/svc/Method", strings.NewReader("x"))
				if err != nil {
					t.Fatal(err)
				}
				res, err := c.Do(req) // returns although no byte of the body was sent
				if err != nil {
					t.Fatal(err)
				}
				defer func() { _ = res.Body.Close() }()
				for _, m := range []string{"one", "two"} {
					next <- m
					b := make([]byte, 3)
					if _, err := io.ReadFull(res.Body, b); err != nil || string(b) != m {
						t.Fatalf("%q, %v; want %q before the next is sent", b, err, m)
					}
				}
				next <- ""
				if _, err := io.Copy(io.Discard, res.Body); err != nil {
					t.Fatal(err)
				}
				want := http.Header{"Grpc-Status": {"0"}, "Grpc-Message": {"fine"}}
				if diff := cmp.Diff(want, res.Trailer); diff != "" {
					t.Errorf("trailers (-want +got):\n%s", diff)
				}
			})
		})
	}
}

func TestInformationalAnswersPass(t *testing.T) {
	e := newEdge(t, nil, originServer(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Link", "</style.css>; rel=preload")
		w.WriteHeader(http.StatusEarlyHints)
		_, _ = fmt.Fprint(w, "done")
	}))
	conn := e.dial()
	_, _ = fmt.Fprintf(conn, "GET / HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", hostName)
	r := textproto.NewReader(bufio.NewReader(conn))
	if line, err := r.ReadLine(); err != nil || !strings.Contains(line, "103") {
		t.Fatalf("%q, %v; want 103 first", line, err)
	}
	if h, err := r.ReadMIMEHeader(); err != nil || h.Get("Link") == "" {
		t.Fatalf("%v, %v", h, err)
	}
	if line, err := r.ReadLine(); err != nil || !strings.Contains(line, "200") {
		t.Fatalf("%q, %v; want 200 then", line, err)
	}
	if h, err := r.ReadMIMEHeader(); err != nil || !requestID.MatchString(h.Get("X-Request-Id")) {
		t.Fatalf("%v, %v", h, err)
	}
}

func TestRequestsGoToTheHostsOwnOrigin(t *testing.T) {
	mine := originServer(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = fmt.Fprint(w, "mine") })
	e := newEdge(t, func(_ *proxy.Options, h *config.Host) { h.Origins = h.Origins[:1:1] }, mine)
	if a := do(t, e.client(false), http.MethodGet, "https://"+hostName+"/", nil); a.body != "mine" {
		t.Errorf("%q", a.body)
	}
	if logs := e.logs.String(); logs != "" {
		t.Errorf("requests are logged:\n%s", logs)
	}
}
