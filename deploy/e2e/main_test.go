package e2e_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/edgefleet/edgefleet/fleet"
)

// binaries is the directory of the programs under test.
var binaries string

func TestMain(m *testing.M) {
	code, err := build(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		code = fleet.ExitFailure
	}
	os.Exit(code)
}

// build builds the programs, runs the tests, and sees that no program is left running.
func build(m *testing.M) (code int, err error) {
	if binaries, err = os.MkdirTemp("", "edgefleet-e2e-"); err != nil {
		return 1, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(binaries)) }()
	args := []string{"build", "-o", binaries + "/"}
	if race {
		args = append(args, "-race")
	}
	args = append(args, "../../controlplane/cmd/controlplane", "../../controlplane/cmd/fleetctl", "../../edgenode/cmd/edgenode", "../../edgenode/cmd/edgesupervisor",
		"../cmd/devfleet", "github.com/letsencrypt/pebble/v2/cmd/pebble")
	if out, err := exec.Command("go", args...).CombinedOutput(); err != nil {
		return 1, fmt.Errorf("go build: %w\n%s", err, out)
	}
	code = m.Run()
	if err := stopShared(); err != nil {
		return 1, err
	}
	if left := running(); len(left) > 0 {
		return 1, fmt.Errorf("still running after the tests: %s", strings.Join(left, ", "))
	}
	return code, nil
}

// running lists the processes of the programs under test.
func running() []string {
	links, _ := filepath.Glob("/proc/[0-9]*/exe") // the pattern is well-formed
	var out []string
	for _, link := range links {
		if exe, err := os.Readlink(link); err == nil && strings.HasPrefix(exe, binaries+"/") {
			out = append(out, filepath.Base(filepath.Dir(link))+" "+filepath.Base(exe))
		}
	}
	return out
}

// result is how a program ended.
type result struct {
	code           int
	stdout, stderr string
}

// program prepares a program under test. It dies with this process, and env is all that it has of an environment.
func program(name string, env []string, args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(binaries, name), args...)
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=/nonexistent", "FLEETCTL_CONFIG=/nonexistent/config.yaml"}, env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	return cmd
}

// run runs a program to its end; one that does not end fails the test.
func run(t *testing.T, name string, env []string, args ...string) result {
	t.Helper()
	cmd := program(name, env, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	end(t, cmd, syscall.SIGKILL, patience)
	return result{cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()}
}

// end waits for a process and its group, and signals it if it does not end by itself in time.
func end(t *testing.T, cmd *exec.Cmd, sig syscall.Signal, within time.Duration) {
	t.Helper()
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	select {
	case <-done:
		return
	case <-time.After(within):
		t.Errorf("%s %v does not end", filepath.Base(cmd.Path), cmd.Args[1:])
	}
	if err := syscall.Kill(-cmd.Process.Pid, sig); err != nil {
		t.Error(err)
	}
	<-done
}

// says holds a result against an exit code and the words that its message needs: one line, from that program.
func (r result) says(t *testing.T, code int, words ...string) {
	t.Helper()
	message := r.message()
	if r.code != code {
		t.Errorf("exit code %d, want %d: %s", r.code, code, message)
	}
	for _, w := range words {
		if !strings.Contains(message, w) {
			t.Errorf("the message lacks %q: %s", w, message)
		}
	}
	if strings.Count(message, "\n") > 0 || message == "" {
		t.Errorf("the message is not one line: %q", message)
	}
}

// hides holds a message against words that must not be in it.
func (r result) hides(t *testing.T, words ...string) {
	t.Helper()
	for _, w := range words {
		if strings.Contains(r.stdout+r.stderr, w) {
			t.Errorf("the answer tells %q: %s%s", w, r.stdout, r.stderr)
		}
	}
}

// message is what a program wrote for people, without its log.
func (r result) message() string {
	var lines []string
	for line := range strings.Lines(r.stderr) {
		if !strings.HasPrefix(line, "time=") {
			lines = append(lines, strings.TrimSuffix(line, "\n"))
		}
	}
	return strings.Join(lines, "\n")
}

// await waits until ok; the test fails when that takes too long.
func await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	tick := time.NewTicker(25 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("waited in vain: %s", what)
		}
	}
}
