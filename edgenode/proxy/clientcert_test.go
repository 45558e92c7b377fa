package proxy_test

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/edgefleet/edgefleet/edgenode/config"
	"github.com/edgefleet/edgefleet/fleet"
)

// demandingOrigin is an origin that serves only whoever shows a certificate of one of its authorities, and answers with
// the name in it.
func demandingOrigin(t *testing.T, version uint16, h2 bool, authorities ...*authority) fleet.Endpoint {
	t.Helper()
	pool := authorities[0].pool()
	for _, a := range authorities[1:] {
		pool.AddCert(a.cert)
	}
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = fmt.Fprint(w, r.TLS.PeerCertificates[0].DNSNames[0])
	}))
	s.TLS = &tls.Config{Certificates: []tls.Certificate{*testAuthority().issue(t, hostName)}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool, MaxVersion: version}
	s.EnableHTTP2 = h2
	s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelInfo)
	s.StartTLS()
	t.Cleanup(s.Close)
	return endpoint(t, "https", s.Listener.Addr())
}

func showing(to fleet.Endpoint, id string, cert *tls.Certificate) *config.OriginCerts {
	return config.NewOriginCerts(id, map[string]*tls.Certificate{to.Address(): cert})
}

// withCerts is what e serves, with other certificates for the origins of hostName.
func (e *edge) withCerts(certs *config.OriginCerts) {
	next := *e.snapshot.Load()
	host := *next.Hosts[hostName]
	host.OriginCerts = certs
	next.Hosts = map[fleet.HostName]*config.Host{hostName: &host, otherName: next.Hosts[otherName]}
	e.snapshot.Store(&next)
}

func TestAnOriginThatDemandsACertificate(t *testing.T) {
	known, stranger := newAuthority("known"), newAuthority("stranger")
	for name, version := range map[string]uint16{"TLS 1.3": tls.VersionTLS13, "TLS 1.2": tls.VersionTLS12} {
		for protocol, h2 := range map[string]bool{"HTTP/2": true, "HTTP/1.1": false} {
			t.Run(name+" "+protocol, func(t *testing.T) {
				at := demandingOrigin(t, version, h2, known)
				for _, tc := range []struct {
					name   string
					shown  *config.OriginCerts
					status int
				}{
					{"is served with one of its authority", showing(at, "1", known.issue(t, "edge.example.net")), 200},
					{"is not without one", nil, 502},
					{"is not with another authority's", showing(at, "2", stranger.issue(t, "edge.example.net")), 502},
				} {
					t.Run(tc.name, func(t *testing.T) {
						e := newEdge(t, nil, at)
						e.withCerts(tc.shown)
						a := do(t, e.client(true), http.MethodPost, "https://"+hostName+"/", strings.NewReader("body"))
						if a.StatusCode != tc.status || tc.status == 200 && a.body != "edge.example.net" {
							t.Fatalf("%d %q", a.StatusCode, a.body)
						}
						if told := strings.Contains(e.scrape(), `edgefleet_proxy_origin_errors_total{reason="client_cert"} 1`); told != (tc.status != 200) {
							t.Errorf("counted as refused for the certificate: %t\n%s", told, e.logs.String())
						}
						// It is this host's: another one with the same origin does not show it.
						if a := do(t, e.client(true), http.MethodGet, "https://"+otherName+"/", nil); a.StatusCode != 502 {
							t.Errorf("the other host is served: %d %q", a.StatusCode, a.body)
						}
					})
				}
			})
		}
	}
}

func TestACertificateForOriginsIsReplacedWithoutLosingARequest(t *testing.T) {
	first, second := newAuthority("first"), newAuthority("second")
	at := demandingOrigin(t, tls.VersionTLS13, true, first, second)
	e := newEdge(t, nil, at)
	e.withCerts(showing(at, "1", first.issue(t, "first.example.net")))
	var stop atomic.Bool
	done := make(chan int)
	for range 4 {
		c := e.client(true)
		go func() {
			n := 0
			for ; !stop.Load(); n++ {
				res, err := c.Get("https://" + hostName + "/")
				if err != nil {
					t.Errorf("request %d: %v", n, err)
					break
				}
				if res.StatusCode != http.StatusOK {
					t.Errorf("request %d: %s", n, res.Status)
				}
				_ = res.Body.Close()
			}
			done <- n
		}()
	}
	c := e.client(true)
	shown := func(want string) func() bool {
		return func() bool { return do(t, c, http.MethodGet, "https://"+hostName+"/", nil).body == want }
	}
	eventually(t, "the first certificate is shown", shown("first.example.net"))
	e.withCerts(showing(at, "2", second.issue(t, "second.example.net")))
	if !shown("second.example.net")() {
		t.Error("a request that came after the change shows the certificate of before")
	}
	stop.Store(true)
	for range 4 {
		if n := <-done; n == 0 {
			t.Error("nothing was asked meanwhile")
		}
	}
}
