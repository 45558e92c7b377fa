package e2e_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/edgefleet/edgefleet/controlplane/client"
	"github.com/edgefleet/edgefleet/fleet"
)

// member is a control-plane member with a loopback address of its own.
type member struct {
	t       *testing.T
	id      string
	dir, ip string
	kek     string
	// build is the program, if it is not ours.
	build    string
	resolver string
	// environ are variables of the running program.
	environ []string
	cmd     *exec.Cmd
	log     *buffer
}

// buffer is a log that is read while it is written.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// loopback is an address that nobody else on this machine is likely to use.
func loopback() string {
	return fmt.Sprintf("127.%d.%d.%d", 64+rand.IntN(100), rand.IntN(256), 1+rand.IntN(250))
}

// newMember is a member that has a configuration and nothing else.
func newMember(t *testing.T, id string) *member {
	t.Helper()
	m := &member{t: t, id: id, dir: t.TempDir(), ip: loopback()}
	m.kek, m.resolver = filepath.Join(m.dir, "kek"), m.at(8053)
	m.configure()
	return m
}

func (m *member) at(port int) string   { return fmt.Sprintf("%s:%d", m.ip, port) }
func (m *member) data() string         { return filepath.Join(m.dir, "data") }
func (m *member) file() string         { return filepath.Join(m.dir, "controlplane.yaml") }
func (m *member) path(p string) string { return filepath.Join(m.data(), p) }

// configure writes the configuration file; the lines replace or add settings, an empty value removes one.
func (m *member) configure(lines ...string) {
	m.t.Helper()
	text := fmt.Sprintf(`data_dir: %s
member: %s
cluster_zone: edge.example
advertise: %s
api_listen: %[3]s:8440
raft_listen: %[3]s:8441
nats_listen: %[3]s:8442
nats_route_listen: %[3]s:8443
dns_listen: %[3]s:8053
admin_listen: %[3]s:8444
kek_file: %[4]s
resolvers: ["%[5]s"]
log_level: warn
`, m.data(), m.id, m.ip, m.kek, m.resolver)
	write(m.t, m.file(), edit(text, lines))
}

// edit replaces or adds the settings in lines.
func edit(text string, lines []string) string {
	for _, line := range lines {
		key, value, _ := strings.Cut(line, ":")
		var out strings.Builder
		placed := value == ""
		for old := range strings.Lines(text) {
			switch {
			case !strings.HasPrefix(old, key+":"):
				out.WriteString(old)
			case !placed:
				out.WriteString(line + "\n")
				placed = true
			}
		}
		if !placed {
			out.WriteString(line + "\n")
		}
		text = out.String()
	}
	return text
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func (m *member) program() string {
	if m.build != "" {
		return m.build
	}
	return "controlplane"
}

// controlplane runs a command of the member to its end.
func (m *member) controlplane(command string, args ...string) result {
	m.t.Helper()
	return run(m.t, m.program(), nil, append([]string{command, "--config", m.file()}, args...)...)
}

// initialize makes a cluster of this member.
func (m *member) initialize() {
	m.t.Helper()
	if r := m.controlplane("init"); r.code != fleet.ExitOK {
		m.t.Fatalf("init: %s", r.stderr)
	}
}

// start runs the member until the test ends, or stop.
func (m *member) start() {
	m.t.Helper()
	m.launch()
	await(m.t, "member "+m.id+" leads", func() bool {
		if !m.running() {
			m.t.Fatalf("member %s ended: %s", m.id, m.log)
		}
		s, err := client.Get[client.ClusterStatus](m.t.Context(), m.client(), "/v1/cluster", nil)
		return err == nil && string(s.Leader) == m.id
	})
}

func (m *member) launch() {
	m.t.Helper()
	m.log = &buffer{}
	m.cmd = program(m.program(), m.environ, "run", "--config", m.file())
	m.cmd.Stdout, m.cmd.Stderr = m.log, m.log
	if err := m.cmd.Start(); err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(m.stop)
}

// running reports whether the process lives; a zombie does not.
func (m *member) running() bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", m.cmd.Process.Pid))
	_, after, _ := strings.Cut(string(stat), ") ")
	return err == nil && !strings.HasPrefix(after, "Z")
}

// stop ends the member in order, or kills it when it does not end.
func (m *member) stop() {
	m.t.Helper()
	if m.cmd == nil || m.cmd.ProcessState != nil {
		return
	}
	if err := m.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		m.t.Error(err)
	}
	end(m.t, m.cmd, syscall.SIGKILL, 20*time.Second)
	if m.cmd.ProcessState.ExitCode() != 0 {
		m.t.Errorf("member %s ended with %s: %s", m.id, m.cmd.ProcessState, m.log)
	}
}

