// Package harness is what every load scenario stands on: child processes that never outlive the test, a directory,
// loopback addresses, closed loops of workers with their latencies, and clusters of members.
//
// It owns no scenario and no bound. Everything it starts ends with Close, with a signal, with a panic, and with the
// death of this process; the directory stays only if it is asked to.
package harness

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/edgefleet/edgefleet/fleet"
)

// Options say how a scenario is run.
type Options struct {
	// Dir is where the data is kept; a directory is made in it and removed at the end. Default: the system's.
	Dir string
	// Binaries is the directory of the project's binaries; default: that of this program.
	Binaries string
	// Short asks for an end within 50 seconds.
	Short bool
	// Smoke makes everything as small as it gets: it shows that the scenario works, and its numbers mean nothing.
	Smoke bool
	// Only names the parts to run; empty means all.
	Only []string
	// Keep leaves the directory behind.
	Keep bool
	// Profile is a directory for CPU profiles of members and nodes under load; empty takes none.
	Profile string
	// Progress takes lines for people.
	Progress io.Writer
}

// Env is the surroundings of one run.
type Env struct {
	Options
	processes *processes
	began     time.Time
	ends      sync.Once

	mu    sync.Mutex
	hosts int
	base  string
}

// Open makes the directory.
func Open(o Options) (*Env, error) {
	if o.Binaries == "" {
		self, err := os.Executable()
		if err != nil {
			return nil, fmt.Errorf("find this program: %w", err)
		}
		o.Binaries = filepath.Dir(self)
	}
	if o.Progress == nil {
		o.Progress = io.Discard
	}
	dir, err := os.MkdirTemp(o.Dir, "edgefleet-loadtest-")
	if err != nil {
		return nil, fleet.Invalid("dir", "cannot make a directory for the data: %v: give another --dir", err)
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return nil, fmt.Errorf("find the directory: %w", err)
	}
	o.Dir = dir
	return &Env{Options: o, processes: newProcesses(), began: time.Now()}, nil
}

// Close ends every process and removes the directory.
func (e *Env) Close() (err error) {
	e.ends.Do(func() {
		e.processes.end()
		if !e.Keep {
			err = os.RemoveAll(e.Dir)
		}
	})
	return err
}

// Say reports progress.
func (e *Env) Say(format string, args ...any) {
	_, _ = fmt.Fprintf(e.Progress, "%6.1fs  %s\n", time.Since(e.began).Seconds(), fmt.Sprintf(format, args...))
}

// Wants says whether a part is to be run.
func (e *Env) Wants(part string) bool { return len(e.Only) == 0 || slices.Contains(e.Only, part) }

// Pick is the value for a full run, for a short one, or for one that only shows that the scenario works.
func Pick[T any](e *Env, full, short, smoke T) T {
	switch {
	case e.Smoke:
		return smoke
	case e.Short:
		return short
	}
	return full
}

// Binary is the path of one of the project's programs.
func (e *Env) Binary(name string) (string, error) {
	path := filepath.Join(e.Binaries, name)
	if _, err := os.Stat(path); err != nil {
		return "", fleet.NewError(fleet.ErrNotFound, "binaries", "%s is not there: run 'make load', or 'make build %s', or give --binaries", path, name)
	}
	return path, nil
}

// Host returns a loopback address of its own, at which no port is in use: 127.x.y.z with random x and y.
func (e *Env) Host() (string, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for range 100 {
		if e.base == "" {
			var b [2]byte
			if _, err := rand.Read(b[:]); err != nil {
				return "", fmt.Errorf("choose an address: %w", err)
			}
			e.base, e.hosts = fmt.Sprintf("127.%d.%d.", 64+b[0]%128, b[1]), 0
		}
		e.hosts++
		if e.hosts > 250 {
			e.base = ""
			continue
		}
		ip := e.base + fmt.Sprint(e.hosts)
		// One of a member's ports tells whether another test has the address.
		ln, err := net.Listen("tcp", net.JoinHostPort(ip, "8440"))
		if errors.Is(err, syscall.EADDRINUSE) {
			e.base = ""
			continue
		}
		if err != nil {
			return "", fmt.Errorf("use loopback address %s: %w", ip, err)
		}
		return ip, ln.Close()
	}
	return "", fleet.NewError(fleet.ErrConflict, "address", "no free loopback address was found in a hundred tries")
}

// Until calls try until it succeeds, ctx ends, or the time is over; then its last error is returned.
func Until(ctx context.Context, limit, pause time.Duration, try func(ctx context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	tick := time.NewTicker(pause)
	defer tick.Stop()
	for {
		err := try(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			if errors.Is(context.Cause(ctx), context.Canceled) {
				return context.Canceled
			}
			return fmt.Errorf("%w: not within %s: %w", fleet.ErrTimeout, limit, err)
		case <-tick.C:
		}
	}
}

// write makes a file with mode 0600 and the directories above it.
func write(path string, b []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	return os.WriteFile(path, b, 0o600)
}

// WriteFile makes a file below the directory and returns its path.
func (e *Env) WriteFile(name string, b []byte) (string, error) {
	path := filepath.Join(e.Dir, name)
	if err := write(path, b); err != nil {
		return "", fmt.Errorf("write %s: %w", name, err)
	}
	return path, nil
}

func trimmed(b []byte) string { return strings.TrimSpace(string(b)) }
