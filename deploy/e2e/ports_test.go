package e2e_test

import (
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/edgefleet/edgefleet/fleet"
)

// take listens at an address for the time of the test.
func take(t *testing.T, network, address string) {
	t.Helper()
	if network == "udp" {
		c, err := (&net.ListenConfig{}).ListenPacket(t.Context(), network, address)
		if err != nil {
			t.Skipf("%s %s cannot be taken on this machine: %v", network, address, err)
		}
		t.Cleanup(func() { _ = c.Close() })
		return
	}
	l, err := (&net.ListenConfig{}).Listen(t.Context(), network, address)
	if err != nil {
		t.Skipf("%s %s cannot be taken on this machine: %v", network, address, err)
	}
	t.Cleanup(func() { _ = l.Close() })
}

func TestAPortThatIsTakenNamesAddressAndSetting(t *testing.T) {
	t.Parallel()
	m := newMember(t, "m1")
	m.initialize()
	for _, tt := range []struct {
		setting, network string
		port             int
	}{
		{"api_listen", "tcp", 8440},
		{"raft_listen", "tcp", 8441},
		{"nats_listen", "tcp", 8442},
		{"nats_route_listen", "tcp", 8443},
		{"admin_listen", "tcp", 8444},
		{"dns_listen", "tcp", 8053},
		{"dns_listen", "udp", 8053},
	} {
		t.Run(tt.setting+" "+tt.network, func(t *testing.T) {
			take(t, tt.network, m.at(tt.port))
			m := *m
			m.t = t
			m.controlplane("run").says(t, fleet.ExitConflict, tt.setting, m.at(tt.port), "controlplane: ")
		})
	}
	t.Run("port 53", func(t *testing.T) {
		if os.Geteuid() != 0 {
			t.Skip("only root may take port 53")
		}
		take(t, "udp", m.at(53))
		m := *m
		m.t = t
		m.configure("dns_listen: " + m.at(53))
		m.controlplane("run").says(t, fleet.ExitConflict, "dns_listen", m.at(53), "systemd-resolved")
		m.configure()
	})
	t.Run("once the port is free the member starts and has its state", func(t *testing.T) {
		m := *m
		m.t = t
		m.start()
		m.must("tenant", "add", "red")
		// A second process on the same directory.
		twin := m
		twin.ip = loopback()
		twin.configure()
		twin.controlplane("run").says(t, fleet.ExitConflict, "in use by another process", "stop the controlplane")
		m.must("tenant", "show", "red")
	})
}

func TestAnEdgePortThatIsTakenCostsNoToken(t *testing.T) {
	t.Parallel()
	for setting, port := range map[string]int{"https_listen": 8443, "http_listen": 8080, "admin_listen": 9180} {
		t.Run(setting, func(t *testing.T) {
			e := newEdge(t, "n1", &member{ip: loopback()})
			take(t, "tcp", e.at(port))
			// No control plane runs: that no attempt to enrol was made is why this ends at all.
			e.run("efn1.join-1.c2VjcmV0."+emptyHash).says(t, fleet.ExitConflict, setting, e.at(port), "in use by process", "stop it")
			missing(t, filepath.Join(e.dir, "data", "identity"))
		})
	}
}

// emptyHash is a fingerprint of nothing.
const emptyHash = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
