package client_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/edgefleet/edgefleet/controlplane/client"
	"github.com/edgefleet/edgefleet/fleet"
)

// server is a member's API: TLS on loopback, counting what reached it.
type server struct {
	*httptest.Server
	hits atomic.Int64
}

func serve(t *testing.T, h http.HandlerFunc) *server {
	t.Helper()
	s := &server{}
	s.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.hits.Add(1)
		h(w, r)
	}))
	s.EnableHTTP2 = true
	s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	s.StartTLS()
	t.Cleanup(func() {
		s.CloseClientConnections()
		s.Close()
	})
	return s
}

func (s *server) addr() string { return s.Listener.Addr().String() }

func (s *server) ca() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
}

// closedAddr is an address at which nobody listens.
func closedAddr(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	return l.Addr().String()
}

func open(t *testing.T, ca []byte, addrs ...string) *client.Client {
	t.Helper()
	c, err := client.New(client.Options{Addrs: addrs, Token: "eft1.tok-1.secret", CACert: ca})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func answer(body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, body) }
}

// hangUp takes a request and breaks the connection: whether it took effect is not known.
func hangUp(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }

func TestOptionsAreChecked(t *testing.T) {
	for name, test := range map[string]struct {
		o     client.Options
		field string
	}{
		"no address":       {client.Options{}, "addr"},
		"plain HTTP":       {client.Options{Addrs: []string{"http://127.0.0.1:1"}}, "addr"},
		"no host":          {client.Options{Addrs: []string{"https://"}}, "addr"},
		"not an address":   {client.Options{Addrs: []string{"a b"}}, "addr"},
		"a CA that is not": {client.Options{Addrs: []string{"a:1"}, CACert: []byte("x")}, "cacert"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := client.New(test.o); !errors.Is(err, fleet.ErrInvalid) || fleet.AsError(err).Field != test.field {
				t.Errorf("got %v (field %q), want invalid %s", err, fleet.AsError(err).Field, test.field)
			}
		})
	}
}

func TestARequestCarriesTokenQueryAndBody(t *testing.T) {
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		_ = json.NewEncoder(w).Encode([]string{r.Method, r.URL.RequestURI(), r.Header.Get("Authorization"), r.Header.Get("Content-Type"), string(body)})
	})
	var got []string
	err := open(t, s.ca(), "https://"+s.addr()+"/").Do(t.Context(), http.MethodPatch, "/v1/tenants/a", url.Values{"q": {"x y"}}, map[string]int{"n": 1}, &got)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"PATCH", "/v1/tenants/a?q=x+y", "Bearer eft1.tok-1.secret", "application/json", `{"n":1}`}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestTheNextMemberIsAskedWhenOneCannotBeReached(t *testing.T) {
	s := serve(t, answer(`{"ok":true}`))
	c := open(t, s.ca(), closedAddr(t), s.addr())
	for _, method := range []string{http.MethodGet, http.MethodPost, http.MethodDelete} {
		if _, err := c.Raw(t.Context(), method, "/v1/x", nil, nil); err != nil {
			t.Errorf("%s: %v", method, err)
		}
	}
}

func TestAnErrorThatAMemberAnsweredIsNotTakenToTheNext(t *testing.T) {
	p := `{"title":"Service Unavailable","status":503,"kind":"unavailable","detail":"no leader","request_id":"r1"}`
	first := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusServiceUnavailable)
		_, _ = io.WriteString(w, p)
	})
	second := serve(t, answer(`{}`))
	_, err := open(t, append(first.ca(), second.ca()...), first.addr(), second.addr()).Raw(t.Context(), http.MethodGet, "/v1/x", nil, nil)
	if !errors.Is(err, fleet.ErrUnavailable) || second.hits.Load() != 0 {
		t.Errorf("got %v, and %d requests to the next member", err, second.hits.Load())
	}
}

func TestProblemsAreErrorsWithKindFieldAndRequest(t *testing.T) {
	for kind, sentinel := range map[string]error{
		"invalid": fleet.ErrInvalid, "unauthenticated": fleet.ErrUnauthenticated, "denied": fleet.ErrDenied, "not_found": fleet.ErrNotFound,
		"conflict": fleet.ErrConflict, "timeout": fleet.ErrTimeout, "rate_limited": fleet.ErrRateLimited, "sealed": fleet.ErrSealed,
	} {
		want := client.Problem{Type: "about:blank", Title: "T", Status: fleet.KindNamed(kind).Status, Kind: kind, Field: "name", Detail: "what to do", RequestID: "r1"}
		s := serve(t, func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(want.Status)
			_ = json.NewEncoder(w).Encode(want)
		})
		_, err := open(t, s.ca(), s.addr()).Raw(t.Context(), http.MethodPost, "/v1/x", nil, nil)
		var got *client.Problem
		if !errors.As(err, &got) || *got != want {
			t.Errorf("%s: got %v", kind, err)
		}
		if !errors.Is(err, sentinel) || err.Error() != "what to do" || fleet.AsError(err).Field != "name" {
			t.Errorf("%s: got %v (field %q)", kind, err, fleet.AsError(err).Field)
		}
	}
}

