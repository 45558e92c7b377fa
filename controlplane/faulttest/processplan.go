package faulttest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/edgefleet/edgefleet/fleet"
)

// Faults that only real processes have.
const (
	// Freeze stops the process of the victim in its tracks, and lets it go on.
	Freeze Fault = "freeze"
	// WipeNATS kills the victim, deletes what its NATS server stored, and starts it again.
	WipeNATS Fault = "loss of the streams"
	// FullDisk fills the disk of the victim; then there is room again, and it is started again.
	FullDisk Fault = "full disk"
)

// Of a dozen histories in a row, each has one of the firstFaults, and most have one of the secondFaults after it, another
// one in each dozen; realOrders are the orders in which three start again.
var (
	firstFaults  = []Fault{CutRestore, CrashAll, Freeze, Replace, WipeNATS, CutSnapshot, FullDisk, CrashAll, CutRenewal, Replace, FlapMute, FlapDeaf}
	secondFaults = []Fault{Freeze, Mute, Split, Crash, Flap, SlowNet, Isolate}
	realOrders   = [][]int{{0, 1, 2}, {0, 2, 1}, {1, 0, 2}, {1, 2, 0}, {2, 0, 1}, {2, 1, 0}}
)

// NewProcessPlan makes the plan of a seed for three real processes. Which faults it has is given by the seed's place in a
// row of seeds, so that a dozen in a row have them all; when, to whom and for how long they come is random.
func NewProcessPlan(seed uint64) Plan {
	rng := rand.New(rand.NewPCG(seed, 4)) //nolint:gosec // a schedule
	p := Plan{Seed: seed, Size: 3, Clients: 4, Length: 3500 * time.Millisecond}
	for _, faults := range [][]Fault{firstFaults, secondFaults} {
		s := Step{
			Fault: faults[seed%uint64(len(faults))], After: time.Duration(100+rng.IntN(300)) * time.Millisecond,
			For: time.Duration(400+rng.IntN(1200)) * time.Millisecond, Leader: rng.IntN(3) > 0, Victim: rng.IntN(p.Size),
			Order: realOrders[rng.IntN(len(realOrders))],
		}
		switch s.Fault { //nolint:exhaustive // the others are whole
		case CrashAll: // three orders of the six, and the other three half a dozen seeds later
			p.Length = 7 * time.Second
			for n := range uint64(3) {
				s.After, s.For, s.Order = 1300*time.Millisecond, 600*time.Millisecond, realOrders[3*(seed/6%2)+n]
				p.Process = append(p.Process, s)
			}
			return p
		case Replace:
			s.Under, p.Length = underFaults[rng.IntN(len(underFaults))], 5*time.Second
		case CutRenewal:
			s.At = cutPoints[rng.IntN(len(cutPoints))]
		case SlowNet:
			s.By = time.Duration(5+rng.IntN(150)) * time.Millisecond
		}
		p.Process = append(p.Process, s)
	}
	return p
}

// RunOn carries out the plan on real processes with clients at work, and returns what they saw and how every member
// stands afterwards, by what its directory holds.
func (p Plan) RunOn(ctx context.Context, c *Processes) (*History, []Standing, error) {
	h, shared := &History{}, &gates{}
	kit, err := newKit()
	if err != nil {
		return h, nil, err
	}
	steps := p.Process
	if steps[0].Fault == CutRestore {
		if err := c.cutRestore(ctx, steps[0]); err != nil {
			return h, nil, fmt.Errorf("%s: %w", CutRestore, err)
		}
		steps = steps[1:]
	}
	work, cancel := context.WithTimeout(ctx, p.Length)
	defer cancel()
	var all sync.WaitGroup
	for i := range p.Clients {
		w := &worker{
			target: target{c, c.ids, c.operator, c.Ledger, fmt.Sprintf("s%d-", p.Seed)}, history: h, number: i, seen: map[string]fleet.Tenant{}, kit: kit, gates: shared, seed: p.Seed,
			rng: rand.New(rand.NewPCG(p.Seed, uint64(100+i))), //nolint:gosec // a workload
		}
		all.Go(func() { w.run(work) })
	}
	var failed error
	all.Go(func() { failed = c.carryOut(work, steps) })
	all.Wait()
	c.Net.Heal()
	if failed != nil {
		return h, nil, failed
	}
	standings, err := c.rest(ctx)
	return h, standings, err
}

// carryOut does the steps one after another; each is taken back, whatever time it is.
func (p *Processes) carryOut(ctx context.Context, steps []Step) error {
	for _, s := range steps {
		if sleep(ctx, s.After) != nil {
			return nil
		}
		victim := p.members[p.ids[s.Victim]]
		if s.Leader {
			victim = p.leader(ctx, victim)
		}
		p.note("%s: %s", victim.id, s)
		if err := p.inflict(ctx, s, victim); err != nil {
			return fmt.Errorf("%s of %s: %w", s.Fault, victim.id, err)
		}
		p.note("%s: end of %s", victim.id, s.Fault)
		if s.Fault != CutRenewal && s.Fault != CutSnapshot { // which have to hit the moment
			p.did(s.Fault)
		}
	}
	return nil
}

func (p *Processes) did(f Fault) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.done[f]++
}

// Undone are the faults, of those that each dozen of histories has, that never came as they should.
func (p *Processes) Undone() (out []Fault) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, f := range firstFaults {
		if p.done[f] == 0 && !slices.Contains(out, f) {
			out = append(out, f)
		}
	}
	return out
}

