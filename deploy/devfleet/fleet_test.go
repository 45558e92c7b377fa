package devfleet_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/edgefleet/edgefleet/deploy/devfleet"
)

// binary finds what make build made; tests that need it are left out without.
func binary(t *testing.T) string {
	t.Helper()
	if testing.Short() {
		t.Skip("a whole fleet takes a minute")
	}
	path, err := filepath.Abs("../../bin/devfleet")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"devfleet", "controlplane", "edgesupervisor", "edgenode", "pebble"} {
		if _, err := os.Stat(filepath.Join(filepath.Dir(path), name)); err != nil {
			t.Skip("no binaries: run 'make build' first")
		}
	}
	return path
}

// output is written by a process and read by the test.
type output struct{ path string }

func newOutput(t *testing.T) output { return output{filepath.Join(t.TempDir(), "out")} }

func (o output) String() string {
	b, err := os.ReadFile(o.path)
	if err != nil {
		return err.Error()
	}
	return string(b)
}

func TestKilledFleetLeavesNoProcessBehind(t *testing.T) {
	bin, dir, out := binary(t), filepath.Join(t.TempDir(), "fleet"), newOutput(t)
	f, err := os.Create(out.path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	ready := filepath.Join(t.TempDir(), "ready.json")
	cmd := exec.CommandContext(t.Context(), bin, "up", "--members", "1", "--nodes", "1", "--dir", dir, "--address-block", "202", "--ready-file", ready)
	cmd.Stdout, cmd.Stderr = f, f
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	exited := make(chan error, 1)
	go func() { exited <- cmd.Wait() }()
	var r devfleet.Ready
	within(t, 2*time.Minute, func() error {
		b, err := os.ReadFile(ready)
		if err == nil {
			err = json.Unmarshal(b, &r)
		}
		if err != nil && strings.Contains(out.String(), "✗") {
			t.Fatalf("the story failed:\n%s", out)
		}
		return err
	})
	pids := []int{r.Edges[0].PID, r.Members[0].PID}
	for _, pid := range []int{r.Edges[0].PID, cmd.Process.Pid} {
		children, _ := devfleet.Children(pid)
		pids = append(pids, children...)
	}
	if len(pids) < 7 { // member, supervisor, worker, origin, pebble; supervisor, worker and member twice
		t.Errorf("too few processes to prove anything: %v\n%s", pids, out)
	}
	if err := cmd.Process.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	<-exited
	for _, pid := range pids {
		within(t, 10*time.Second, gone(pid))
	}
}

func TestUpRefusesNumbersThatCannotBe(t *testing.T) {
	for _, o := range []devfleet.Options{{Members: 0, Nodes: 1}, {Members: 8, Nodes: 1}, {Members: 1, Nodes: 0}, {Members: 1, Nodes: 51}, {Members: 1, Nodes: 1, Block: 256}, {Members: 1, Nodes: 1, Block: -1}} {
		o.Dir, o.Out = filepath.Join(t.TempDir(), "fleet"), &bytes.Buffer{}
		if err := devfleet.Up(t.Context(), o); err == nil || !strings.Contains(err.Error(), "give ") {
			t.Errorf("%+v: %v", o, err)
		}
	}
}

func TestUpWithoutBinariesSaysHowToBuildThem(t *testing.T) {
	o := devfleet.Options{Members: 1, Nodes: 1, Dir: filepath.Join(t.TempDir(), "fleet"), Binaries: t.TempDir()}
	if err := devfleet.Up(t.Context(), o); err == nil || !strings.Contains(err.Error(), "make build") {
		t.Errorf("up: %v", err)
	}
	if _, err := os.Stat(o.Dir); !errors.Is(err, os.ErrNotExist) {
		t.Error("the directory was made although nothing could start")
	}
}

func within(t *testing.T, limit time.Duration, check func() error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	if err := devfleet.Poll(ctx, 20*time.Millisecond, func(context.Context) error { return check() }); err != nil {
		t.Fatal(fmt.Errorf("after %s: %w", limit, err))
	}
}
