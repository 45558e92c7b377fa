package supervise

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"syscall"
	"time"

	"github.com/edgefleet/edgefleet/edgenode/handoff"
)

const (
	// firstBackoff is the wait before a dead worker is started again; it doubles up to maxBackoff, and a worker that was
	// ready for healthyAfter starts it anew.
	firstBackoff = 100 * time.Millisecond
	maxBackoff   = 10 * time.Second
	healthyAfter = 60 * time.Second
	// readyTimeout is how long a worker may take to load what it serves.
	readyTimeout = 60 * time.Second
)

// workers runs one worker after the other on the same sockets.
type workers struct {
	path    string
	args    []string
	sockets []handoff.Socket
	// drain is how long a worker that is asked to stop may take.
	drain time.Duration
	// instance names this life of the supervisor.
	instance string
	log      *slog.Logger
}

// run keeps a worker running until ctx ends and the last one has drained.
func (w workers) run(ctx context.Context) {
	backoff := firstBackoff
	for ctx.Err() == nil {
		healthy := w.one(ctx)
		if ctx.Err() != nil {
			return
		}
		if healthy {
			backoff = firstBackoff
		}
		w.log.WarnContext(ctx, "worker is started again", "after", backoff)
		select {
		case <-ctx.Done():
		case <-time.After(backoff):
		}
		backoff = min(2*backoff, maxBackoff)
	}
}

// one runs one worker to its end and reports whether it had been ready for long.
func (w workers) one(ctx context.Context) bool {
	cmd := exec.Command(w.path, w.args...) // not CommandContext, which kills: a worker is asked to drain
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	// Its own process group: Ctrl-C in a terminal reaches the supervisor, which ends the worker in order.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	child, err := handoff.Start(cmd, w.sockets, w.instance)
	if err != nil {
		w.log.ErrorContext(ctx, "worker not started", "worker", w.path, "err", err)
		return false
	}
	log := w.log.With("pid", cmd.Process.Pid)
	log.InfoContext(ctx, "worker started", "worker", w.path)
	exited := make(chan error, 1)
	go func() { exited <- cmd.Wait() }()
	ready := make(chan error, 1)
	go func() { ready <- child.Ready() }()
	since, err := w.watch(ctx, cmd, ready, exited, log)
	if closed := child.Close(); closed != nil {
		log.DebugContext(ctx, "pipes not closed", "err", closed)
	}
	log.InfoContext(ctx, "worker ended", "err", err)
	return !since.IsZero() && time.Since(since) >= healthyAfter
}

var errNotReady = errors.New("the worker was not ready in time")

// watch follows one worker to its end. It returns when it became ready, and how it ended.
func (w workers) watch(ctx context.Context, cmd *exec.Cmd, ready, exited <-chan error, log *slog.Logger) (since time.Time, err error) {
	timeout := time.NewTimer(readyTimeout)
	defer timeout.Stop()
	for {
		select {
		case err := <-exited:
			return since, err
		case err := <-ready:
			ready = nil
			if err != nil {
				continue // it is about to end, or hangs until the timeout
			}
			since = time.Now()
			timeout.Stop()
			log.InfoContext(ctx, "worker is ready")
		case <-timeout.C:
			return since, errors.Join(errNotReady, cmd.Process.Kill(), <-exited)
		case <-ctx.Done():
			return since, w.stop(cmd, exited)
		}
	}
}

// stop asks the worker to drain, and kills it at the deadline.
func (w workers) stop(cmd *exec.Cmd, exited <-chan error) error {
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return errors.Join(err, cmd.Process.Kill(), <-exited)
	}
	select {
	case err := <-exited:
		return err
	case <-time.After(w.drain):
		return errors.Join(errors.New("the worker did not drain in time"), cmd.Process.Kill(), <-exited)
	}
}
