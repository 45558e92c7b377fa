// Package devfleet runs a whole fleet on one machine as real processes on 127.0.0.0/8, and plays the story that a
// new operator would: enrol nodes, add a host, get a certificate, block an attack, lose members.
//
// It owns the processes, their directory and the outside world that a fleet needs (the customer's DNS, an origin,
// an ACME CA). It knows the other binaries by their command lines, configuration files and public API only. It is
// not for production: keys and tokens lie in its directory. When it ends, by any signal, so does every process.
package devfleet

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/edgefleet/edgefleet/fleet"
	"golang.org/x/sync/errgroup"
)

// Fleet is a running fleet.
type Fleet struct {
	opts     Options
	layout   layout
	dir      *workdir
	launcher *launcher
	dns      *customerDNS
	// processes are in the order in which they are started for the first time.
	processes []*process
}

// ErrStory means that the story did not hold; what happened was printed.
var ErrStory = errors.New("the story did not hold")

// Up starts a fleet and plays the story. It returns when the fleet was stopped: after the story with o.Once, else
// when ctx ends. The error wraps ErrStory when a step failed.
func Up(ctx context.Context, o Options) (err error) {
	o, err = o.withDefaults()
	if err != nil {
		return err
	}
	dir, err := openWorkdir(ctx, o.Dir, o.Out)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, dir.Close()) }()
	l := layout{o.Block, o.Members, o.Nodes}
	if err := checkPorts(ctx, l.listeners()); err != nil {
		return errors.Join(err, dir.remove())
	}
	f, err := newFleet(o, l, dir)
	if err != nil {
		return err
	}
	if err := f.removeReadyFile(); err != nil {
		return err
	}
	runErr := f.run(ctx)
	if err := f.removeReadyFile(); err != nil {
		return err
	}
	if runErr == nil && !o.Keep {
		return dir.remove()
	}
	f.say("logs and data are kept in %s", dir.path)
	return runErr
}

func newFleet(o Options, l layout, dir *workdir) (*Fleet, error) {
	f := &Fleet{opts: o, layout: l, dir: dir, launcher: newLauncher()}
	var err error
	if f.dns, err = newCustomerDNS(string(Zone), l.allMembers(portDNS)); err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find own executable: %w", err)
	}
	files := dir.pebbleFiles()
	f.add("origin", self, []string{"origin", "--listen", l.origin()}, nil)
	f.add("pebble", f.binary(binPebble), []string{"-config", files.config, "-dnsserver", l.customerDNS()}, pebbleEnv)
	for i := 1; i <= l.members; i++ {
		f.add(memberName(i), f.binary(binControlPlane), []string{"run", "--config", f.configFile(memberName(i))}, nil)
	}
	for i := 1; i <= l.nodes; i++ {
		f.add(nodeName(i), f.binary(binSupervisor), []string{"run", "--config", f.configFile(nodeName(i))}, nil)
	}
	return f, nil
}

func (f *Fleet) binary(name string) string { return filepath.Join(f.opts.Binaries, name) }

func (f *Fleet) add(name, path string, args, env []string) {
	f.processes = append(f.processes, f.newProcess(name, path, args, env))
}

func (f *Fleet) newProcess(name, path string, args, env []string) *process {
	return &process{name: name, path: path, args: args, env: append([]string{envID + "=" + f.dir.id}, env...), log: f.dir.log(name), launcher: f.launcher, state: Stopped}
}

// run plays the story while DNS and control socket serve, and stops everything in reverse order.
func (f *Fleet) run(ctx context.Context) error {
	// The services outlive ctx: processes need DNS until they have stopped.
	services, stopServices := context.WithCancel(context.WithoutCancel(ctx))
	defer stopServices()
	g, services := errgroup.WithContext(services)
	// A service that fails ends the story too.
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	context.AfterFunc(services, func() { cancel(context.Cause(services)) })
	ready := make(chan struct{})
	g.Go(func() error { return f.dns.run(services, f.layout.customerDNS(), func() { close(ready) }) })
	g.Go(func() error { return f.serveControl(services) })

	var err error
	select {
	case <-ready:
		err = f.play(ctx)
	case <-services.Done():
	}
	begin := time.Now()
	stopErr := f.stopAll(context.WithoutCancel(ctx))
	f.report("every process stopped, none left", time.Since(begin), "", stopErr)
	err = errors.Join(err, stopErr)
	stopServices()
	err = errors.Join(err, g.Wait())
	f.launcher.close()
	return err
}

