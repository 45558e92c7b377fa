package cli_test

import (
	"io"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/edgefleet/edgefleet/controlplane/cmd/fleetctl/cli"
)

// leaves are the commands that do something, by their name without the program's.
func leaves(t *testing.T) map[string]*cobra.Command {
	t.Helper()
	out := map[string]*cobra.Command{}
	var walk func(*cobra.Command)
	walk = func(c *cobra.Command) {
		for _, sub := range c.Commands() {
			walk(sub)
		}
		if !c.HasSubCommands() {
			_, name, _ := strings.Cut(c.CommandPath(), " ")
			out[name] = c
		}
	}
	walk(cli.Root(cli.Options{Out: io.Discard, Err: io.Discard, Getenv: func(string) string { return "" }, Now: noon}))
	if len(out) < 60 {
		t.Fatalf("only %d commands", len(out))
	}
	return out
}

func TestEveryCommandHasAnExampleThatIsItsOwn(t *testing.T) {
	for name, c := range leaves(t) {
		own := 0
		for line := range strings.Lines(c.Example) {
			call, _, _ := strings.Cut(strings.TrimRight(line, "\n"), "   # ")
			call, _, _ = strings.Cut(call, " && ")
			if !strings.HasPrefix(call, "  fleetctl "+name) {
				continue
			}
			own++
			for word := range strings.FieldsSeq(call) {
				flag, isFlag := strings.CutPrefix(word, "--")
				if flag, _, _ = strings.Cut(flag, "="); isFlag && c.Flags().Lookup(flag) == nil && c.InheritedFlags().Lookup(flag) == nil {
					t.Errorf("%s has no flag --%s, which its example gives: %s", name, flag, call)
				}
			}
		}
		if own == 0 {
			t.Errorf("%s has no example of its own: %q", name, c.Example)
		}
	}
}

func TestNamesOfWhatExistsAreCompleted(t *testing.T) {
	// What is new has no name yet; files are completed by the shell; an event is one of very many.
	others := []string{
		"cluster add", "tenant add", "host add", "user add", "role create", "group add", "event show", "attack show", "event export", "rule import", "audit key", "audit export", "audit verify",
		"cluster snapshot save", "cluster snapshot inspect", "cluster snapshot restore",
	}
	for name, c := range leaves(t) {
		_, args, named := strings.Cut(c.Use, " ")
		if got := c.ValidArgsFunction != nil; named && got == slices.Contains(others, name) {
			t.Errorf("%s %s: completed %v", name, args, got)
		}
	}
}

func TestWhatTakesStaleReadsExists(t *testing.T) {
	all := leaves(t)
	for _, name := range cli.StaleReads {
		if all[name] == nil {
			t.Errorf("there is no command %q", name)
		}
	}
	if !slices.IsSorted(cli.StaleReads) {
		t.Error("they are not in order")
	}
}

func TestCommandsOfTheReadmeExist(t *testing.T) {
	b, err := os.ReadFile("../../../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	all, seen := leaves(t), 0
	for line := range strings.Lines(string(b)) {
		call, ok := strings.CutPrefix(strings.TrimPrefix(line, "$ "), "fleetctl ")
		if !ok {
			continue
		}
		call, _, _ = strings.Cut(call, "  #")
		words := strings.Fields(call)
		var c *cobra.Command
		for n := 1; n <= min(3, len(words)) && c == nil; n++ {
			c = all[strings.Join(words[:n], " ")]
		}
		if seen++; c == nil {
			t.Errorf("there is no command %q", line)
			continue
		}
		for _, word := range words {
			if flag, ok := strings.CutPrefix(word, "--"); ok && c.Flags().Lookup(flag) == nil && c.InheritedFlags().Lookup(flag) == nil {
				t.Errorf("%s has no flag --%s", c.CommandPath(), flag)
			}
		}
	}
	if seen < 20 {
		t.Errorf("only %d commands", seen)
	}
}
