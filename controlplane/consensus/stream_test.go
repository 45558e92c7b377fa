package consensus_test

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/observability"
	"github.com/edgefleet/edgefleet/tls/mtls"
)

// exposition is what a scrape of the metrics gives.
func exposition(t *testing.T, tel *observability.Telemetry) string {
	t.Helper()
	rec := httptest.NewRecorder()
	tel.Handler().ServeHTTP(rec, httptest.NewRequestWithContext(t.Context(), "GET", "/metrics", nil))
	return rec.Body.String()
}

// scrape returns whether a line of the metrics starts with the given text.
func scrape(t *testing.T, tel *observability.Telemetry) func(string) bool {
	t.Helper()
	// Labels of the exporter are of no interest here.
	var lines []string
	for line := range strings.Lines(exposition(t, tel)) {
		if open, end := strings.Index(line, "{"), strings.LastIndex(line, "}"); open > 0 && end > open {
			line = line[:open] + line[end+1:]
		}
		lines = append(lines, line)
	}
	return func(want string) bool {
		for _, line := range lines {
			if strings.HasPrefix(line, want) {
				return true
			}
		}
		return false
	}
}

// dial connects, until the test ends, and says nothing.
func dial(t *testing.T, addr string) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func TestOnlyMembersOfTheClusterConnect(t *testing.T) {
	a, sameName := newAuthority(t), newAuthority(t)
	m := start(t, a.options(t, "m1"))
	member := a.identity(t, "m2", false)
	otherCluster := authority{"c2", a.ca}
	// The clients accept any server, so that it is the member that refuses.
	as := func(src *mtls.Source) *tls.Config {
		c := &tls.Config{MinVersion: tls.VersionTLS13, InsecureSkipVerify: true}
		if src != nil {
			c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return src.Certificate(), nil }
		}
		return c
	}
	tests := []struct {
		name    string
		config  *tls.Config
		refused bool
	}{
		{"a member of the cluster is served", as(member), false},
		{"a client without a certificate is refused", as(nil), true},
		{"a node is refused, even with a certificate of the members' CA", as(a.identity(t, "m2", true)), true},
		{"a member of another CA is refused", as(sameName.identity(t, "m2", false)), true},
		{"a member of another cluster is refused, even with a certificate of the same CA", as(otherCluster.identity(t, "m2", false)), true},
		{"a plaintext client is refused", nil, true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			conn := dial(t, m.Addr())
			if test.config != nil {
				conn = tls.Client(conn, test.config)
			}
			if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
				t.Fatal(err)
			}
			// Raft's transport hangs up on an unknown request; a refusal comes before, from TLS.
			_, err := conn.Write([]byte("GET / HTTP/1.1\r\n\r\n"))
			if err == nil {
				_, err = conn.Read(make([]byte, 64))
			}
			if served := errors.Is(err, io.EOF) && test.config != nil; served == test.refused {
				t.Errorf("refused is %v, connection ended with %v", !served, err)
			}
		})
	}
	eventually(t, "refused connections were counted", func() bool {
		return scrape(t, m.tel)("edgefleet_raft_refused_connections_total 5")
	})
}

func TestAMemberDoesNotReplicateToAnImpostor(t *testing.T) {
	ms := cluster(t, 1, nil)
	// It has a valid identity, of another CA, and listens where the new voter should.
	foreign := newAuthority(t)
	impostor := start(t, foreign.options(t, "m2"))
	if err := ms[0].AddNonvoter(t.Context(), "m2", impostor.Addr()); err != nil {
		t.Fatal(err)
	}
	apply(t, ms[0], "secret")
	eventually(t, "the leader tried to reach the impostor", func() bool {
		return scrape(t, impostor.tel)("edgefleet_raft_refused_connections_total")
	})
	if impostor.fsm.holds("secret")() || impostor.Stats().LastIndex != 0 {
		t.Error("an impostor received entries")
	}
}

func TestASilentClientHoldsUpNobody(t *testing.T) {
	a := newAuthority(t)
	m1, m2 := start(t, a.options(t, "m1")), start(t, a.options(t, "m2"))
	for range 20 {
		dial(t, m2.Addr())
	}
	if err := m1.Bootstrap(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "m1 leads", m1.IsLeader)
	join(t, m1, m2)
	apply(t, m1, "x")
	eventually(t, "m2 follows", m2.fsm.holds("x"))
}

func TestOptionsThatCannotWorkAreRefused(t *testing.T) {
	a := newAuthority(t)
	good := a.options(t, "m1")
	running := start(t, a.options(t, "m2"))
	tests := []struct {
		name   string
		change func()
		kind   error
		says   string
	}{
		{"no member id", func() { good.Member = "" }, fleet.ErrInvalid, "member"},
		{"no directory", func() { good.Dir = "" }, fleet.ErrInvalid, "directory"},
		{"a server that asks for no certificate", func() { good.ServerTLS = &tls.Config{MinVersion: tls.VersionTLS13} }, fleet.ErrInvalid, "certificate"},
		{"no client TLS", func() { good.ClientTLS = nil }, fleet.ErrInvalid, "TLS"},
		{"an address without a port", func() { good.Bind = "127.0.0.1" }, fleet.ErrInvalid, "host:port"},
		{"an address that is not ours", func() { good.Bind = "192.0.2.1:0" }, fleet.ErrInvalid, "192.0.2.1"},
		{"every address, and none advertised", func() { good.Bind = "0.0.0.0:0" }, fleet.ErrInvalid, "every address"},
		{"an advertised address without a port", func() { good.Advertise = "m1.example.com:0" }, fleet.ErrInvalid, "m1.example.com:0"},
		{"an election before a heartbeat is missed", func() { good.ElectionTimeout = time.Millisecond }, fleet.ErrInvalid, "election timeout"},
		{"a port that is in use", func() { good.Bind = running.Addr() }, fleet.ErrConflict, "in use by another process"},
		{"a directory that is in use", func() { good.Dir = running.options.Dir }, fleet.ErrConflict, "in use by another process"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			before := good
			defer func() { good = before }()
			test.change()
			m, err := tryStart(good)
			if err == nil {
				m.crash(t)
			}
			if !errors.Is(err, test.kind) {
				t.Errorf("got %v, want %v", err, test.kind)
			}
			mustContain(t, err, test.says)
		})
	}
	// Nothing that was refused holds the directory.
	start(t, good)
}
