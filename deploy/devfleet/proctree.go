package devfleet

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/edgefleet/edgefleet/fleet"
)

// envID is in the environment of every process of a fleet, children of children included.
const envID = "DEVFLEET_ID"

// procID names one process for ever: pids are used again, a pid with its start time is not.
type procID struct {
	pid   int
	start string
}

type procStat struct {
	procID
	state  byte
	parent int
	comm   string
}

// readStat reads /proc/<pid>/stat (proc(5)); the command may hold spaces and parentheses, so fields count from the last ')'.
func readStat(pid int) (procStat, bool) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return procStat{}, false
	}
	open, end := bytes.IndexByte(b, '('), bytes.LastIndexByte(b, ')')
	if open < 0 || end < open {
		return procStat{}, false
	}
	f := strings.Fields(string(b[end+1:]))
	if len(f) < 20 {
		return procStat{}, false
	}
	parent, err := strconv.Atoi(f[1])
	if err != nil {
		return procStat{}, false
	}
	return procStat{procID{pid, f[19]}, f[0][0], parent, string(b[open+1 : end])}, true
}

// alive reports whether the process still runs; a zombie does not.
func (p procID) alive() bool {
	s, ok := readStat(p.pid)
	return ok && s.start == p.start && s.state != 'Z' && s.state != 'X'
}

func processes() []procStat {
	dirs, _ := filepath.Glob("/proc/[0-9]*") // the pattern is constant, so there is no error to handle
	ps := make([]procStat, 0, len(dirs))
	for _, d := range dirs {
		pid, err := strconv.Atoi(filepath.Base(d))
		if err != nil {
			continue
		}
		if s, ok := readStat(pid); ok {
			ps = append(ps, s)
		}
	}
	return ps
}

// descendants lists the living children of pid, their children, and so on; parents come before their children.
func descendants(pid int) []procID {
	children := map[int][]procStat{}
	for _, p := range processes() {
		children[p.parent] = append(children[p.parent], p)
	}
	var found []procID
	for queue := []int{pid}; len(queue) > 0; queue = queue[1:] {
		for _, c := range children[queue[0]] {
			if c.state != 'Z' {
				found = append(found, c.procID)
			}
			queue = append(queue, c.pid)
		}
	}
	return found
}

// marked lists the living processes that carry the fleet's id in their environment.
func marked(id string) []procStat {
	if id == "" {
		return nil
	}
	var found []procStat
	for _, p := range processes() {
		env, err := os.ReadFile("/proc/" + strconv.Itoa(p.pid) + "/environ")
		if err != nil || p.state == 'Z' || p.pid == os.Getpid() {
			continue
		}
		for kv := range bytes.SplitSeq(env, []byte{0}) {
			if string(kv) == envID+"="+id {
				found = append(found, p)
			}
		}
	}
	return found
}

// killMarked ends what a killed fleet may have left behind, and waits until it is gone.
func killMarked(ctx context.Context, id string) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	return poll(ctx, 20*time.Millisecond, func(context.Context) error {
		left := marked(id)
		for _, p := range left {
			if err := syscall.Kill(p.pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
				return fmt.Errorf("kill %s (pid %d): %w", p.comm, p.pid, err)
			}
		}
		return leftError(left)
	})
}

func leftError(left []procStat) error {
	if len(left) == 0 {
		return nil
	}
	names := make([]string, 0, len(left))
	for _, p := range left {
		names = append(names, fmt.Sprintf("%s (pid %d)", p.comm, p.pid))
	}
	return fleet.NewError(fleet.ErrConflict, "process", "still running: %s", strings.Join(names, ", "))
}

// fatalError ends a poll at once: waiting longer cannot help.
type fatalError struct{ err error }

func (e *fatalError) Error() string { return e.err.Error() }
func (e *fatalError) Unwrap() error { return e.err }

// poll calls check until it returns nil; when ctx ends first, the error is the last that check returned.
func poll(ctx context.Context, every time.Duration, check func(context.Context) error) error {
	tick := time.NewTicker(every)
	defer tick.Stop()
	var last error
	for {
		err := check(ctx)
		if err == nil {
			return nil
		}
		// A check that was itself cut off says less than the one before it.
		if last == nil || ctx.Err() == nil {
			last = err
		}
		if fatal, ok := errors.AsType[*fatalError](err); ok {
			return fatal.err
		}
		select {
		case <-ctx.Done():
			return last
		case <-tick.C:
		}
	}
}
