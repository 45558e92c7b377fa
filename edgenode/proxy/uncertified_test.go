package proxy_test

import (
	"crypto/tls"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/edgefleet/edgefleet/edgenode/config"
	"github.com/edgefleet/edgefleet/edgenode/proxy"
	"github.com/edgefleet/edgefleet/fleet"
)

// withoutCertificates is an edge that also has hosts without certificates: one name, and a wildcard.
func withoutCertificates(t *testing.T, told *atomic.Int64) *edge {
	t.Helper()
	e := newEdge(t, func(o *proxy.Options, _ *config.Host) { o.OnUncertified = func() { told.Add(1) } }, originServer(t, hello))
	s := *e.snapshot.Load()
	hosts := maps.Clone(s.Hosts)
	for _, name := range []fleet.HostName{"new.example.com", "*.wild.example.com"} {
		h := *hosts[hostName]
		h.Name = name
		hosts[name] = &h
	}
	s.Hosts = hosts
	e.snapshot.Store(&s)
	return e
}

func TestTheFirstClientOfAHostWithoutACertificateIsToldOf(t *testing.T) {
	var told atomic.Int64
	e := withoutCertificates(t, &told)
	shake := func(name string) {
		t.Helper()
		if _, err := handshake(e, &tls.Config{ServerName: name}); err == nil {
			t.Fatalf("%s was served", name)
		}
	}
	for _, name := range []string{"new.example.com", "NEW.example.com", "new.example.com", "a.wild.example.com", "b.wild.example.com", "a.b.wild.example.com", "wild.example.com", "x.example.net"} {
		shake(name)
	}
	if _, err := handshake(e, &tls.Config{ServerName: hostName, RootCAs: testAuthority().pool()}); err != nil {
		t.Fatal(err)
	}
	if got, want := e.proxy.Uncertified(), []fleet.HostName{"*.wild.example.com", "new.example.com"}; !slices.Equal(got, want) {
		t.Errorf("told of %q, want %q", got, want)
	}
	if n := told.Load(); n != 1 {
		t.Errorf("the control plane is called %d times within seconds", n)
	}
	// Clients that come again change nothing for a minute.
	shake("new.example.com")
	if got := e.proxy.Uncertified(); len(got) != 0 {
		t.Errorf("told again of %q", got)
	}
}

func TestAFloodOfNamesTellsNobody(t *testing.T) {
	var told atomic.Int64
	e := withoutCertificates(t, &told)
	const n = 300
	for i := range n {
		for _, name := range []string{fmt.Sprintf("flood-%d.example.net", i), fmt.Sprintf("flood-%d.x.wild.example.com", i)} {
			if _, err := handshake(e, &tls.Config{ServerName: name}); err == nil {
				t.Fatal("an unknown name was served")
			}
		}
	}
	eventually(t, "they are counted", func() bool {
		return strings.Contains(e.scrape(), fmt.Sprintf(`edgefleet_proxy_tls_handshake_failures_total{reason="unknown_name"} %d`, 2*n))
	})
	if got := e.proxy.Uncertified(); len(got) != 0 || told.Load() != 0 {
		t.Errorf("told %d times of %q", told.Load(), got)
	}
	if e.logs.String() != "" && strings.Contains(e.logs.String(), "flood-") {
		t.Error("a name of the flood is in the log")
	}
	// Names below a wildcard without a certificate are one host, however many there are.
	for i := range n {
		if _, err := handshake(e, &tls.Config{ServerName: fmt.Sprintf("flood-%d.wild.example.com", i)}); err == nil {
			t.Fatal("an unknown name was served")
		}
	}
	if got := e.proxy.Uncertified(); !slices.Equal(got, []fleet.HostName{"*.wild.example.com"}) || told.Load() != 1 {
		t.Errorf("told %d times of %q", told.Load(), got)
	}
}
