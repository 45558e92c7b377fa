package main_test

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/edgefleet/edgefleet/loadtest/report"
)

// build makes the programs that a scenario runs.
func build(t *testing.T, programs ...string) string {
	t.Helper()
	dir := t.TempDir()
	out, err := exec.CommandContext(t.Context(), "go", append([]string{"build", "-o", dir, "../../../controlplane/cmd/controlplane", "."}, programs...)...).CombinedOutput()
	if err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	return dir
}

// loadtest runs the program and returns its exit code and output. Its data is kept in a directory of its own, which
// must be empty afterwards.
func loadtest(t *testing.T, bin string, env []string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var o, e strings.Builder
	cmd := exec.CommandContext(t.Context(), filepath.Join(bin, "loadtest"), args...)
	cmd.Stdout, cmd.Stderr, cmd.Env = &o, &e, append(os.Environ(), env...)
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), o.String(), e.String()
}

// TestControlPlaneScenario runs every part as small as it gets and looks at what is reported, not at how fast it was.
func TestControlPlaneScenario(t *testing.T) {
	if testing.Short() {
		t.Skip("starts clusters")
	}
	bin, data := build(t), t.TempDir()
	file := filepath.Join(data, "report.json")
	run := []string{"run", "controlplane", "--smoke", "--dir", data, "-o", "json", "--out", file}

	// There is no etcd on an empty PATH.
	_, stdout, stderr := loadtest(t, bin, []string{"PATH="}, run...)
	var rep report.Report
	if err := json.Unmarshal([]byte(stdout), &rep); err != nil {
		t.Fatalf("%v\n%s\n%s", err, stdout, stderr)
	}
	var names []string
	for _, c := range rep.Checks {
		names = append(names, c.Name)
		if c.Name == "etcd" && (c.Holds || !strings.Contains(c.Note, "apt-get install etcd-server")) {
			t.Errorf("without etcd: %+v", c)
		}
		if c.Name != "etcd" && c.Value <= 0 && c.Bound.Op == ">=" {
			t.Errorf("nothing was counted: %+v", c)
		}
	}
	for _, want := range []string{"etcd", "bare applies", "API writes", "API linearizable reads", "planned transfer worst", "requests failed by a transfer", "failover worst", "restore of the state"} {
		if !slices.Contains(names, want) {
			t.Errorf("no check %q in %q\n%s", want, names, stderr)
		}
	}
	if rep.Machine.Cores == 0 || rep.Commit == "" || rep.Holds {
		t.Errorf("%+v", rep)
	}
	if b, err := os.ReadFile(file); err != nil || string(b) != stdout {
		t.Errorf("the file is not what was printed: %v", err)
	}
	left, err := filepath.Glob(filepath.Join(data, "edgefleet-loadtest-*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v %v", left, err)
	}
}

// TestHostsScenario runs every part as small as it gets, and looks at what is reported and not at how fast it was.
func TestHostsScenario(t *testing.T) {
	if testing.Short() {
		t.Skip("starts fleets")
	}
	bin, data := build(t, "../../../edgenode/cmd/edgenode", "../../../edgenode/cmd/edgesupervisor"), t.TempDir()
	_, stdout, stderr := loadtest(t, bin, nil, "run", "hosts", "--smoke", "--dir", data, "-o", "json")
	var rep report.Report
	if err := json.Unmarshal([]byte(stdout), &rep); err != nil {
		t.Fatalf("%v\n%s\n%s", err, stdout, stderr)
	}
	got := map[string]report.Check{}
	for _, c := range rep.Checks {
		got[c.Name] = c
	}
	for _, want := range []string{
		"certificate lookup p99", "certificate table", "full handshakes beside crypto/tls", "sessions resumed on the other node", "DNS to HTTPS p50", "DNS to HTTPS p95",
		"certificate deployed p99", "DNS to HTTPS beside broken names p95", "handshake p99 during renewals", "the CA's orders", "renewals", "certificates renewed", "least life left",
	} {
		if c, ok := got[want]; !ok || c.Value <= 0 {
			t.Errorf("check %q is %+v\n%s", want, c, stderr)
		}
	}
	for _, want := range []string{"DNS answers", "longest handshake while names are due"} {
		if c, ok := got[want]; !ok || c.Value <= 0 && c.Holds && c.Bound.Op == ">=" {
			t.Errorf("check %q is %+v\n%s", want, c, stderr)
		}
	}
	left, err := filepath.Glob(filepath.Join(data, "edgefleet-loadtest-*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v %v", left, err)
	}
}

func TestCommandLine(t *testing.T) {
	if testing.Short() {
		t.Skip("builds programs")
	}
	bin := build(t)
	for name, tc := range map[string]struct {
		args           []string
		code           int
		stdout, stderr string
	}{
		"the scenarios are listed":    {[]string{"list"}, 0, "controlplane  etcd,bare,api", ""},
		"no scenario is named":        {[]string{"run"}, 2, "", "name one scenario: controlplane, hosts"},
		"a scenario that is not":      {[]string{"run", "moon"}, 2, "", "name one scenario: controlplane, hosts"},
		"a part that is not":          {[]string{"run", "controlplane", "--only", "moon"}, 2, "", `no part "moon"`},
		"an output that is not":       {[]string{"run", "controlplane", "-o", "xml"}, 2, "", "use table or json"},
		"a directory that is not":     {[]string{"run", "controlplane", "--only", "etcd", "--dir", "/nowhere"}, 1, "", "give another --dir"},
		"help shows how it is called": {[]string{"run", "--help"}, 0, "loadtest run controlplane --short -o json", ""},
		"programs that are not built": {[]string{"run", "controlplane", "--only", "api", "--binaries", "/nowhere"}, 3, "make", "/nowhere/controlplane is not there"},
	} {
		t.Run(name, func(t *testing.T) {
			code, stdout, stderr := loadtest(t, bin, nil, tc.args...)
			if code != tc.code {
				t.Errorf("exit code %d, want %d", code, tc.code)
			}
			if !strings.Contains(stdout, tc.stdout) && tc.code == 0 || !strings.Contains(stderr, tc.stderr) {
				t.Errorf("stdout %q, stderr %q", stdout, stderr)
			}
		})
	}
}