// report prints the line of one step, and what was seen when it failed.
func (f *Fleet) report(name string, took time.Duration, note string, err error) {
	mark := "✓"
	if err != nil {
		mark = "✗"
	}
	f.say("%s %-50s %6.1fs  %s", mark, name, took.Seconds(), note)
	if err != nil {
		f.say("  what was seen: %s", strings.ReplaceAll(err.Error(), "\n", "\n    "))
	}
}

func (f *Fleet) say(format string, args ...any) {
	_, _ = fmt.Fprintln(f.opts.Out, strings.TrimRight(fmt.Sprintf(format, args...), " "))
}

// play runs the story and, unless once, leaves the fleet running until ctx ends.
func (f *Fleet) play(ctx context.Context) error {
	s := newStory(f)
	err := s.run(ctx, s.steps())
	if f.opts.Once || ctx.Err() != nil {
		return err
	}
	if err != nil {
		f.say("\nthe fleet is left running so that you can look at it; Ctrl-C stops it")
	} else {
		s.printNext()
	}
	<-ctx.Done()
	return err
}

// stopAll stops the nodes, then the members, then the rest, and reports processes that did not end by themselves.
func (f *Fleet) stopAll(ctx context.Context) error {
	var errs []error
	rest := slices.Clone(f.processes)
	for len(rest) > 0 {
		last := rest[len(rest)-1]
		first := slices.IndexFunc(rest, func(p *process) bool { return p.path == last.path })
		var mu sync.Mutex
		var g sync.WaitGroup
		for _, p := range rest[first:] {
			g.Go(func() {
				if err := p.stop(ctx, stopGrace); err != nil {
					mu.Lock()
					defer mu.Unlock()
					errs = append(errs, err)
				}
			})
		}
		g.Wait()
		rest = rest[:first]
	}
	return errors.Join(append(errs, f.leftBehind(ctx))...)
}

// leftBehind reports, and kills, processes of this fleet that outlived their parents.
func (f *Fleet) leftBehind(ctx context.Context) error {
	wait, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	err := poll(wait, 20*time.Millisecond, func(context.Context) error { return leftError(marked(f.dir.id)) })
	if err == nil {
		return nil
	}
	return errors.Join(fmt.Errorf("after the stop: %w", err), killMarked(ctx, f.dir.id))
}

// process finds a process by name; the error lists the names.
func (f *Fleet) process(name string) (*process, error) {
	names := make([]string, 0, len(f.processes))
	for _, p := range f.processes {
		if p.name == name {
			return p, nil
		}
		names = append(names, p.name)
	}
	return nil, fleet.NewError(fleet.ErrNotFound, "name", "there is no process %q in this fleet: use one of %v", name, names)
}

// start starts a process by name. A new Pebble issues from a new root, which is added to the trusted ones.
func (f *Fleet) start(ctx context.Context, name string) error {
	p, err := f.process(name)
	if err != nil {
		return err
	}
	if err := p.start(); err != nil {
		return err
	}
	if name != "pebble" {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	return poll(ctx, 50*time.Millisecond, func(ctx context.Context) error {
		return fetchRoots(ctx, f.layout.acmeRoots(), f.dir.pebbleFiles().ca, f.acmeRootsFile())
	})
}

func (f *Fleet) kill(ctx context.Context, name string) error {
	p, err := f.process(name)
	if err != nil {
		return err
	}
	return p.kill(ctx)
}

// crashed reports the first process that ended although nobody asked it to.
func (f *Fleet) crashed() error {
	for _, p := range f.processes {
		if s := p.status(); s.State == Crashed {
			return fleet.NewError(fleet.ErrUnavailable, "process", "%s ended by itself: %s", p.name, s.Exit)
		}
	}
	return nil
}

// tool runs a command to its end, with its output in the log of the process it prepares.
func (f *Fleet) tool(ctx context.Context, name, bin string, args ...string) error {
	p := f.newProcess(name, f.binary(bin), args, nil)
	p.quiet = true // what init says for people has the operator's token in it
	if err := p.start(); err != nil {
		return err
	}
	select {
	case <-p.ended:
	case <-ctx.Done():
		return errors.Join(fmt.Errorf("%s %s: %w", bin, args[0], ctx.Err()), p.kill(context.WithoutCancel(ctx)))
	}
	if s := p.status(); s.Exit != "" {
		return fmt.Errorf("%s %s ended with %s", bin, args[0], s.Exit)
	}
	return nil
}

// Interrupted reports whether err says no more than that somebody pressed Ctrl-C.
func Interrupted(err error) bool {
	return errors.Is(err, context.Canceled) && !errors.Is(err, ErrStory)
}

func (f *Fleet) pid(name string) int {
	p, err := f.process(name)
	if err != nil {
		return 0
	}
	return p.status().PID
}
