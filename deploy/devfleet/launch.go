package devfleet

import (
	"os/exec"
	"runtime"
)

// launcher starts child processes from one operating-system thread that lives until close. The kernel ties a
// parent-death signal to the thread that forked, not to the process: a child forked from a thread that the Go
// runtime later ends would be killed for no reason.
type launcher struct {
	requests chan launchRequest
	done     chan struct{}
}

type launchRequest struct {
	cmd    *exec.Cmd
	result chan error
}

func newLauncher() *launcher {
	l := &launcher{requests: make(chan launchRequest), done: make(chan struct{})}
	go l.run()
	return l
}

// run never unlocks its thread, so that the thread ends with it and takes forgotten children along.
func (l *launcher) run() {
	runtime.LockOSThread()
	defer close(l.done)
	for r := range l.requests {
		r.result <- r.cmd.Start()
	}
}

func (l *launcher) start(cmd *exec.Cmd) error {
	r := launchRequest{cmd, make(chan error, 1)}
	l.requests <- r
	return <-r.result
}

// close ends the thread. Children that still run are killed by it.
func (l *launcher) close() {
	close(l.requests)
	<-l.done
}
