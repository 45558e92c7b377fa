// Command edgesupervisor keeps an edge host in service: it enrols the node, renews its certificate, holds the listening
// sockets, and starts the worker, edgenode.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/edgefleet/edgefleet/edgenode/settings"
	"github.com/edgefleet/edgefleet/edgenode/supervise"
	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/observability"
)

// tokenVariable holds the join token when no file is configured.
const tokenVariable = "EDGEFLEET_JOIN_TOKEN"

func main() {
	if err := command().ExecuteContext(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, "edgesupervisor:", strings.ReplaceAll(err.Error(), "\n", "; "))
		os.Exit(exitCode(err))
	}
}

func exitCode(err error) int {
	if _, ok := errors.AsType[usageError](err); ok {
		return fleet.ExitUsage
	}
	var e *fleet.Error
	if errors.As(err, &e) {
		return fleet.KindOf(err).Exit
	}
	return fleet.ExitFailure
}

// usageError is a command line that makes no sense.
type usageError struct{ command, what string }

func (e usageError) Error() string { return e.what + "; see '" + e.command + " --help'" }

func noArguments(c *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	what := "unexpected argument"
	if c.HasSubCommands() {
		what = "unknown command"
	}
	return usageError{c.CommandPath(), fmt.Sprintf("%s %q", what, args[0])}
}

func command() *cobra.Command {
	root := &cobra.Command{
		Use: "edgesupervisor", Short: "Supervisor of an Edgefleet edge host",
		Long: "edgesupervisor enrols the node with the control plane, keeps its certificate fresh, holds the listening sockets,\n" +
			"and starts edgenode again when it dies. SIGTERM drains and ends; SIGHUP is ignored.",
		SilenceErrors: true, SilenceUsage: true, Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error { return usageError{c.CommandPath(), err.Error()} })
	var path string
	run := &cobra.Command{
		Use: "run", Short: "Supervise until SIGTERM", Args: noArguments,
		Example: "  # first start: the join token comes from `fleetctl node join-token`\n" +
			"  " + tokenVariable + "=efn1... edgesupervisor run --config /etc/edgefleet/edge.yaml\n\n" +
			"  # later starts need no token\n" +
			"  edgesupervisor run --config /etc/edgefleet/edge.yaml",
		RunE: func(cmd *cobra.Command, _ []string) error { return run(cmd.Context(), path) },
	}
	run.Flags().StringVar(&path, "config", "/etc/edgefleet/edge.yaml", "configuration file of the edge host")
	version := &cobra.Command{
		Use: "version", Short: "Print the version", Args: noArguments, Example: "  edgesupervisor version",
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := fmt.Fprintln(cmd.OutOrStdout(), observability.Version)
			return err
		},
	}
	root.AddCommand(run, version)
	return root
}

func run(ctx context.Context, path string) error {
	s, err := settings.Load(path)
	if err != nil {
		return err
	}
	token := os.Getenv(tokenVariable)
	if err := os.Unsetenv(tokenVariable); err != nil { // the worker does not need it
		return fmt.Errorf("hide join token: %w", err)
	}
	signal.Ignore(syscall.SIGHUP)
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGTERM, os.Interrupt)
	defer stop()
	tel, err := observability.Setup(ctx, observability.Options{
		Service: "edgesupervisor", Instance: string(s.Node), OTLPEndpoint: s.OTLPEndpoint, LogLevel: s.LogLevel, LogFormat: s.LogFormat,
	})
	if err != nil {
		return err
	}
	err = supervise.Run(ctx, supervise.Options{Settings: s, ConfigPath: path, Token: token, Telemetry: tel})
	last, done := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer done()
	return errors.Join(err, tel.Shutdown(last))
}
