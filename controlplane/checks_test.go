package controlplane_test

import (
	"fmt"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/edgefleet/edgefleet/controlplane"
	"github.com/edgefleet/edgefleet/controlplane/client"
	"github.com/edgefleet/edgefleet/fleet"
)

// swallow makes addr answer nothing, as a host that was switched off: its queue of connections is full.
func swallow(t *testing.T, addr string) {
	t.Helper()
	a, err := net.ResolveTCPAddr("tcp4", addr)
	if err != nil {
		t.Fatal(err)
	}
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Close(fd) })
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Port: a.Port, Addr: [4]byte(a.IP.To4())}); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		conn, err := net.DialTimeout("tcp", addr, 300*time.Millisecond)
		if err != nil {
			return
		}
		t.Cleanup(func() { _ = conn.Close() })
	}
	t.Skip("connections to a full queue are not dropped here")
}

func TestTheChecksAreAnsweredWhenHostsAreSwitchedOff(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a member")
	}
	t.Parallel()
	c := start(t, 1)
	for i := 2; i <= 4; i++ {
		cfg := newConfig(t, fmt.Sprintf("m%d", i), c.kek)
		tok, err := client.Post[client.JoinTokenCreated](t.Context(), c.client(), "/v1/join-tokens", client.JoinTokenCreate{Kind: fleet.JoinMember})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := controlplane.Join(t.Context(), cfg, tok.Secret, c.members[0].config.APIListen); err != nil {
			t.Fatal(err)
		}
		for _, addr := range []string{cfg.RaftListen, cfg.APIListen, cfg.NATSListen} {
			swallow(t, addr)
		}
	}
	p, err := client.Get[client.Page[fleet.Check]](t.Context(), c.client(), "/v1/cluster/checks", nil) // whose client waits 10 s
	if err != nil {
		t.Fatal(err)
	}
	failed := map[string]string{}
	for _, check := range p.Items {
		if check.State == fleet.CheckFail {
			failed[check.Name] = check.Detail
		}
	}
	for i := 2; i <= 4; i++ {
		if name := fmt.Sprintf("ports of m%d", i); !strings.Contains(failed[name], "raft") || !strings.Contains(failed[name], "api") || !strings.Contains(failed[name], "nats") {
			t.Errorf("%s: %q", name, failed[name])
		}
	}
}
