// Package lifecycle starts the parts of a process and stops them in reverse order.
//
// It owns order and deadlines, not what parts do. The first part that fails ends the process with its error as the
// cause; a part that does not stop in time does not keep the others from stopping.
package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
)

// Group is the parts of a process.
type Group struct {
	log    *slog.Logger
	failed context.CancelCauseFunc
	stops  []stop
}

type stop struct {
	name string
	run  func(ctx context.Context) error
}

// New returns a group and a context that ends, with the cause, when ctx does or when a part fails.
func New(ctx context.Context, log *slog.Logger) (*Group, context.Context) {
	ctx, failed := context.WithCancelCause(ctx)
	return &Group{log: log, failed: failed}, ctx
}

// OnStop registers what is done at the end, before everything that was registered earlier.
func (g *Group) OnStop(name string, run func(ctx context.Context) error) {
	g.stops = append(g.stops, stop{name, run})
}

// Start runs a part until its turn to stop comes; it outlives ctx, of which it keeps the values only.
func (g *Group) Start(ctx context.Context, name string, run func(ctx context.Context) error) {
	own, cancel := context.WithCancel(context.WithoutCancel(ctx))
	done := make(chan error, 1)
	go func() {
		err := run(own)
		if err != nil {
			g.failed(fmt.Errorf("%s: %w", name, err))
		}
		done <- err
	}()
	g.OnStop(name, func(ctx context.Context) error {
		cancel()
		select {
		case err := <-done:
			return err
		case <-ctx.Done():
			return errors.New("did not stop in time")
		}
	})
}

// Stop runs everything registered, the last first, within ctx.
func (g *Group) Stop(ctx context.Context) {
	for _, s := range slices.Backward(g.stops) {
		if err := s.run(ctx); err != nil {
			g.log.WarnContext(ctx, "part did not stop cleanly", "part", s.name, "err", err)
		}
	}
	g.stops = nil
	g.failed(nil)
}
