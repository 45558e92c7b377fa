package devfleet

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/edgefleet/edgefleet/fleet"
)

// ProcessState is what a process of the fleet does.
type ProcessState string

// The states of a process.
const (
	// Stopped: not started, or ended because it was asked to.
	Stopped ProcessState = "stopped"
	// Running: started and not seen to end.
	Running ProcessState = "running"
	// Paused: stopped by SIGSTOP, with its children.
	Paused ProcessState = "paused"
	// Crashed: it ended although nobody asked it to.
	Crashed ProcessState = "crashed"
)

// stopGrace is how long a process may take to end after SIGTERM.
const stopGrace = 10 * time.Second

// process is one supervised child. It is started in its own process group, dies with this process, and writes
// its output to a file that is kept across restarts.
type process struct {
	name string
	path string
	args []string
	env  []string
	log  string
	// quiet leaves what it writes to its standard output out of the log.
	quiet bool

	launcher *launcher

	mu     sync.Mutex
	state  ProcessState
	pid    int
	exit   error
	ended  chan struct{}
	asked  bool
	family []procID
}

// start starts the process; one that runs already is ErrConflict.
func (p *process) start() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.state == Running || p.state == Paused {
		return fleet.NewError(fleet.ErrConflict, "name", "%s is already %s (pid %d)", p.name, p.state, p.pid)
	}
	log, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("open log of %s: %w", p.name, err)
	}
	defer func() { _ = log.Close() }()
	cmd := command(p.path, p.args, p.env)
	cmd.Stderr = log
	if !p.quiet {
		cmd.Stdout = log
	}
	if err := p.launcher.start(cmd); err != nil {
		return fmt.Errorf("start %s: %w", p.name, err)
	}
	p.state, p.pid, p.exit, p.asked, p.ended = Running, cmd.Process.Pid, nil, false, make(chan struct{})
	go p.wait(cmd, p.ended)
	return nil
}

// command prepares a child that dies with this process and is in a process group of its own.
func command(path string, args, env []string) *exec.Cmd {
	cmd := exec.Command(path, args...)
	cmd.Env = append(os.Environ(), env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	return cmd
}

func (p *process) wait(cmd *exec.Cmd, ended chan struct{}) {
	err := cmd.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.exit, p.state = err, Stopped
	if !p.asked {
		p.state = Crashed
	}
	close(ended)
}

// signalFamily sends sig to the process and to everything it started. Parents come first, so that a paused
// parent cannot start another child meanwhile.
func (p *process) signalFamily(sig syscall.Signal) error {
	if err := syscall.Kill(p.pid, sig); err != nil {
		return fmt.Errorf("signal %s: %w", p.name, err)
	}
	for _, d := range descendants(p.pid) {
		if err := syscall.Kill(d.pid, sig); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("signal child %d of %s: %w", d.pid, p.name, err)
		}
	}
	return nil
}

// live returns an error unless the process is in one of the wanted states.
func (p *process) live(verb string, want ...ProcessState) error {
	if slices.Contains(want, p.state) {
		return nil
	}
	return fleet.NewError(fleet.ErrConflict, "name", "cannot %s %s: it is %s", verb, p.name, p.state)
}

func (p *process) pause() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.live("pause", Running); err != nil {
		return err
	}
	p.state = Paused
	return p.signalFamily(syscall.SIGSTOP)
}

func (p *process) resume() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.live("resume", Paused); err != nil {
		return err
	}
	p.state = Running
	return p.signalFamily(syscall.SIGCONT)
}

// kill sends SIGKILL to the process alone and waits until its children are gone too: they must notice by
// themselves. A child that outlives its parent is an error.
func (p *process) kill(ctx context.Context) error {
	ended, err := p.terminate("kill", syscall.SIGKILL)
	if err != nil {
		return err
	}
	<-ended
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	return poll(ctx, 10*time.Millisecond, func(context.Context) error { return p.childrenGone() })
}

// stop asks the process to end and kills it, with its children, when it does not within the grace time.
// Stopping what does not run does nothing.
func (p *process) stop(ctx context.Context, grace time.Duration) error {
	ended, err := p.terminate("stop", syscall.SIGTERM)
	if errors.Is(err, fleet.ErrConflict) {
		return nil
	}
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, grace)
	defer cancel()
	select {
	case <-ended:
		if poll(ctx, 10*time.Millisecond, func(context.Context) error { return p.childrenGone() }) == nil {
			return nil
		}
	case <-ctx.Done():
	}
	for _, c := range p.withChildren() {
		if err := syscall.Kill(c.pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("kill pid %d of %s: %w", c.pid, p.name, err)
		}
	}
	<-ended
	return fleet.NewError(fleet.ErrTimeout, "process", "%s did not stop within %s and was killed", p.name, grace)
}

// terminate notes that the end is wanted, remembers the children, wakes what is paused and sends sig.
func (p *process) terminate(verb string, sig syscall.Signal) (<-chan struct{}, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.live(verb, Running, Paused); err != nil {
		return nil, err
	}
	p.asked, p.family = true, descendants(p.pid)
	if err := syscall.Kill(p.pid, sig); err != nil && !errors.Is(err, syscall.ESRCH) {
		return nil, fmt.Errorf("%s %s: %w", verb, p.name, err)
	}
	if p.state == Paused {
		// A stopped child could not see that its parent is gone.
		for _, c := range append([]procID{{pid: p.pid}}, p.family...) {
			if err := syscall.Kill(c.pid, syscall.SIGCONT); err != nil && !errors.Is(err, syscall.ESRCH) {
				return nil, fmt.Errorf("resume pid %d of %s: %w", c.pid, p.name, err)
			}
		}
	}
	return p.ended, nil
}

func (p *process) childrenGone() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.family {
		if c.alive() {
			return fleet.NewError(fleet.ErrConflict, "process", "child %d outlives %s", c.pid, p.name)
		}
	}
	return nil
}

// withChildren lists what is alive of the process and the children it had when its end was asked for.
func (p *process) withChildren() []procID {
	p.mu.Lock()
	defer p.mu.Unlock()
	var left []procID
	all := append([]procID{}, p.family...)
	if s, ok := readStat(p.pid); ok && p.state == Running || ok && p.state == Paused {
		all = append(all, s.procID)
	}
	for _, c := range all {
		if c.alive() {
			left = append(left, c)
		}
	}
	return left
}

// ProcessStatus is one line of devfleet status.
type ProcessStatus struct {
	Name  string       `json:"name"`
	State ProcessState `json:"state"`
	PID   int          `json:"pid,omitempty"`
	// Exit says how the process ended last.
	Exit string `json:"exit,omitempty"`
}

func (p *process) status() ProcessStatus {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := ProcessStatus{Name: p.name, State: p.state}
	if p.state == Running || p.state == Paused {
		s.PID = p.pid
	}
	if p.exit != nil {
		s.Exit = p.exit.Error()
	}
	return s
}
