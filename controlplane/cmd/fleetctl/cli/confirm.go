package cli

import (
	"bufio"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/edgefleet/edgefleet/fleet"
)

// confirm asks for the typed name of what will be destroyed. Without a terminal it refuses to ask.
func (a *app) confirm(cmd *cobra.Command, yes bool, what, name string) error {
	if yes {
		return nil
	}
	if !isTerminal(a.In) {
		return usagef(cmd, "%s %s cannot be undone, and there is no terminal to ask on: say --yes", what, name)
	}
	screen := a.Err
	if tty, ok := a.In.(io.Writer); ok && !isTerminal(a.Err) {
		screen = tty // the error stream is in a file, where nobody would read a question
	}
	_, _ = fmt.Fprintf(screen, "%s %s cannot be undone. Type %s to go on: ", what, clean(name), clean(name))
	typed := make(chan string, 1)
	// A read of a terminal cannot be cancelled; on an interrupt it ends with the program.
	go func() {
		lines := bufio.NewScanner(a.In)
		lines.Scan()
		typed <- lines.Text()
	}()
	select {
	case <-cmd.Context().Done():
		_, _ = fmt.Fprintln(screen)
		return cmd.Context().Err()
	case answer := <-typed:
		if answer != name {
			return fleet.NewError(fleet.ErrInvalid, "", "%q is not %q: nothing was changed", answer, name)
		}
		return nil
	}
}

// yesFlag adds --yes.
func yesFlag(cmd *cobra.Command) *bool {
	return cmd.Flags().Bool("yes", false, "do not ask")
}
