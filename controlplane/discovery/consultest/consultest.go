// Package consultest runs a real Consul server for tests: a development agent on a loopback address of its own.
//
// The binary is built by 'make consul'. Where it is missing, the tests that need it are skipped and say so.
package consultest

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
)

// patience is how long a server may take to start, on a busy machine.
const patience = 60 * time.Second

// ManagementToken is that of a server with ACLs.
const ManagementToken = "11111111-2222-3333-4444-555555555555"

// Server is a Consul server.
type Server struct {
	// Address is that of its HTTP API.
	Address string
	// API calls it, with all rights.
	API *api.Client

	t      testing.TB
	binary string
	args   []string

	mu  sync.Mutex
	cmd *exec.Cmd
	log bytes.Buffer
}

// Start starts a server that lives as long as the test. more is configuration in HCL.
func Start(t testing.TB, more ...string) *Server {
	t.Helper()
	binary := find(t)
	ip := fmt.Sprintf("127.%d.%d.%d", 164+rand.IntN(30), rand.IntN(256), 1+rand.IntN(250))
	s := &Server{t: t, binary: binary, Address: ip + ":8500"}
	s.args = []string{
		"agent", "-dev", "-log-level", "warn", "-node", "test", "-bind", ip, "-client", ip, "-dns-port", "8600", "-grpc-port", "-1", "-serf-wan-port", "-1",
		"-hcl", "disable_update_check = true",
	}
	for _, hcl := range more {
		s.args = append(s.args, "-hcl", hcl)
	}
	var err error
	if s.API, err = api.NewClient(&api.Config{Address: s.Address, Token: ManagementToken}); err != nil {
		t.Fatal(err)
	}
	s.Begin()
	t.Cleanup(s.Kill)
	return s
}

// WithACL is the configuration of a server that denies what is not allowed.
func WithACL() string {
	return fmt.Sprintf(`acl { enabled = true default_policy = "deny" tokens { initial_management = %q agent = %q } }`, ManagementToken, ManagementToken)
}

// find finds the binary from the directory of whatever package is under test.
func find(t testing.TB) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for ; ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			break
		}
		if dir == filepath.Dir(dir) {
			t.Fatal("the tests do not run inside the module")
		}
	}
	binary := filepath.Join(dir, ".tools", "consul")
	if _, err := os.Stat(binary); err != nil {
		t.Skip("skipped: no Consul server at .tools/consul; 'make consul' builds it")
	}
	return binary
}

// Begin starts the server, again after Kill: a development agent has forgotten everything then.
func (s *Server) Begin() {
	s.t.Helper()
	s.mu.Lock()
	s.cmd = exec.Command(s.binary, s.args...)
	s.log.Reset()
	s.cmd.Stdout, s.cmd.Stderr = &s.log, &s.log
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	err := s.cmd.Start()
	s.mu.Unlock()
	if err != nil {
		s.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for {
		leader, err := s.API.Status().LeaderWithQueryOptions((&api.QueryOptions{}).WithContext(ctx))
		if err == nil && leader != "" {
			return
		}
		select {
		case <-ctx.Done():
			s.Kill()
			s.t.Fatalf("the Consul server does not come up (%v):\n%s", err, s.log.String())
		case <-time.After(25 * time.Millisecond):
		}
	}
}

// Kill ends the server with SIGKILL.
func (s *Server) Kill() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cmd == nil {
		return
	}
	_ = s.cmd.Process.Kill()
	_ = s.cmd.Wait() // it was killed
	s.cmd = nil
}

// Pause stops the server, so that it takes connections and answers nothing, until Resume.
func (s *Server) Pause() { s.signal(syscall.SIGSTOP) }

// Resume ends a pause.
func (s *Server) Resume() { s.signal(syscall.SIGCONT) }

func (s *Server) signal(sig syscall.Signal) {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.cmd.Process.Signal(sig); err != nil {
		s.t.Fatal(err)
	}
}

// Register registers a service of a customer, without a check.
func (s *Server) Register(id, name, address string, port int, tags ...string) {
	s.t.Helper()
	if err := s.API.Agent().ServiceRegister(&api.AgentServiceRegistration{ID: id, Name: name, Address: address, Port: port, Tags: tags}); err != nil {
		s.t.Fatal(err)
	}
}

// Deregister removes it.
func (s *Server) Deregister(id string) {
	s.t.Helper()
	if err := s.API.Agent().ServiceDeregister(id); err != nil {
		s.t.Fatal(err)
	}
}

// Health is the health of each instance of a service, by the member or node that it is: passing, warning, critical or
// maintenance.
func (s *Server) Health(service string) map[string]string {
	s.t.Helper()
	entries, _, err := s.API.Health().Service(service, "", false, nil)
	if err != nil {
		return nil
	}
	out := map[string]string{}
	for _, e := range entries {
		out[e.Service.Meta["edgefleet_object"]] = e.Checks.AggregatedStatus()
	}
	return out
}
