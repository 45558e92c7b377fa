package e2e_test

import (
	"maps"
	"net"
	"net/http"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/edgefleet/edgefleet/controlplane/discovery/consultest"
	"github.com/edgefleet/edgefleet/deploy/devfleet"
	"github.com/edgefleet/edgefleet/fleet"
)

func TestAConsulServiceIsAnOriginOfAFleet(t *testing.T) {
	if testing.Short() {
		t.Skip("a whole fleet takes a while")
	}
	t.Parallel()
	s := consultest.Start(t)
	f, err := startFleet(filepath.Join(t.TempDir(), "home"), "--members", "2", "--nodes", "1", "--consul", s.Address)
	if err != nil {
		t.Fatal(err)
	}
	stopped := false
	t.Cleanup(func() {
		if !stopped {
			if err := f.stop(); err != nil {
				t.Error(err)
			}
		}
	})
	health := func(service string, want map[string]string) {
		t.Helper()
		await(t, service+" is registered as it is", func() bool { return maps.Equal(s.Health(service), want) })
	}
	const members, edges = "edgefleet-controlplane", "edgefleet-edge"
	health(members, map[string]string{"m1": "passing", "m2": "passing"}) // m2 found m1 there
	health(edges, map[string]string{"n1": "passing"})

	const host fleet.HostName = "web.shop.example"
	f.addHost(t, host, "consul://web")
	v := newVisitor(t, host, f.Edges[0].Address, nil)
	answers := func(status int, words string) {
		t.Helper()
		await(t, strconv.Itoa(status)+" at the edge", func() bool {
			// The origin of a host is reached before it has a certificate, for the customer's own ACME client.
			got, body, err := v.get(t.Context(), "http", "/.well-known/acme-challenge/x")
			return err == nil && got == status && strings.Contains(body, words)
		})
	}
	answers(http.StatusMisdirectedRequest, "")
	ip, text, err := net.SplitHostPort(strings.TrimPrefix(f.Origin, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	port, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	s.Register("w", "web", ip, port)
	answers(http.StatusOK, "origin of web.shop.example")
	s.Register("w", "web", "127.0.0.9", 9) // nobody is there
	answers(http.StatusBadGateway, "")
	s.Register("w", "web", ip, port)
	answers(http.StatusOK, "origin of web.shop.example")

	s.Kill()
	answers(http.StatusOK, "origin of web.shop.example")
	f.addHost(t, "later.shop.example", "https://203.0.113.7")
	s.Begin()
	health(members, map[string]string{"m1": "passing", "m2": "passing"})
	health(edges, map[string]string{"n1": "passing"})
	if err := (devfleet.Control{Dir: f.dir}).Do(t.Context(), "kill", "n1"); err != nil {
		t.Fatal(err)
	}
	health(edges, map[string]string{"n1": "critical"})
	stopped = true
	if err := f.stop(); err != nil {
		t.Error(err)
	}
	health(members, map[string]string{})
}
