package e2e_test

import (
	"bytes"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/edgefleet/edgefleet/fleet"
)

func TestStory(t *testing.T) {
	if testing.Short() {
		t.Skip("the whole story takes a minute")
	}
	t.Parallel()
	home := t.TempDir()
	// The variable marks every process of the fleet: the origin's command line does not name the directory.
	cmd := program("devfleet", []string{"TMPDIR=" + home}, "up", "--once", "--dir", filepath.Join(home, "fleet"), "--address-block", block(228))
	out := &buffer{}
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	end(t, cmd, syscall.SIGTERM, 3*time.Minute)
	t.Logf("\n%s", out)
	if code := cmd.ProcessState.ExitCode(); code != fleet.ExitOK {
		t.Errorf("exit code %d", code)
	}
	if left := mentioning(t, home); len(left) > 0 {
		t.Errorf("these processes outlive the fleet: %q", left)
	}
	if left, err := os.ReadDir(home); err != nil || len(left) > 0 {
		t.Errorf("files outlive the fleet: %v, %v", left, err)
	}
}

// mentioning lists the command lines of processes that name path there or in their environment.
func mentioning(t *testing.T, path string) []string {
	t.Helper()
	var out []string
	for _, file := range []string{"cmdline", "environ"} {
		all, err := filepath.Glob("/proc/[0-9]*/" + file)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range all {
			b, err := os.ReadFile(p)
			if err != nil || !bytes.Contains(b, []byte(path)) {
				continue // it ended, or is another user's
			}
			line, err := os.ReadFile(filepath.Join(filepath.Dir(p), "cmdline"))
			if err != nil {
				continue
			}
			out = append(out, filepath.Base(filepath.Dir(p))+" "+string(bytes.ReplaceAll(line, []byte{0}, []byte(" "))))
		}
	}
	return out
}
