package e2e_test

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/edgefleet/edgefleet/fleet"
)

func TestStory(t *testing.T) {
	if testing.Short() {
		t.Skip("the whole story takes a minute")
	}
	t.Parallel()
	home := t.TempDir()
	r := run(t, "devfleet", []string{"TMPDIR=" + home}, "up", "--once", "--dir", filepath.Join(home, "fleet"), "--address-block", block())
	if r.code != fleet.ExitOK {
		t.Errorf("exit code %d", r.code)
	}
	t.Logf("\n%s%s", r.stdout, r.stderr)
	if left := mentioning(t, home); len(left) > 0 {
		t.Errorf("these processes outlive the fleet: %q", left)
	}
	if left, err := os.ReadDir(home); err != nil || len(left) > 0 {
		t.Errorf("files outlive the fleet: %v, %v", left, err)
	}
}

// mentioning lists the command lines of processes with path in them. Every program of a fleet but the origin names a
// file of the fleet's directory; the origin is found by the environment.
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
