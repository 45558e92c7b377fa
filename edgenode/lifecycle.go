package edgenode

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
)

// lifecycle starts the parts of a worker and stops them in reverse order. The first part that fails ends all.
type lifecycle struct {
	log *slog.Logger
	// failed ends the worker with a cause.
	failed context.CancelCauseFunc
	stops  []stop
}

type stop struct {
	name string
	run  func(ctx context.Context) error
}

// onStop registers what is done at the end, before everything that was registered earlier.
func (l *lifecycle) onStop(name string, run func(ctx context.Context) error) {
	l.stops = append(l.stops, stop{name, run})
}

// start runs a part until its turn to stop comes; it outlives ctx, which only ends the worker's wait.
func (l *lifecycle) start(ctx context.Context, name string, run func(ctx context.Context) error) {
	own, cancel := context.WithCancel(context.WithoutCancel(ctx))
	done := make(chan error, 1)
	go func() {
		err := run(own)
		if err != nil {
			l.failed(fmt.Errorf("%s: %w", name, err))
		}
		done <- err
	}()
	l.onStop(name, func(ctx context.Context) error {
		cancel()
		select {
		case err := <-done:
			return err
		case <-ctx.Done():
			return errors.New("did not stop in time")
		}
	})
}

// stop runs everything registered, the last first. A part that fails to stop does not keep the others from it.
func (l *lifecycle) stop(ctx context.Context) {
	for _, s := range slices.Backward(l.stops) {
		if err := s.run(ctx); err != nil {
			l.log.WarnContext(ctx, "part did not stop cleanly", "part", s.name, "err", err)
		}
	}
	l.stops = nil
}
