// Package program is what the command lines of all daemons have in common: usage errors, one line on standard error,
// exit codes, and the version command.
//
// It owns no command of its own. The exit codes are those of the error table in package fleet.
package program

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/observability"
)

// usageError is a command line that makes no sense.
type usageError struct{ command, what string }

func (e usageError) Error() string { return e.what + "; see '" + e.command + " --help'" }

// Usage is a usage error of c, for what cobra does not find itself.
func Usage(c *cobra.Command, format string, args ...any) error {
	return usageError{c.CommandPath(), fmt.Sprintf(format, args...)}
}

// NoArguments refuses arguments, and names an unknown command as such.
func NoArguments(c *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	what := "unexpected argument"
	if c.HasSubCommands() {
		what = "unknown command"
	}
	return usageError{c.CommandPath(), fmt.Sprintf("%s %q", what, args[0])}
}

// Execute runs a command line and returns the exit code: 2 for one that makes no sense, else by the error's kind. The
// error is one line on the command's standard error. Without a subcommand it shows the help.
func Execute(ctx context.Context, root *cobra.Command) int {
	root.SilenceErrors, root.SilenceUsage, root.Version = true, true, observability.Version
	root.Args = NoArguments
	root.RunE = func(c *cobra.Command, _ []string) error { return c.Help() }
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error { return usageError{c.CommandPath(), err.Error()} })
	root.AddCommand(version(root.Name()))
	err := root.ExecuteContext(ctx)
	if err == nil {
		return fleet.ExitOK
	}
	_, _ = fmt.Fprintf(root.ErrOrStderr(), "%s: %s\n", root.Name(), strings.ReplaceAll(err.Error(), "\n", "; "))
	if _, ok := errors.AsType[usageError](err); ok {
		return fleet.ExitUsage
	}
	return fleet.KindOf(err).Exit
}

func version(name string) *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version", Args: NoArguments, Example: "  " + name + " version",
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := fmt.Fprintln(cmd.OutOrStdout(), observability.Version)
			return err
		},
	}
}
