package controlplane

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/edgefleet/edgefleet/loadtest/harness"
	"github.com/edgefleet/edgefleet/loadtest/log"
)

// bareLimit bounds the start of the bare log.
const bareLimit = 30 * time.Second

// bare measures package consensus alone: three processes, each a member with a state machine that keeps nothing; the
// proposals are made inside the leader's process.
func (r *run) bare(ctx context.Context) error {
	ps, err := r.startBare(ctx)
	if err != nil {
		return err
	}
	r.env.Say("bare log: applies")
	ans, err := ps[0].ask(ctx, log.Request{Op: log.OpLoad, Workers: workers, Bytes: valueBytes, Warm: r.warm(), For: r.measured()})
	if err != nil {
		return err
	}
	out := harness.Outcome{Count: ans.Count, Errors: ans.Errors, Seconds: ans.Seconds}
	note := fmt.Sprintf("consensus.Node.Apply, %d-way inside the leader's process, %d B, 3 processes; p50 %.1f ms, p99 %.1f ms, max %.1f ms; %s",
		workers, valueBytes, harness.Millis(ans.P50), harness.Millis(ans.P99), harness.Millis(ans.Max), versus(out.Rate(), r.etcdWrites))
	if ans.Errors > 0 {
		note += fmt.Sprintf("; %d errors (%s)", ans.Errors, ans.Error)
	}
	r.rep.Add("bare applies", out.Rate(), "1/s", share(r.etcdWrites, 1), note)
	for _, p := range ps {
		if err := p.stop(); err != nil {
			return err
		}
	}
	return nil
}

// bareProcess is a member of the bare log and the pipes to it.
type bareProcess struct {
	*harness.Process
	in  *os.File
	out *os.File
	dec *json.Decoder
}

func (r *run) startBare(ctx context.Context) ([]*bareProcess, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this program: %w", err)
	}
	var hosts []string
	for range members {
		h, err := r.env.Host()
		if err != nil {
			return nil, err
		}
		hosts = append(hosts, h)
	}
	certs, err := r.env.Certificates("bare", hosts...)
	if err != nil {
		return nil, err
	}
	var ps []*bareProcess
	for i, h := range hosts {
		p, err := r.pipe(harness.Command{Name: fmt.Sprintf("bare-b%d", i+1), Path: self, Args: []string{
			"member", "--dir", filepath.Join(r.env.Dir, "bare", fmt.Sprintf("b%d", i+1)), "--member", fmt.Sprintf("b%d", i+1),
			"--bind", net.JoinHostPort(h, "8441"), "--ca", certs.CA, "--cert", certs.Cert, "--key", certs.Key,
		}})
		if err != nil {
			return nil, err
		}
		ps = append(ps, p)
	}
	if _, err := ps[0].ask(ctx, log.Request{Op: log.OpBootstrap}); err != nil {
		return nil, err
	}
	for i, h := range hosts[1:] {
		if _, err := ps[0].ask(ctx, log.Request{Op: log.OpAdd, Member: fmt.Sprintf("b%d", i+2), Address: net.JoinHostPort(h, "8441")}); err != nil {
			return nil, err
		}
	}
	return ps, nil
}

// pipe starts a member and keeps the other ends of its standard input and output.
func (r *run) pipe(c harness.Command) (*bareProcess, error) {
	inR, inW, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("make a pipe: %w", err)
	}
	outR, outW, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("make a pipe: %w", err)
	}
	c.Stdin, c.Stdout = inR, outW
	p, err := r.env.Start(c)
	_, _ = inR.Close(), outW.Close() // the child has its own copies
	if err != nil {
		return nil, err
	}
	return &bareProcess{Process: p, in: inW, out: outR, dec: json.NewDecoder(outR)}, nil
}

// ask sends a request and waits for its answer.
func (p *bareProcess) ask(ctx context.Context, q log.Request) (log.Answer, error) {
	ctx, cancel := context.WithTimeout(ctx, bareLimit+q.Warm+q.For)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = p.out.SetReadDeadline(time.Now()) })
	defer stop()
	if err := json.NewEncoder(p.in).Encode(q); err != nil {
		return log.Answer{}, fmt.Errorf("ask %s to %s: %w; %s", p.Name, q.Op, err, p.Tail())
	}
	var a log.Answer
	if err := p.dec.Decode(&a); err != nil {
		return a, fmt.Errorf("answer of %s to %s: %w; %s", p.Name, q.Op, err, p.Tail())
	}
	if a.Error != "" && a.Count == 0 {
		return a, fmt.Errorf("%s: %s: %s", p.Name, q.Op, a.Error)
	}
	return a, nil
}

func (p *bareProcess) stop() error {
	defer func() { _ = p.out.Close() }()
	_ = p.in.Close() // at the end of its input, the member stops
	return p.Stop()
}
