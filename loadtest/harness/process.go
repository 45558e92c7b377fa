package harness

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"time"

	"github.com/edgefleet/edgefleet/fleet"
)

// stopGrace is how long a process may take to end after SIGTERM.
const stopGrace = 20 * time.Second

// patience is the priority (nice) of what is patient: others get nine times its share of a processor, and before it.
const patience = "10"

// processes starts children from one operating-system thread that lives until end: the kernel ties a parent-death signal
// to the thread that forked. When this process dies, however it does, its children die with it.
type processes struct {
	requests chan startRequest
	done     chan struct{}

	mu   sync.Mutex
	live map[*Process]bool
}

type startRequest struct {
	cmd    *exec.Cmd
	result chan error
}

func newProcesses() *processes {
	p := &processes{requests: make(chan startRequest), done: make(chan struct{}), live: map[*Process]bool{}}
	go p.run()
	return p
}

// run never unlocks its thread, so that the thread ends with it and takes forgotten children along.
func (p *processes) run() {
	runtime.LockOSThread()
	defer close(p.done)
	for r := range p.requests {
		r.result <- r.cmd.Start()
	}
}

// end kills what still runs and waits for it.
func (p *processes) end() {
	p.mu.Lock()
	var left []*Process
	for q := range p.live {
		left = append(left, q)
	}
	p.mu.Unlock()
	for _, q := range left {
		q.Kill()
	}
	close(p.requests)
	<-p.done
}

// Process is one running child.
type Process struct {
	Name string

	group *processes
	cmd   *exec.Cmd
	log   string
	ended chan struct{}
	err   error
}

// Command describes a child.
type Command struct {
	// Name is for people and names the log file.
	Name string
	Path string
	Args []string
	Env  []string
	// Patient leaves the processors to the others that want them.
	Patient bool
	// Stdin and Stdout replace nothing and the log; standard error always goes to the log.
	Stdin  *os.File
	Stdout *os.File
}

// Start starts a child in the environment's directory. It dies with this process.
func (e *Env) Start(c Command) (*Process, error) {
	path := filepath.Join(e.Dir, c.Name+".log")
	log, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open log of %s: %w", c.Name, err)
	}
	defer func() { _ = log.Close() }()
	cmd := exec.Command(c.Path, c.Args...)
	if c.Patient {
		cmd = exec.Command("nice", append([]string{"-n", patience, c.Path}, c.Args...)...) // which becomes the program itself
	}
	cmd.Dir, cmd.Env = e.Dir, append(os.Environ(), c.Env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.Stderr = log
	cmd.Stdout = log
	if c.Stdin != nil {
		cmd.Stdin = c.Stdin
	}
	if c.Stdout != nil {
		cmd.Stdout = c.Stdout
	}
	r := startRequest{cmd, make(chan error, 1)}
	e.processes.requests <- r
	if err := <-r.result; err != nil {
		return nil, fmt.Errorf("start %s: %w", c.Name, err)
	}
	p := &Process{Name: c.Name, group: e.processes, cmd: cmd, log: path, ended: make(chan struct{})}
	e.processes.mu.Lock()
	e.processes.live[p] = true
	e.processes.mu.Unlock()
	go p.wait()
	return p, nil
}

func (p *Process) wait() {
	p.err = p.cmd.Wait()
	p.group.mu.Lock()
	delete(p.group.live, p)
	p.group.mu.Unlock()
	close(p.ended)
}

// Ended is closed when the process has ended.
func (p *Process) Ended() <-chan struct{} { return p.ended }

// PID is the process id.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Kill sends SIGKILL and waits for the end. One that has ended is left alone.
func (p *Process) Kill() {
	_ = p.cmd.Process.Kill() // it ended already
	<-p.ended
}

// Stop asks the process to end and kills it if it does not in time. One that has ended well is left alone.
func (p *Process) Stop() error {
	select {
	case <-p.ended:
		if p.err != nil {
			return p.failed(p.err)
		}
		return nil
	default:
	}
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("stop %s: %w", p.Name, err)
	}
	timer := time.NewTimer(stopGrace)
	defer timer.Stop()
	select {
	case <-p.ended:
		return nil
	case <-timer.C:
		p.Kill()
		return fleet.NewError(fleet.ErrTimeout, "process", "%s did not stop within %s and was killed; %s", p.Name, stopGrace, p.Tail())
	}
}

// Alive is an error once the process has ended.
func (p *Process) Alive() error {
	select {
	case <-p.ended:
		return p.failed(p.err)
	default:
		return nil
	}
}

func (p *Process) failed(err error) error {
	return fleet.NewError(fleet.ErrUnavailable, "process", "%s ended by itself (%v); %s", p.Name, err, p.Tail())
}

// Tail is the end of the log, for messages.
func (p *Process) Tail() string {
	b, err := os.ReadFile(p.log)
	if err != nil {
		return "its log cannot be read"
	}
	const most = 2000
	return "its log ends: " + string(b[max(0, len(b)-most):])
}

// Tool runs a program to its end and returns what it wrote to standard output.
func (e *Env) Tool(ctx context.Context, name, path string, args ...string) ([]byte, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("make a pipe for %s: %w", name, err)
	}
	defer func() { _ = r.Close() }()
	p, err := e.Start(Command{Name: name, Path: path, Args: args, Stdout: w})
	_ = w.Close() // the child has its own copy
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, p.Kill)
	defer stop()
	out, err := io.ReadAll(io.LimitReader(r, 16<<20))
	<-p.ended
	switch {
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case p.err != nil:
		return nil, p.failed(p.err)
	case err != nil:
		return nil, fmt.Errorf("read the output of %s: %w", name, err)
	}
	return out, nil
}
