package supervise_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/edgefleet/edgefleet/edgenode/identity"
	"github.com/edgefleet/edgefleet/fleet"
)

// host is an edge host: its directory and configuration file.
type host struct {
	t              *testing.T
	dir, http, cfg string
}

// newHost configures a host on a free port; control lists members.
func newHost(t *testing.T, control string, extra ...string) *host {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	h := &host{t: t, dir: t.TempDir(), http: l.Addr().String()}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	h.cfg = filepath.Join(h.dir, "edge.yaml")
	text := fmt.Sprintf("data_dir: %s/data\naddresses: [192.0.2.1]\ncontrol_plane: [%q]\nhttp_listen: %q\nhttps_listen: 127.0.0.1:0\nadmin_listen: \"off\"\nleave_dns: 0s\nworker: %s\n%s\n",
		h.dir, control, h.http, self, strings.Join(extra, "\n"))
	if err := os.WriteFile(h.cfg, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return h
}

// enrolled gives the host an identity without a control plane.
func (h *host) enrolled() *host {
	h.t.Helper()
	p := newPlane(h.t)
	dir := filepath.Join(h.dir, "data", "identity")
	keys, err := identity.NewKeys(dir)
	if err != nil {
		h.t.Fatal(err)
	}
	if err := identity.Save(dir, keys, p.answer(publicKey(h.t, keys.KeyPEM), time.Now())); err != nil {
		h.t.Fatal(err)
	}
	return h
}

// process is a supervisor in a process of its own.
type process struct {
	*exec.Cmd
	t      *testing.T
	mu     sync.Mutex
	log    bytes.Buffer
	exited chan struct{}
}

func (p *process) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.log.Write(b)
}

func (p *process) text() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.log.String()
}

func (h *host) supervise() *process {
	h.t.Helper()
	p := &process{Cmd: exec.Command(os.Args[0], h.cfg), t: h.t, exited: make(chan struct{})}
	p.Env = append(os.Environ(), roleVariable+"=supervisor")
	p.Stdout, p.Stderr = p, p
	p.WaitDelay = time.Second
	if err := p.Start(); err != nil {
		h.t.Fatal(err)
	}
	go func() {
		_ = p.Wait()
		close(p.exited)
	}()
	h.t.Cleanup(func() {
		_ = p.Process.Signal(syscall.SIGTERM)
		select {
		case <-p.exited:
		case <-time.After(20 * time.Second):
			_ = p.Process.Kill()
		}
		if h.t.Failed() {
			h.t.Log(p.text())
		}
	})
	return p
}

// get asks the worker and returns its answer.
func (h *host) get(path string) (string, error) {
	client := &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	req, err := http.NewRequestWithContext(h.t.Context(), http.MethodGet, "http://"+h.http+path, nil)
	if err != nil {
		return "", err
	}
	res, err := client.Do(req)
	if err != nil {
		return "", err
	}
	defer func() { _ = res.Body.Close() }()
	b, err := io.ReadAll(res.Body)
	return strings.TrimSpace(string(b)), err
}

// pid waits until a worker answers with its process id.
func (h *host) pid() int {
	h.t.Helper()
	var pid int
	eventually(h.t, "a worker answers", func() bool {
		text, err := h.get("/")
		if err == nil {
			pid, err = strconv.Atoi(text)
		}
		return err == nil
	})
	return pid
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(30 * time.Second)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-deadline:
			t.Fatalf("not in time: %s", what)
		case <-tick.C:
		}
	}
}

func alive(pid int) bool { return syscall.Kill(pid, 0) == nil }

func (h *host) has(file string) bool {
	_, err := os.Stat(filepath.Join(h.dir, file))
	return err == nil
}

func TestAConnectionMadeWhileTheWorkerIsDownIsServedByTheNext(t *testing.T) {
	h := newHost(t, "127.0.0.1:1").enrolled()
	p := h.supervise()
	first := h.pid()
	hold := filepath.Join(h.dir, "hold")
	if err := os.WriteFile(hold, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := h.get("/crash"); err == nil {
		t.Fatal("the worker did not crash")
	}
	eventually(t, "the worker fails to start again", func() bool { return strings.Count(p.text(), "held down") >= 2 })
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", h.http)
	if err != nil {
		t.Fatalf("the socket is closed while no worker runs: %v", err)
	}
	defer func() { _ = conn.Close() }()
	if _, err := io.WriteString(conn, "GET / HTTP/1.0\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(hold); err != nil {
		t.Fatal(err)
	}
	if err := conn.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	answer, err := io.ReadAll(conn)
	if err != nil || !strings.Contains(string(answer), "200 OK") {
		t.Fatalf("answer %q, %v", answer, err)
	}
	if second := h.pid(); second == first {
		t.Errorf("the same worker %d", second)
	}
}

func TestSIGTERMDrainsTheWorkerAndEndsWithZero(t *testing.T) {
	h := newHost(t, "127.0.0.1:1").enrolled()
	p := h.supervise()
	pid := h.pid()
	if err := p.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	select {
	case <-p.exited:
	case <-time.After(20 * time.Second):
		t.Fatal("the supervisor does not end")
	}
	if code := p.ProcessState.ExitCode(); code != 0 || alive(pid) || !h.has("drained") {
		t.Errorf("exit code %d, worker alive %t, drained %t", code, alive(pid), h.has("drained"))
	}
}

func TestTheWorkerDrainsAndExitsWhenItsSupervisorIsKilled(t *testing.T) {
	h := newHost(t, "127.0.0.1:1").enrolled()
	p := h.supervise()
	pid := h.pid()
	if err := p.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	<-p.exited
	eventually(t, "the worker exits", func() bool { return h.has("drained") })
	// A new supervisor gets the directory, the port and a worker.
	h.supervise()
	if again := h.pid(); again == pid {
		t.Errorf("the old worker %d still serves", again)
	}
}

func TestASecondSupervisorIsRefused(t *testing.T) {
	h := newHost(t, "127.0.0.1:1").enrolled()
	h.supervise()
	h.pid()
	err := h.run(t.Context(), "")
	if err == nil || !strings.Contains(err.Error(), "another edgesupervisor (process ") || fleet.KindOf(err).Name != "conflict" {
		t.Errorf("got %v", err)
	}
}

// A pipe in its place can be locked and not written, as a file on a full disk.
func TestALockFileThatCannotBeWrittenStopsNoService(t *testing.T) {
	h := newHost(t, "127.0.0.1:1").enrolled()
	if err := syscall.Mkfifo(filepath.Join(h.dir, "data", "supervisor.lock"), 0o600); err != nil {
		t.Fatal(err)
	}
	h.supervise()
	h.pid()
}

func TestAPortInUseIsSaidWithItsHolder(t *testing.T) {
	h := newHost(t, "127.0.0.1:1", "drain_timeout: 1s").enrolled()
	l, err := net.Listen("tcp", h.http)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	err = h.run(t.Context(), "")
	// The holder is this very process, which is also the worker's program: it is waited for, up to the drain timeout.
	if err == nil || !strings.Contains(err.Error(), "http_listen: "+h.http+" is in use by process "+strconv.Itoa(os.Getpid())) {
		t.Errorf("got %v", err)
	}
}

func TestAMissingWorkerIsSaid(t *testing.T) {
	h := newHost(t, "127.0.0.1:1")
	b, err := os.ReadFile(h.cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(h.cfg, bytes.ReplaceAll(b, []byte("worker: "), []byte("worker: /none")), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := h.run(context.Background(), ""); err == nil || !strings.Contains(err.Error(), "is not a program") {
		t.Errorf("got %v", err)
	}
}
