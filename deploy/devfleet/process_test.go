package devfleet_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/edgefleet/edgefleet/deploy/devfleet"
	"github.com/edgefleet/edgefleet/fleet"
)

// envParent makes the test binary start a child, say its pid, and wait to be killed.
const envParent = "DEVFLEET_TEST_PARENT"

func TestMain(m *testing.M) {
	if log := os.Getenv(envParent); log != "" {
		start, _ := devfleet.NewTestLauncher()
		p := devfleet.NewTestProcess("child", log, nil, "sleep", "60")
		if err := start(p); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		fmt.Println(p.Status().PID)
		select {}
	}
	os.Exit(m.Run())
}

// eventually waits until check returns nil.
func eventually(t *testing.T, check func() error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := devfleet.Poll(ctx, 5*time.Millisecond, func(context.Context) error { return check() }); err != nil {
		t.Fatal(err)
	}
}

func gone(pid int) func() error {
	return func() error {
		if devfleet.Alive(pid) {
			return fmt.Errorf("process %d is alive", pid)
		}
		return nil
	}
}

// started starts a process that is killed, with what it started, when the test ends.
func started(t *testing.T, argv ...string) *devfleet.TestProcess {
	t.Helper()
	start, end := devfleet.NewTestLauncher()
	id := t.Name()
	path, err := exec.LookPath(argv[0])
	if err != nil {
		t.Fatal(err)
	}
	argv[0] = path
	p := devfleet.NewTestProcess("p1", filepath.Join(t.TempDir(), "log"), []string{devfleet.EnvID + "=" + id}, argv...)
	if err := start(p); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := devfleet.KillMarked(context.WithoutCancel(t.Context()), id); err != nil {
			t.Error(err)
		}
		reaped(t, p)
		end()
	})
	return p
}

// reaped waits, after the test's context has ended, until a process was reaped.
func reaped(t *testing.T, p *devfleet.TestProcess) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 10*time.Second)
	defer cancel()
	if err := devfleet.Poll(ctx, 5*time.Millisecond, func(context.Context) error { return inState(p, devfleet.Stopped, devfleet.Crashed)() }); err != nil {
		t.Error(err)
	}
}

func inState(p *devfleet.TestProcess, want ...devfleet.ProcessState) func() error {
	return func() error {
		s := p.Status()
		if slices.Contains(want, s.State) {
			return nil
		}
		return fmt.Errorf("state %s, wanted %v", s.State, want)
	}
}

func TestProcessThatIsKilledIsStoppedAndCanBeStartedAgain(t *testing.T) {
	p := started(t, "sleep", "60")
	first := p.Status().PID
	if err := p.Again(); !errors.Is(err, fleet.ErrConflict) || !strings.Contains(err.Error(), "already running") {
		t.Errorf("second start: %v", err)
	}
	if err := p.Kill(t.Context()); err != nil {
		t.Fatal(err)
	}
	if s := p.Status(); s.State != devfleet.Stopped || s.PID != 0 || s.Exit != "signal: killed" {
		t.Errorf("after kill: %+v", s)
	}
	if err := p.Kill(t.Context()); !errors.Is(err, fleet.ErrConflict) || !strings.Contains(err.Error(), "is stopped") {
		t.Errorf("second kill: %v", err)
	}
	if err := p.Again(); err != nil {
		t.Fatal(err)
	}
	if s := p.Status(); s.State != devfleet.Running || s.PID == first {
		t.Errorf("after the second start: %+v, the first pid was %d", s, first)
	}
}

func TestProcessThatEndsByItselfHasCrashed(t *testing.T) {
	p := started(t, "sh", "-c", "exit 3")
	eventually(t, inState(p, devfleet.Crashed))
	if s := p.Status(); s.Exit != "exit status 3" {
		t.Errorf("exit: %q", s.Exit)
	}
}

func TestPauseStopsTheProcessAndItsChildren(t *testing.T) {
	p := started(t, "sh", "-c", "sleep 60 & wait")
	pid := p.Status().PID
	children := func(want string) func() error {
		return func() error {
			if _, states := devfleet.Children(pid); states != want {
				return fmt.Errorf("children are in states %q, wanted %q", states, want)
			}
			return nil
		}
	}
	eventually(t, children("S"))
	if err := p.Pause(); err != nil {
		t.Fatal(err)
	}
	eventually(t, children("T"))
	if err := p.Pause(); !errors.Is(err, fleet.ErrConflict) {
		t.Errorf("second pause: %v", err)
	}
	if err := p.Resume(); err != nil {
		t.Fatal(err)
	}
	eventually(t, children("S"))
}

func TestPausedProcessCanBeStopped(t *testing.T) {
	p := started(t, "sleep", "60")
	if err := p.Pause(); err != nil {
		t.Fatal(err)
	}
	if err := p.Stop(t.Context(), 10*time.Second); err != nil {
		t.Fatal(err)
	}
	if s := p.Status(); s.State != devfleet.Stopped || s.Exit != "signal: terminated" {
		t.Errorf("after stop: %+v", s)
	}
}

func TestKillReportsAChildThatOutlivesItsParent(t *testing.T) {
	p := started(t, "sh", "-c", "sleep 60 & wait")
	eventually(t, func() error {
		if pids, _ := devfleet.Children(p.Status().PID); len(pids) != 1 {
			return fmt.Errorf("children: %v", pids)
		}
		return nil
	})
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := p.Kill(ctx); err == nil || !strings.Contains(err.Error(), "outlives p1") {
		t.Errorf("kill: %v", err)
	}
}

func TestProcessThatIgnoresTheStopIsKilledWithItsChildren(t *testing.T) {
	p := started(t, "sh", "-c", "trap '' TERM; sleep 60 & echo ready; wait; wait")
	var child int
	eventually(t, func() error {
		pids, _ := devfleet.Children(p.Status().PID)
		if len(pids) != 1 {
			return fmt.Errorf("children: %v", pids)
		}
		child = pids[0]
		return nil
	})
	err := p.Stop(t.Context(), 50*time.Millisecond)
	if !errors.Is(err, fleet.ErrTimeout) {
		t.Errorf("stop: %v", err)
	}
	eventually(t, gone(child))
	eventually(t, inState(p, devfleet.Stopped))
}

func TestChildrenDieWithTheirParent(t *testing.T) {
	parent := exec.CommandContext(t.Context(), os.Args[0])
	parent.Env = append(os.Environ(), envParent+"="+filepath.Join(t.TempDir(), "log"))
	parent.Stderr = os.Stderr
	out, err := parent.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	child, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil {
		t.Fatal(err)
	}
	if !devfleet.Alive(child) {
		t.Fatalf("child %d never ran", child)
	}
	if err := parent.Process.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	_ = parent.Wait() // it was killed
	eventually(t, gone(child))
}
