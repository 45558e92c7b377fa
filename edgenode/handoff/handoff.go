// Package handoff passes listening sockets from the supervisor to the workers that it starts, with two pipes: on one the
// worker says that it is ready, the other ends when the supervisor dies.
//
// It owns the order of the file descriptors and the environment variable that names them. The supervisor's own
// descriptors stay open, so that connections queue in the kernel while no worker runs.
package handoff

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"

	"github.com/edgefleet/edgefleet/fleet"
)

// The names of the sockets.
const (
	HTTPS = "https"
	HTTP  = "http"
	Admin = "admin"
)

// variable lists the names of the sockets in the order of descriptors, the first of which is firstFD. The ready pipe and
// the life pipe follow.
const (
	variable = "EDGEFLEET_SOCKETS"
	firstFD  = 3
)

// instanceVariable names the supervisor's life.
const instanceVariable = "EDGEFLEET_INSTANCE"

// readyLine is what a worker writes when it accepts connections.
const readyLine = "ready\n"

// Socket is a named listener that the supervisor holds.
type Socket struct {
	Name string
	File *os.File
}

// Child is the supervisor's side of one started worker.
type Child struct {
	ready, life *os.File
}

// Start starts cmd with the sockets, the two pipes, and the name of the supervisor's life. The caller waits for cmd and then calls Close.
func Start(cmd *exec.Cmd, sockets []Socket, instance string) (*Child, error) {
	readyR, readyW, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("make ready pipe: %w", err)
	}
	lifeR, lifeW, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("make life pipe: %w", errors.Join(err, readyR.Close(), readyW.Close()))
	}
	names := make([]string, 0, len(sockets))
	for _, s := range sockets {
		names = append(names, s.Name)
		cmd.ExtraFiles = append(cmd.ExtraFiles, s.File)
	}
	cmd.ExtraFiles = append(cmd.ExtraFiles, readyW, lifeR)
	if cmd.Env == nil {
		cmd.Env = os.Environ()
	}
	cmd.Env = append(cmd.Env, variable+"="+strings.Join(names, ","), instanceVariable+"="+instance)
	err = cmd.Start()
	for _, s := range sockets {
		// Passing a file sets its description to blocking, which workers share: a worker that runs already would hang in accept.
		err = errors.Join(err, syscall.SetNonblock(int(s.File.Fd()), true))
	}
	closed := errors.Join(readyW.Close(), lifeR.Close())
	if err = errors.Join(err, closed); err != nil {
		return nil, errors.Join(err, readyR.Close(), lifeW.Close())
	}
	return &Child{ready: readyR, life: lifeW}, nil
}

// Ready waits until the worker is ready: nil when it said so, io.EOF when it ended or closed the pipe without.
func (c *Child) Ready() error {
	line, err := bufio.NewReader(io.LimitReader(c.ready, 64)).ReadString('\n')
	if line == readyLine {
		return nil
	}
	if err == nil {
		return fleet.Invalid("ready", "the worker wrote %q instead of ready", line)
	}
	return err
}

// Close releases the pipes; a worker that still runs drains and exits.
func (c *Child) Close() error { return errors.Join(c.ready.Close(), c.life.Close()) }

// Worker is the worker's side.
type Worker struct {
	// Listeners are the inherited sockets by name.
	Listeners map[string]net.Listener
	// Instance names the supervisor's life.
	Instance string

	ready, life *os.File
}

// Inherit takes over what the supervisor passed; ErrInvalid when this process was not started by one.
func Inherit() (*Worker, error) {
	names, ok := os.LookupEnv(variable)
	if !ok {
		return nil, fleet.Invalid("supervisor", "edgenode is started by edgesupervisor, which passes it its sockets: run edgesupervisor")
	}
	w := &Worker{Listeners: map[string]net.Listener{}, Instance: os.Getenv(instanceVariable)}
	if err := errors.Join(os.Unsetenv(variable), os.Unsetenv(instanceVariable)); err != nil {
		return nil, fmt.Errorf("inherit sockets: %w", err)
	}
	fd := uintptr(firstFD)
	for name := range strings.SplitSeq(names, ",") {
		f := inherited(fd, name)
		fd++
		l, err := net.FileListener(f)
		if err = errors.Join(err, f.Close()); err != nil {
			return nil, fmt.Errorf("inherit socket %s: %w", name, err)
		}
		w.Listeners[name] = l
	}
	w.ready, w.life = inherited(fd, "ready"), inherited(fd+1, "life")
	return w, nil
}

// inherited keeps the descriptor from the worker's own children.
func inherited(fd uintptr, name string) *os.File {
	syscall.CloseOnExec(int(fd))
	return os.NewFile(fd, name)
}

// Ready tells the supervisor that the worker accepts connections. It is called once.
func (w *Worker) Ready() error {
	_, err := w.ready.WriteString(readyLine)
	if err = errors.Join(err, w.ready.Close()); err != nil {
		return fmt.Errorf("report ready: %w", err)
	}
	return nil
}

// Orphaned blocks until the supervisor is gone.
func (w *Worker) Orphaned() {
	_, _ = io.Copy(io.Discard, w.life)
}
