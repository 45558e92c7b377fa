// Command loadtest runs load scenarios against the real programs and holds what they count against bounds.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/edgefleet/edgefleet/observability/program"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// A second signal ends this process at once, and the kernel ends its children with it.
	context.AfterFunc(ctx, stop)
	os.Exit(program.Execute(ctx, command()))
}
