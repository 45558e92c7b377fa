package proxy_test

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/edgefleet/edgefleet/edgenode/config"
	"github.com/edgefleet/edgefleet/edgenode/proxy"
	"github.com/edgefleet/edgefleet/tls/sni"
)

func hello(w http.ResponseWriter, _ *http.Request) { _, _ = fmt.Fprint(w, "hello") }

func handshake(e *edge, c *tls.Config) (tls.ConnectionState, error) {
	c.RootCAs = testAuthority().pool()
	conn, err := tls.Dial("tcp", e.https.Addr().String(), c) //nolint:noctx // bounded by the server's limits
	if err != nil {
		return tls.ConnectionState{}, err
	}
	defer func() { _ = conn.Close() }()
	return conn.ConnectionState(), nil
}

func TestTLSVersionsCurvesAndProtocols(t *testing.T) {
	e := newEdge(t, nil, originServer(t, hello))
	state, err := handshake(e, &tls.Config{ServerName: hostName, NextProtos: []string{"h2", "http/1.1"}})
	if err != nil {
		t.Fatal(err)
	}
	if state.Version != tls.VersionTLS13 || state.CurveID != tls.X25519MLKEM768 || state.NegotiatedProtocol != "h2" {
		t.Errorf("version %x, curve %v, protocol %q; want TLS 1.3, X25519MLKEM768, h2", state.Version, state.CurveID, state.NegotiatedProtocol)
	}
	for _, suite := range append(tls.CipherSuites(), tls.InsecureCipherSuites()...) {
		if len(suite.SupportedVersions) == 1 && suite.SupportedVersions[0] == tls.VersionTLS13 {
			continue
		}
		// ECDSA certificate: RSA suites cannot be agreed on in any case.
		want := strings.HasPrefix(suite.Name, "TLS_ECDHE_ECDSA_") && (strings.Contains(suite.Name, "_GCM_") || strings.Contains(suite.Name, "CHACHA20"))
		_, err := handshake(e, &tls.Config{ServerName: hostName, MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{suite.ID}})
		if (err == nil) != want {
			t.Errorf("TLS 1.2 with %s: %v; want success %v", suite.Name, err, want)
		}
	}
	if _, err := handshake(e, &tls.Config{ServerName: hostName, MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}); err == nil { //nolint:gosec // it must fail
		t.Error("TLS 1.1 was accepted")
	}
}

func TestHandshakeIsRefusedForUnknownNames(t *testing.T) {
	e := newEdge(t, nil, originServer(t, hello))
	for name, serverName := range map[string]string{"unknown": "nobody.example.com", "missing": ""} {
		t.Run(name, func(t *testing.T) {
			_, err := handshake(e, &tls.Config{ServerName: serverName, InsecureSkipVerify: serverName == ""}) //nolint:gosec // without a name there is nothing to verify
			var alert *net.OpError
			if !errors.As(err, &alert) || !strings.Contains(err.Error(), "unrecognized name") {
				t.Errorf("handshake: %v; want the alert unrecognized_name", err)
			}
		})
	}
	want := []string{`reason="no_name"} 1`, `reason="unknown_name"} 1`}
	eventually(t, "failures are counted once each", func() bool {
		got := e.scrape()
		return strings.Contains(got, want[0]) && strings.Contains(got, want[1])
	})
}

func TestHandshakeFailuresAreCountedByReasonAndNotLogged(t *testing.T) {
	e := newEdge(t, nil, originServer(t, hello))
	conn, err := net.Dial("tcp", e.https.Addr().String()) //nolint:noctx // loopback
	if err != nil {
		t.Fatal(err)
	}
	_, _ = fmt.Fprint(conn, "GET / HTTP/1.1\r\nHost: api.example.com\r\n\r\n")
	_, _ = io.ReadAll(conn)
	_ = conn.Close()
	_, _ = handshake(e, &tls.Config{ServerName: hostName, MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}) //nolint:gosec // it must fail
	for _, reason := range []string{"not_tls", "version"} {
		eventually(t, reason, func() bool {
			return strings.Contains(e.scrape(), `edgefleet_proxy_tls_handshake_failures_total{reason="`+reason+`"} 1`)
		})
	}
	if logs := e.logs.String(); strings.Contains(logs, "127.0.0.1") {
		t.Errorf("a client's address is in the log:\n%s", logs)
	}
}

