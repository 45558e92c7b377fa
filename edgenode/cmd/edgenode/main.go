// Command edgenode is the worker of an edge host: it terminates TLS, judges requests and forwards them to the customers'
// origins. edgesupervisor starts it and passes it its sockets.
package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/edgefleet/edgefleet/edgenode"
	"github.com/edgefleet/edgefleet/edgenode/handoff"
	"github.com/edgefleet/edgefleet/edgenode/identity"
	"github.com/edgefleet/edgefleet/edgenode/settings"
	"github.com/edgefleet/edgefleet/observability"
	"github.com/edgefleet/edgefleet/observability/program"
)

func main() { os.Exit(program.Execute(context.Background(), command())) }

func command() *cobra.Command {
	root := &cobra.Command{
		Use: "edgenode", Short: "Worker of an Edgefleet edge host",
		Long: "edgenode terminates TLS, judges requests and forwards them. It is started by edgesupervisor, which passes it its sockets.",
	}
	var path string
	run := &cobra.Command{
		Use: "run", Short: "Serve until the supervisor ends or SIGTERM", Args: program.NoArguments,
		Example: "  edgesupervisor run --config /etc/edgefleet/edge.yaml   # starts: edgenode run --config /etc/edgefleet/edge.yaml",
		RunE:    func(cmd *cobra.Command, _ []string) error { return run(cmd.Context(), path) },
	}
	run.Flags().StringVar(&path, "config", "/etc/edgefleet/edge.yaml", "configuration file of the edge host")
	root.AddCommand(run)
	return root
}

// run serves with inherited sockets. On SIGTERM and SIGINT it leaves DNS and drains; on a second one, and when the supervisor
// is gone, it drains at once.
func run(ctx context.Context, path string) error {
	inherited, err := handoff.Inherit()
	if err != nil {
		return err
	}
	s, err := settings.Load(path)
	if err != nil {
		return err
	}
	id, err := identity.Open(s.IdentityDir())
	if err != nil {
		return err
	}
	signal.Ignore(syscall.SIGHUP)
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGTERM, os.Interrupt)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := make(chan struct{})
	go func() { // ends with the process
		<-signals
		close(stop)
		<-signals
		cancel()
	}()
	go func() { // ends with the process, as the pipe does
		inherited.Orphaned()
		cancel()
	}()
	tel, err := observability.Setup(ctx, observability.Options{
		Service: "edgenode", Instance: string(id.Trust.Node), OTLPEndpoint: s.OTLPEndpoint, LogLevel: s.LogLevel, LogFormat: s.LogFormat,
	})
	if err != nil {
		return err
	}
	boot, err := newBoot()
	if err != nil {
		return err
	}
	err = edgenode.Run(ctx, edgenode.Options{
		Settings: s, Identity: id, HTTPS: inherited.Listeners[handoff.HTTPS], HTTP: inherited.Listeners[handoff.HTTP],
		Admin: inherited.Listeners[handoff.Admin], Boot: boot, Instance: inherited.Instance, Stop: stop, Ready: inherited.Ready, Telemetry: tel,
	})
	last, done := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer done()
	return errors.Join(err, tel.Shutdown(last))
}

// newBoot names this worker's life.
func newBoot() (string, error) {
	b := make([]byte, 8)
	if _, err := rand.Read(b); err != nil {
		return "", fmt.Errorf("name the boot: %w", err)
	}
	return hex.EncodeToString(b), nil
}
