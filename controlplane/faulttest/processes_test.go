package faulttest_test

import (
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/edgefleet/edgefleet/controlplane/faulttest"
	"github.com/edgefleet/edgefleet/loadtest/harness"
)

var processes = flag.Int("processes", 12, "how many seeded histories of real processes to run")

// TestHistoriesOfRealProcessesStayLinearizableUnderFaults runs histories one after the other on one control plane of three
// real processes.
func TestHistoriesOfRealProcessesStayLinearizableUnderFaults(t *testing.T) {
	if testing.Short() || *processes == 0 {
		t.Skip("runs real processes")
	}
	c := startProcesses(t)
	if !c.SmallDisks {
		t.Log("no disk is filled: only root may mount one for each member")
	}
	t.Logf("three members run after %s", c.Age().Round(time.Millisecond))
	a := attack(t, c)
	for i := range *processes {
		p := faulttest.NewProcessPlan(*first + uint64(i)) //nolint:gosec // a small number
		t.Run(fmt.Sprintf("seed %d", p.Seed), func(t *testing.T) {
			history, standings, err := p.RunOn(t.Context(), c)
			if err != nil {
				t.Error(err)
			} else {
				faulttest.CheckFleet(t, c.Ledger, standings)
			}
			checkHistory(t, history)
			known, open := history.Counts()
			again, before := history.Repeated()
			t.Logf("seed %d: %v: %d operations with a known outcome, %d without; %d changes were done again, %d of them had been done", p.Seed, p.Process, known, open, again, before)
			if known < 5 {
				t.Errorf("only %d operations have a known outcome: the history proves nothing", known)
			}
			if t.Failed() {
				t.Logf("seed %d reproduces the schedule: go test ./controlplane/faulttest -run RealProcesses -processes 1 -seed %d\n%s", p.Seed, p.Seed, strings.Join(c.Story(), "\n"))
				c.Dump()
				sayLogs(t, c.Dir())
			}
		})
		if t.Failed() {
			return // what comes after it would fail for the same reason
		}
	}
	a.settled(t, c)
	if undone := c.Undone(); *processes >= 12 && len(undone) > 0 {
		t.Errorf("faults that were planned and never came as they should: %v", undone)
	}
	t.Logf("what was done:\n%s", strings.Join(c.Story(), "\n"))
	if t.Failed() {
		sayLogs(t, c.Dir())
	}
}

func startProcesses(t *testing.T) *faulttest.Processes {
	t.Helper()
	bin := t.TempDir()
	args := []string{"build", "-o", bin + "/", "../cmd/controlplane"}
	if out, err := exec.CommandContext(t.Context(), "go", args...).CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	env, err := harness.Open(harness.Options{Dir: t.TempDir(), Binaries: bin})
	if err != nil {
		t.Fatal(err)
	}
	c, err := faulttest.StartProcesses(t.Context(), env, rand.New(rand.NewPCG(*first, 5)))
	t.Cleanup(func() {
		if c != nil {
			err = errors.Join(err, c.Close())
		}
		if err := errors.Join(err, env.Close()); err != nil {
			t.Error(err)
		}
	})
	if err != nil {
		sayLogs(t, env.Dir)
		t.Fatal(err)
	}
	return c
}

// sayLogs shows how the logs of the processes end.
func sayLogs(t *testing.T, dir string) {
	t.Helper()
	logs, err := filepath.Glob(filepath.Join(dir, "*.log"))
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range logs {
		if b, err := os.ReadFile(l); err == nil {
			t.Logf("%s ends: %s", filepath.Base(l), b[max(0, len(b)-40000):])
		}
	}
}