func TestAnAnswerOfSomethingElseSaysSo(t *testing.T) {
	for name, test := range map[string]struct {
		status int
		body   string
		says   string
	}{
		"a proxy's page":              {502, "<html>Bad Gateway</html>", "the API answered 502 Bad Gateway, which is not one of its own errors"},
		"JSON of another kind":        {404, `{"message":"no"}`, "404 Not Found"},
		"a redirect":                  {302, "", "302 Found"},
		"a page instead of an object": {200, "<html>hello</html>", "decode the answer of GET /v1/x"},
	} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Location", "/v1/elsewhere")
				w.WriteHeader(test.status)
				_, _ = io.WriteString(w, test.body)
			})
			var v any
			err := open(t, s.ca(), s.addr()).Do(t.Context(), http.MethodGet, "/v1/x", nil, nil, &v)
			if err == nil || !strings.Contains(err.Error(), test.says) || s.hits.Load() != 1 {
				t.Errorf("got %v after %d requests, want %q after 1", err, s.hits.Load(), test.says)
			}
		})
	}
}

func TestAnAnswerWithoutEndIsRefused(t *testing.T) {
	block := bytes.Repeat([]byte("x"), 1<<20)
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		for r.Context().Err() == nil {
			if _, err := w.Write(block); err != nil {
				return
			}
		}
	})
	if _, err := open(t, s.ca(), s.addr()).Raw(t.Context(), http.MethodGet, "/v1/x", nil, nil); !errors.Is(err, fleet.ErrTooLarge) {
		t.Errorf("got %v, want too large", err)
	}
}

func TestAMemberThatDoesNotAnswerIsATimeout(t *testing.T) {
	s := serve(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	c, err := client.New(client.Options{Addrs: []string{s.addr()}, CACert: s.ca(), Timeout: 50 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Raw(t.Context(), http.MethodPost, "/v1/x", nil, nil); !errors.Is(err, fleet.ErrTimeout) || !strings.Contains(err.Error(), s.addr()) {
		t.Errorf("got %v, want a timeout that names the address", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.Raw(ctx, http.MethodGet, "/v1/x", nil, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want the cancellation", err)
	}
}

func TestCertificatesAreVerified(t *testing.T) {
	s, foreign := serve(t, answer(`{}`)), serve(t, answer(`{}`))
	c := open(t, nil, foreign.addr()) // the system's authorities do not know it
	if _, err := c.Raw(t.Context(), http.MethodGet, "/v1/x", nil, nil); err == nil || fleet.AsError(err).Field != "cacert" || !strings.Contains(err.Error(), "set FLEETCTL_CACERT") {
		t.Errorf("got %v", err)
	}
	c, err := client.New(client.Options{Addrs: []string{s.addr()}, TLS: &tls.Config{MinVersion: tls.VersionTLS13, ServerName: "wrong.example", RootCAs: s.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Raw(t.Context(), http.MethodGet, "/v1/x", nil, nil); !errors.Is(err, fleet.ErrUnavailable) || !strings.Contains(err.Error(), "wrong.example") {
		t.Errorf("got %v, want the name that does not match", err)
	}
	if n := s.hits.Load() + foreign.hits.Load(); n != 0 {
		t.Errorf("%d requests, with their token, reached a server that was not verified", n)
	}
}

func TestAllFollowsPages(t *testing.T) {
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Query().Get("cursor") {
		case "":
			_, _ = io.WriteString(w, `{"items":["a","b"],"next":"b"}`)
		case "b":
			_, _ = io.WriteString(w, `{"items":["c"]}`)
		}
	})
	query := url.Values{"limit": {"2"}}
	got, err := client.All[string](t.Context(), open(t, s.ca(), s.addr()), "/v1/x", query)
	if diff := cmp.Diff([]string{"a", "b", "c"}, got); err != nil || diff != "" {
		t.Errorf("%v %s", err, diff)
	}
	if diff := cmp.Diff(url.Values{"limit": {"2"}}, query); diff != "" {
		t.Errorf("the caller's query was changed: %s", diff)
	}
	endless := serve(t, answer(`{"items":["a"],"next":"a"}`))
	if _, err := client.All[string](t.Context(), open(t, endless.ca(), endless.addr()), "/v1/x", nil); !errors.Is(err, fleet.ErrCorrupt) {
		t.Errorf("got %v for pages without end", err)
	}
}
