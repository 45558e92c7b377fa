package program_test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/observability/program"
)

func TestExecute(t *testing.T) {
	for name, tc := range map[string]struct {
		args           []string
		code           int
		stdout, stderr string
	}{
		"a command that works":          {[]string{"work"}, 0, "done", ""},
		"an error has its kind's code":  {[]string{"conflict"}, 6, "", "demo: two lines; in one\n"},
		"an unknown command":            {[]string{"dance"}, 2, "", `demo: unknown command "dance"; see 'demo --help'`},
		"an unknown flag":               {[]string{"work", "--fast"}, 2, "", "see 'demo work --help'"},
		"an argument that is not asked": {[]string{"work", "now"}, 2, "", `unexpected argument "now"`},
		"no command shows the help":     {nil, 0, "Usage:", ""},
		"the version":                   {[]string{"version"}, 0, "dev\n", ""},
	} {
		t.Run(name, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			root := &cobra.Command{Use: "demo", Short: "a program"}
			root.SetOut(&stdout)
			root.SetErr(&stderr)
			root.SetArgs(append([]string{}, tc.args...))
			root.AddCommand(
				&cobra.Command{Use: "work", Args: program.NoArguments, RunE: func(*cobra.Command, []string) error { stdout.WriteString("done"); return nil }},
				&cobra.Command{Use: "conflict", RunE: func(*cobra.Command, []string) error {
					return fleet.NewError(fleet.ErrConflict, "", "two lines\nin one")
				}},
			)
			if code := program.Execute(t.Context(), root); code != tc.code {
				t.Errorf("exit code %d, want %d", code, tc.code)
			}
			if !strings.Contains(stdout.String(), tc.stdout) || !strings.Contains(stderr.String(), tc.stderr) {
				t.Errorf("stdout %q, stderr %q", stdout.String(), stderr.String())
			}
		})
	}
}
