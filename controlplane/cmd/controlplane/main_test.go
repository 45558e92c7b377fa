package main

import (
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

func TestEveryCommandHasAnExampleThatIsItsOwn(t *testing.T) {
	seen := 0
	var walk func(*cobra.Command)
	walk = func(c *cobra.Command) {
		for _, sub := range c.Commands() {
			walk(sub)
		}
		if c.HasSubCommands() {
			return
		}
		if seen++; !strings.Contains(c.Example, c.CommandPath()) {
			t.Errorf("%s has no example of its own: %q", c.CommandPath(), c.Example)
		}
		for line := range strings.Lines(c.Example) {
			for word := range strings.FieldsSeq(line) {
				if flag, ok := strings.CutPrefix(word, "--"); ok && c.Flags().Lookup(flag) == nil {
					t.Errorf("%s has no flag --%s, which its example gives", c.CommandPath(), flag)
				}
			}
		}
	}
	if walk(command()); seen < 5 {
		t.Errorf("only %d commands", seen)
	}
}