// leader is the member that leads, as any of them says; else the one given.
func (p *Processes) leader(ctx context.Context, otherwise *realMember) *realMember {
	for _, id := range p.ids {
		if s, err := p.status(ctx, id); err == nil && s.Leader != "" {
			return p.members[s.Leader]
		}
	}
	return otherwise
}

func (p *Processes) inflict(ctx context.Context, s Step, m *realMember) error {
	whatever := context.WithoutCancel(ctx)
	hold := func() { _ = sleep(ctx, s.For) }
	switch s.Fault { //nolint:exhaustive // real processes have faults of their own
	case Crash:
		p.down(m)
		hold()
	case Freeze:
		p.signal(m, syscall.SIGSTOP)
		hold()
		p.signal(m, syscall.SIGCONT)
	case WipeNATS:
		p.down(m)
		if err := os.RemoveAll(filepath.Join(m.data, "nats")); err != nil {
			return err
		}
		hold()
	case CrashAll:
		for _, id := range p.ids {
			p.down(p.members[id])
		}
		for _, i := range s.Order {
			if err := p.up(whatever, p.members[p.ids[i]]); err != nil {
				return err
			}
			_ = sleep(ctx, s.For/6)
		}
	case FullDisk:
		return p.fillDisk(ctx, s, m)
	case Replace:
		return p.replace(ctx, s, m)
	case CutRenewal:
		return p.cutRenewal(ctx, s, m)
	case CutSnapshot:
		return p.cutSnapshot(ctx, m)
	default:
		p.Net.part(ctx, p.ids, s, m.id)
	}
	return p.up(whatever, m)
}

// fillDisk leaves no byte on the member's disk for a while, and does what the runbook says after it.
func (p *Processes) fillDisk(ctx context.Context, s Step, m *realMember) error {
	if !p.SmallDisks {
		p.note("%s: no full disk, for it has no disk of its own: only root may mount one", m.id)
		return nil
	}
	ballast := filepath.Join(m.data, "ballast")
	f, err := os.OpenFile(ballast, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600) //nolint:gosec // below a directory of ours
	if err != nil {
		return err
	}
	for chunk := make([]byte, 1<<20); len(chunk) > 0; {
		if _, err = f.Write(chunk); err != nil {
			chunk = chunk[:len(chunk)/2] // down to the last byte
		}
	}
	if err := f.Close(); err != nil {
		return err
	}
	if !errors.Is(err, syscall.ENOSPC) {
		return err
	}
	_ = sleep(ctx, s.For)
	if s.Victim%2 == 0 { // a member that is killed meanwhile may not start before there is room again
		p.down(m)
		if err := p.up(context.WithoutCancel(ctx), m); err != nil {
			return err
		}
		_ = sleep(ctx, s.For)
	}
	if err := os.Remove(ballast); err != nil {
		return err
	}
	p.down(m)
	return p.up(context.WithoutCancel(ctx), m)
}

// rest starts whoever is down, waits until all members have the same state, kills them together, reads what their
// directories hold, and starts them again.
func (p *Processes) rest(ctx context.Context) ([]Standing, error) {
	for _, id := range p.ids {
		if err := p.up(ctx, p.members[id]); err != nil {
			return nil, err
		}
	}
	var last string
	quiet := 0
	if err := p.await(ctx, "all members have one state", func(ctx context.Context) error {
		at, err := p.agreed(ctx)
		if err != nil || at != last {
			quiet, last = 0, at
			return errors.Join(err, fmt.Errorf("%w: it moved to %s", fleet.ErrUnavailable, at))
		}
		if quiet++; quiet < 4 {
			return fmt.Errorf("%w: it moved a moment ago", fleet.ErrUnavailable)
		}
		return nil
	}); err != nil {
		return nil, err
	}
	var all sync.WaitGroup
	for _, id := range p.ids {
		all.Go(func() { p.down(p.members[id]) })
	}
	all.Wait()
	var out []Standing
	for _, id := range p.ids {
		s, err := OpenSolo(id, filepath.Join(p.members[id].data, "raft"), p.Ledger)
		if err != nil {
			return nil, fmt.Errorf("open the directory of %s: %w", id, err)
		}
		out = append(out, s.Standing())
		if err := s.Close(ctx); err != nil {
			return nil, err
		}
	}
	for _, id := range p.ids {
		if err := p.up(ctx, p.members[id]); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// agreed is the state that every member has, with three votes and a leader.
func (p *Processes) agreed(ctx context.Context) (string, error) {
	var at string
	for i, id := range p.ids {
		s, err := p.status(ctx, id)
		if err != nil {
			return "", err
		}
		voters := 0
		for _, m := range s.Members {
			if m.Suffrage == "voter" {
				voters++
			}
		}
		said := fmt.Sprintf("index %d, hash %s", s.Applied, s.StateHash)
		switch {
		case s.Leader == "" || voters != len(p.ids):
			return "", fmt.Errorf("%w: %s knows %d voters, leader %q", fleet.ErrUnavailable, id, voters, s.Leader)
		case i > 0 && said != at:
			return "", fmt.Errorf("%w: %s is at %s, %s at %s", fleet.ErrUnavailable, p.ids[0], at, id, said)
		}
		at = said
	}
	return at, nil
}