// token is the operator's.
func (m *member) token() string {
	return strings.TrimSpace(string(read(m.t, m.path("operator.token"))))
}

// client calls the API as the operator.
func (m *member) client() *client.Client {
	m.t.Helper()
	c, err := client.New(client.Options{Addrs: []string{m.at(8440)}, CACert: read(m.t, m.path("api-ca.crt")), Token: m.token(), Timeout: 20 * time.Second})
	if err != nil {
		m.t.Fatal(err)
	}
	return c
}

// fleetctl runs a command as the operator.
func (m *member) fleetctl(args ...string) result {
	m.t.Helper()
	return run(m.t, "fleetctl", m.env(), args...)
}

// fleetctlAs runs a command with another token.
func (m *member) fleetctlAs(token string, args ...string) result {
	m.t.Helper()
	return run(m.t, "fleetctl", append(m.env(), "FLEETCTL_TOKEN="+token), args...)
}

func (m *member) env() []string {
	return []string{"FLEETCTL_ADDR=" + m.at(8440), "FLEETCTL_CACERT=" + m.path("api-ca.crt"), "FLEETCTL_TOKEN=" + m.token()}
}

// must runs a command that has to succeed and returns its last line.
func (m *member) must(args ...string) string {
	m.t.Helper()
	r := m.fleetctl(args...)
	if r.code != fleet.ExitOK {
		m.t.Fatalf("fleetctl %s: %s", strings.Join(args, " "), r.stderr)
	}
	lines := strings.Split(strings.TrimSpace(r.stdout), "\n")
	return lines[len(lines)-1]
}

// decided is everything that people decided, as the API lists it.
func (m *member) decided() string {
	m.t.Helper()
	c := m.client()
	var out []string
	add := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	for _, t := range list[fleet.Tenant](m, c, "/v1/tenants") {
		add("tenant %s %+v", t.ID, t.Spec)
		for _, h := range list[fleet.Host](m, c, "/v1/tenants/"+string(t.ID)+"/hosts") {
			add("host %s %s %+v %+v", h.Name, h.Tenant, h.Spec, h.Desired)
		}
		for _, r := range list[fleet.Rule](m, c, "/v1/tenants/"+string(t.ID)+"/rules") {
			add("rule %s %+v", r.ID, r.Spec)
		}
	}
	for _, t := range list[fleet.Token](m, c, "/v1/tokens") {
		add("token %s", t.ID)
	}
	for _, n := range list[fleet.Node](m, c, "/v1/nodes") {
		add("node %s %+v %+v", n.ID, n.Spec, n.Identity)
	}
	s, err := client.Get[client.ClusterStatus](m.t.Context(), c, "/v1/cluster", nil)
	if err != nil {
		m.t.Fatal(err)
	}
	for _, member := range s.Members {
		add("member %s %s %s", member.ID, member.Raft, member.Suffrage)
	}
	return strings.Join(out, "\n")
}

func list[T any](m *member, c *client.Client, path string) []T {
	m.t.Helper()
	items, err := client.All[T](m.t.Context(), c, path, nil)
	if err != nil {
		m.t.Fatal(err)
	}
	return items
}

// unchanged fails the test if what it runs changes what people decided.
func (m *member) unchanged(run func()) {
	m.t.Helper()
	before := m.decided()
	run()
	if diff := cmp.Diff(before, m.decided()); diff != "" {
		m.t.Errorf("the state changed:\n%s", diff)
	}
}

// ready is what /readyz answers.
func (m *member) ready() (status int, body string) {
	res, err := http.Get("http://" + m.at(8444) + "/readyz")
	if err != nil {
		return 0, err.Error()
	}
	defer func() { _ = res.Body.Close() }()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		return 0, err.Error()
	}
	return res.StatusCode, string(b)
}

// cluster is a member that runs, with the tenants red and blue and a token of each.
type cluster struct {
	*member
	red, blue string
}

func newCluster(t *testing.T) cluster {
	t.Helper()
	m := newMember(t, "m1")
	m.initialize()
	m.start()
	for _, tenant := range []string{"red", "blue"} {
		m.must("tenant", "add", tenant)
	}
	return cluster{m, m.must("token", "create", "--tenant", "red"), m.must("token", "create", "--tenant", "blue")}
}

// on is the same cluster for a subtest.
func (c cluster) on(t *testing.T) cluster {
	m := *c.member
	m.t = t
	return cluster{&m, c.red, c.blue}
}