func TestHostMustBeTheNameOfTheConnection(t *testing.T) {
	e := newEdge(t, nil, originServer(t, hello))
	bothProtocols(t, e, func(t *testing.T, c *http.Client) {
		for name, tc := range map[string]struct {
			host string
			want int
		}{
			"same name":                   {hostName, 200},
			"same name in other case":     {"API.Example.Com", 200},
			"same name with port":         {hostName + ":8443", 200},
			"same name with trailing dot": {hostName + ".", 200},
			"another name of the cert":    {otherName, 421},
			"a name that nobody has":      {"nobody.example.com", 421},
			"an address":                  {"127.0.0.1", 421},
			"an IPv6 literal":             {"[::1]:443", 421},
		} {
			t.Run(name, func(t *testing.T) {
				// The second request on the same connection must be treated like the first.
				for range 2 {
					a := do(t, c, http.MethodGet, "https://"+hostName+"/", nil, "Host", tc.host)
					// Go's server itself answers 400 to what is not even a valid Host header.
					if a.StatusCode != tc.want && (tc.want != 421 || a.StatusCode != 400) {
						t.Errorf("status %d, want %d", a.StatusCode, tc.want)
					}
				}
			})
		}
	})
}

func TestHostThatIsNotInTheSnapshotIsMisdirected(t *testing.T) {
	e := newEdge(t, nil, originServer(t, hello))
	c := e.client(true)
	if a := do(t, c, http.MethodGet, "https://"+otherName+"/", nil); a.StatusCode != 200 {
		t.Fatalf("status %d before the removal", a.StatusCode)
	}
	e.snapshot.Store(&config.Snapshot{})
	if a := do(t, c, http.MethodGet, "https://"+otherName+"/", nil); a.StatusCode != 421 {
		t.Errorf("status %d on an open connection, want 421", a.StatusCode)
	}
	e.snapshot.Store(nil)
	if a := do(t, c, http.MethodGet, "https://"+otherName+"/", nil); a.StatusCode != 421 {
		t.Errorf("status %d before the first snapshot, want 421", a.StatusCode)
	}
}

func TestSessionsResumeUnderTheirOwnNameOnly(t *testing.T) {
	for name, version := range map[string]uint16{"TLS 1.2": tls.VersionTLS12, "TLS 1.3": tls.VersionTLS13} {
		t.Run(name, func(t *testing.T) {
			e := newEdge(t, nil, originServer(t, hello))
			// One cache entry for all names: a client that tries to resume everywhere.
			cache := oneSession{tls.NewLRUClientSessionCache(1)}
			connect := func(serverName string) bool {
				t.Helper()
				conn, err := tls.Dial("tcp", e.https.Addr().String(), &tls.Config{ //nolint:noctx // loopback
					ServerName: serverName, RootCAs: testAuthority().pool(), ClientSessionCache: cache, MaxVersion: version, NextProtos: []string{"http/1.1"},
				})
				if err != nil {
					t.Fatal(err)
				}
				defer func() { _ = conn.Close() }()
				// TLS 1.3 tickets come after the handshake: an answer has passed them.
				_, _ = fmt.Fprintf(conn, "GET / HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", serverName)
				if b, err := io.ReadAll(conn); err != nil || !strings.Contains(string(b), "hello") {
					t.Fatalf("%q, %v", b, err)
				}
				return conn.ConnectionState().DidResume
			}
			if connect(hostName) {
				t.Fatal("the first connection resumed")
			}
			if !connect(hostName) {
				t.Error("the second connection did not resume")
			}
			if connect(otherName) {
				t.Error("a session of one tenant resumed for another")
			}
			// Go's client verifies a resumed session's certificate for the name itself; ours must refuse before.
			connect(hostName)
			e.certificates.Replace([]sni.Entry{{Name: otherName, Certificate: testAuthority().issue(t, otherName)}})
			_, err := handshake(e, &tls.Config{ServerName: hostName, ClientSessionCache: cache, MaxVersion: version, NextProtos: []string{"http/1.1"}})
			if err == nil {
				t.Error("a session resumed for a name that is not served any more")
			}
		})
	}
}

type oneSession struct{ tls.ClientSessionCache }

func (o oneSession) Get(string) (*tls.ClientSessionState, bool) { return o.ClientSessionCache.Get("") }
func (o oneSession) Put(_ string, s *tls.ClientSessionState)    { o.ClientSessionCache.Put("", s) }

func TestOptionsAreChecked(t *testing.T) {
	ok := newEdge(t, nil, originServer(t, hello)).options
	for name, spoil := range map[string]func(o *proxy.Options){
		"no snapshot":       func(o *proxy.Options) { o.Snapshot = nil },
		"no certificates":   func(o *proxy.Options) { o.Certificates = nil },
		"no judge":          func(o *proxy.Options) { o.Judge = nil },
		"no sink":           func(o *proxy.Options) { o.Events = nil },
		"no node":           func(o *proxy.Options) { o.Node = "" },
		"a negative limit":  func(o *proxy.Options) { o.Limits.BodyBytes = -1 },
		"a negative period": func(o *proxy.Options) { o.Limits.Drain = -1 },
	} {
		t.Run(name, func(t *testing.T) {
			o := ok
			spoil(&o)
			if _, err := proxy.New(o); err == nil {
				t.Error("accepted")
			}
		})
	}
}
