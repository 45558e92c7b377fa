package devfleet

import (
	"context"
	"io"
	"time"
)

// The names below let the tests, which are in a package of their own, use the parts of the harness one by one.

type (
	TestProcess = process
	Finding     = finding
	Step        = step
	Visitors    = []*visitor
)

var (
	Scan        = scan
	Poll        = poll
	ErrSkip     = errSkip
	NewVisitor  = newVisitor
	StartStream = startStream
)

func CheckPorts(ctx context.Context, network, address string) error {
	return checkPorts(ctx, []listener{{network, address}})
}

func NewTestLauncher() (start func(p *process) error, end func()) {
	l := newLauncher()
	return func(p *process) error { p.launcher = l; return p.start() }, l.close
}

func NewTestProcess(name, log string, env []string, argv ...string) *process {
	return &process{name: name, path: argv[0], args: argv[1:], env: env, log: log, state: Stopped}
}

func (p *process) Again() error                                        { return p.start() }
func (p *process) Pause() error                                        { return p.pause() }
func (p *process) Resume() error                                       { return p.resume() }
func (p *process) Kill(ctx context.Context) error                      { return p.kill(ctx) }
func (p *process) Stop(ctx context.Context, g time.Duration) error     { return p.stop(ctx, g) }
func (p *process) Status() ProcessStatus                               { return p.status() }
func (v *visitor) Benign(ctx context.Context) error                    { return v.benign(ctx) }
func (v *visitor) Upload(ctx context.Context, n int64) error           { return v.upload(ctx, n) }
func (v *visitor) Get(ctx context.Context, status int, p string) error { return v.get(ctx, status, p) }
func (s *stream) Stop() (int, error)                                   { return s.stop() }

// Total is the number of requests so far.
func (s *stream) Total() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.total
}

// Children lists the living descendants of a process.
func Children(pid int) (pids []int, states string) {
	for _, d := range descendants(pid) {
		s, _ := readStat(d.pid)
		pids, states = append(pids, d.pid), states+string(s.state)
	}
	return pids, states
}

// Alive reports whether a process exists and is no zombie.
func Alive(pid int) bool {
	s, ok := readStat(pid)
	return ok && s.state != 'Z'
}

// EnvID is the variable that marks the processes of a fleet.
const EnvID = envID

// KillMarked ends the processes that carry id.
func KillMarked(ctx context.Context, id string) error { return killMarked(ctx, id) }

// OpenDir opens a fleet's directory and returns its id.
func OpenDir(ctx context.Context, path string, out io.Writer) (id string, end func() error, err error) {
	w, err := openWorkdir(ctx, path, out)
	if err != nil {
		return "", nil, err
	}
	return w.id, w.Close, nil
}

// NewTestFleet has processes but no binaries.
func NewTestFleet(ctx context.Context, dir string, out io.Writer, ps ...*process) (*Fleet, func() error, error) {
	w, err := openWorkdir(ctx, dir, out)
	if err != nil {
		return nil, nil, err
	}
	d, err := newCustomerDNS(string(Zone), []string{"127.0.0.1:1"})
	if err != nil {
		return nil, nil, err
	}
	f := &Fleet{opts: Options{Out: out}, dir: w, launcher: newLauncher(), dns: d, processes: ps}
	for _, p := range ps {
		p.launcher, p.log = f.launcher, w.log(p.name)
	}
	return f, w.Close, nil
}

func (f *Fleet) ServeControl(ctx context.Context) error { return f.serveControl(ctx) }
func (f *Fleet) StopAll(ctx context.Context) error {
	defer f.launcher.close()
	return f.stopAll(ctx)
}
func (f *Fleet) Play(ctx context.Context, steps ...Step) error { return newStory(f).run(ctx, steps) }

// NewStep makes a step of a story.
func NewStep(name string, logs []string, run func(context.Context) (string, error)) Step {
	return step{name, time.Second, run, logs}
}

// DNS is the customer's DNS.
type DNS struct{ *customerDNS }

func NewDNS(zone string, members ...string) (DNS, error) {
	d, err := newCustomerDNS(zone, members)
	return DNS{d}, err
}

func (d DNS) Set(name, kind string, values ...string) error { return d.set(name, kind, values) }
func (d DNS) List() []Record                                { return d.list() }
func (d DNS) Run(ctx context.Context, addr string, ready func()) error {
	return d.run(ctx, addr, ready)
}

// PreparePebble writes Pebble's files and returns the paths of CA, certificate and key.
func PreparePebble(dir string, now time.Time) (ca, cert, key string, err error) {
	files := pebbleFiles{dir + "/config.json", dir + "/ca.pem", dir + "/cert.pem", dir + "/key.pem"}
	return files.ca, files.cert, files.key, preparePebble(files, layout{}, now)
}

// FetchRoots appends the root at url to a file.
var FetchRoots = fetchRoots
