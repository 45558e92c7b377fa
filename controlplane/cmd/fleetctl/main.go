// Command fleetctl is the command line of Edgefleet, for its operators and its customers. It owns nothing but reading
// arguments, calling the API and printing: package cli does all of it. Without the control plane it says so and exits 1.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/edgefleet/edgefleet/controlplane/cmd/fleetctl/cli"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := cli.Run(ctx, cli.Options{
		Args: os.Args[1:], In: os.Stdin, Out: os.Stdout, Err: os.Stderr, Getenv: os.Getenv, Now: time.Now,
	})
	stop()
	os.Exit(code)
}
