// Command devfleet runs a whole fleet on one machine and plays its story; see package devfleet.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/edgefleet/edgefleet/deploy/devfleet"
	"github.com/edgefleet/edgefleet/fleet"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// A second signal ends this process at once, and the kernel ends its children with it.
	context.AfterFunc(ctx, stop)
	err := command().ExecuteContext(ctx)
	switch {
	case err == nil:
	case devfleet.Interrupted(err):
		os.Exit(fleet.ExitInterrupted)
	case errors.Is(err, devfleet.ErrStory):
		os.Exit(fleet.ExitFailure) // what happened was printed step by step
	default:
		fmt.Fprintln(os.Stderr, "devfleet:", err)
		os.Exit(fleet.KindOf(err).Exit)
	}
}
