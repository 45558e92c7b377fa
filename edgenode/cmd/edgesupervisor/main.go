// Command edgesupervisor keeps an edge host in service: it enrols the node, renews its certificate, holds the listening
// sockets, and starts the worker, edgenode.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/edgefleet/edgefleet/edgenode/settings"
	"github.com/edgefleet/edgefleet/edgenode/supervise"
	"github.com/edgefleet/edgefleet/observability"
	"github.com/edgefleet/edgefleet/observability/program"
)

// tokenVariable holds the join token when no file is configured.
const tokenVariable = "EDGEFLEET_JOIN_TOKEN"

func main() { os.Exit(program.Execute(context.Background(), command())) }

func command() *cobra.Command {
	root := &cobra.Command{
		Use: "edgesupervisor", Short: "Supervisor of an Edgefleet edge host",
		Long: "edgesupervisor enrols the node with the control plane, keeps its certificate fresh, holds the listening sockets,\n" +
			"and starts edgenode again when it dies. SIGTERM takes the node out of DNS, drains and ends;\n" +
			"a second one drains at once. SIGHUP is ignored.",
	}
	var path string
	run := &cobra.Command{
		Use: "run", Short: "Supervise until SIGTERM", Args: program.NoArguments,
		Example: "  # first start: the join token comes from `fleetctl node join-token`\n" +
			"  " + tokenVariable + "=efn1... edgesupervisor run --config /etc/edgefleet/edge.yaml\n\n" +
			"  # later starts need no token\n" +
			"  edgesupervisor run --config /etc/edgefleet/edge.yaml",
		RunE: func(cmd *cobra.Command, _ []string) error { return run(cmd.Context(), path) },
	}
	run.Flags().StringVar(&path, "config", "/etc/edgefleet/edge.yaml", "configuration file of the edge host")
	root.AddCommand(run)
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
	context.AfterFunc(ctx, stop) // a second one ends the supervisor at once, and a worker without drains at once
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
