package devfleet_test

import (
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/edgefleet/edgefleet/deploy/devfleet"
)

// serveTLS serves h with httptest's certificate, which is for example.com.
func serveTLS(t *testing.T, h http.Handler) (addr string, roots *x509.CertPool) {
	t.Helper()
	srv := httptest.NewUnstartedServer(h)
	srv.EnableHTTP2 = true
	srv.StartTLS()
	t.Cleanup(srv.Close)
	roots = x509.NewCertPool()
	roots.AddCert(srv.Certificate())
	return srv.Listener.Addr().String(), roots
}

func TestOriginAnswersEveryKindOfBenignRequest(t *testing.T) {
	addr, roots := serveTLS(t, devfleet.OriginHandler())
	v := devfleet.NewVisitor("n1", addr, "example.com", roots, false)
	if err := v.Benign(t.Context()); err != nil {
		t.Error(err)
	}
	if err := v.Upload(t.Context(), 5<<20); err != nil {
		t.Error(err)
	}
}

func TestVisitorNoticesWhatAnEdgeDoesToARequest(t *testing.T) {
	origin := devfleet.OriginHandler()
	for name, tc := range map[string]struct {
		edge http.HandlerFunc
		want string
	}{
		"a byte is lost": {func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.CopyN(io.Discard, r.Body, 1)
			origin.ServeHTTP(w, r)
		}, "the origin received"},
		"everything is blocked":   {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusForbidden) }, "n1 answered 403 to POST /upload, wanted 200"},
		"the edge answers itself": {func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hello") }, "decode the origin's receipt"},
	} {
		t.Run(name, func(t *testing.T) {
			addr, roots := serveTLS(t, tc.edge)
			v := devfleet.NewVisitor("n1", addr, "example.com", roots, false)
			if err := v.Upload(t.Context(), 1<<20); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("upload: %v, wanted %q", err, tc.want)
			}
		})
	}
}

func TestVisitorRefusesACertificateOfAnotherRootOrName(t *testing.T) {
	addr, roots := serveTLS(t, devfleet.OriginHandler())
	if err := devfleet.NewVisitor("n1", addr, "example.com", x509.NewCertPool(), false).Get(t.Context(), 200, "/"); err == nil || !strings.Contains(err.Error(), "unknown authority") {
		t.Errorf("another root: %v", err)
	}
	if err := devfleet.NewVisitor("n1", addr, "example.org", roots, false).Get(t.Context(), 200, "/"); err == nil || !strings.Contains(err.Error(), "not example.org") {
		t.Errorf("another name: %v", err)
	}
}

func TestStreamCountsEveryFailure(t *testing.T) {
	var failing atomic.Bool
	var served atomic.Int64
	addr, roots := serveTLS(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		served.Add(1)
		if failing.Load() {
			w.WriteHeader(http.StatusBadGateway)
		}
	}))
	v, fresh := devfleet.NewVisitor("n1", addr, "example.com", roots, false), devfleet.NewVisitor("n2", addr, "example.com", roots, true)
	s := devfleet.StartStream(t.Context(), devfleet.Visitors{v, fresh})
	eventually(t, atLeast(s, 10))
	failing.Store(true)
	eventually(t, atLeast(s, s.Total()+3))
	total, err := s.Stop()
	if err == nil || !strings.Contains(err.Error(), "answered 502") || !strings.Contains(err.Error(), fmt.Sprintf("of %d requests failed", total)) {
		t.Errorf("stop: %v", err)
	}
	if served.Load() != int64(total) {
		t.Errorf("%d requests were counted, %d served", total, served.Load())
	}
}

func TestStreamWithoutFailureSaysSo(t *testing.T) {
	addr, roots := serveTLS(t, devfleet.OriginHandler())
	s := devfleet.StartStream(t.Context(), devfleet.Visitors{devfleet.NewVisitor("n1", addr, "example.com", roots, true)})
	eventually(t, atLeast(s, 5))
	if total, err := s.Stop(); err != nil || total < 5 {
		t.Errorf("stop: %d, %v", total, err)
	}
}

func atLeast(s interface{ Total() int }, n int) func() error {
	return func() error {
		if got := s.Total(); got < n {
			return fmt.Errorf("%d requests", got)
		}
		return nil
	}
}
