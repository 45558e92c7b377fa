package faulttest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/edgefleet/edgefleet/fleet"
)

// Fault is a kind of fault.
type Fault string

// The faults. Each comes with a victim, which is the leader half of the time, and a length.
const (
	// Crash kills the victim, and starts it again in the end.
	Crash Fault = "crash"
	// CrashAt kills the victim at a failpoint.
	CrashAt Fault = "crash at"
	// Stop asks the victim to stop in order, and starts it again.
	Stop Fault = "stop in order"
	// CrashAll kills every member, and starts them one after another, in any order.
	CrashAll Fault = "crash all"
	// Pause holds back whatever goes to and from the victim.
	Pause Fault = "pause"
	// Isolate refuses whatever goes to and from the victim.
	Isolate Fault = "isolate"
	// Split parts the victim and as many others as make the smaller half from the rest.
	Split Fault = "split"
	// Deaf lets the victim be heard but not hear; Mute the other way round.
	Deaf Fault = "deaf"
	Mute Fault = "mute"
	// Flap parts the victim and joins it again, several times a second.
	Flap Fault = "flap"
	// FlapDeaf and FlapMute do so in one direction only.
	FlapDeaf Fault = "flap of what comes in"
	FlapMute Fault = "flap of what goes out"
	// SlowNet delays whatever goes to and from the victim.
	SlowNet Fault = "slow network"
	// SlowDisk makes each append of the victim slow.
	SlowDisk Fault = "slow disk"
	// BadDisk makes an append of the victim fail, and nothing of it is stored; OddDisk makes it fail, and it is stored. It
	// is started again in the end.
	BadDisk Fault = "failing disk"
	OddDisk Fault = "disk that fails after it stored"
	// Clock sets the victim's clock off, by hours either way.
	Clock Fault = "clock jump"
	// Resize takes the victim out of the Raft configuration, and adds it again.
	Resize Fault = "removal and return"
	// Snap makes the victim take a snapshot.
	Snap Fault = "snapshot"
)

// processFaults and sideFaults come at one time; of each kind one after another.
var (
	processFaults = []Fault{Crash, CrashAt, CrashAt, Stop, CrashAll, Pause, Isolate, Split, Deaf, Mute, Flap, FlapDeaf, FlapMute, SlowNet}
	sideFaults    = []Fault{SlowDisk, BadDisk, OddDisk, Clock, Snap, Resize}
)

// amounts are the least and most that a clock is set off by, or that each append or piece takes.
var amounts = map[Fault][2]time.Duration{
	Clock: {-5 * time.Hour, 5 * time.Hour}, SlowDisk: {5 * time.Millisecond, 400 * time.Millisecond}, SlowNet: {5 * time.Millisecond, 200 * time.Millisecond},
}

// Step is one fault of a plan.
type Step struct {
	Fault Fault
	// After is the pause before it, For its length.
	After, For time.Duration
	// Leader says that the victim is whoever leads then; else it is the Victim-th member.
	Leader bool
	Victim int
	// At is the failpoint of CrashAt, or the file at whose change a renewal is cut; By what a clock is set off by, or what
	// each append or piece takes; Under the fault during which a member is removed.
	At    Failpoint
	By    time.Duration
	Under Fault
	// Order is in which members start again after CrashAll.
	Order []int
}

func (s Step) String() string {
	who := fmt.Sprintf("member %d", s.Victim+1)
	if s.Leader {
		who = "the leader"
	}
	out := fmt.Sprintf("after %s: %s of %s for %s", s.After, s.Fault, who, s.For)
	if s.Fault == CrashAt {
		out += " " + string(s.At)
	}
	if s.By != 0 {
		out += fmt.Sprintf(" by %s", s.By)
	}
	if s.Fault == CrashAll {
		out += fmt.Sprintf(", started in order %v", s.Order)
	}
	return out
}

// Plan is what a seed stands for.
type Plan struct {
	Seed    uint64
	Size    int
	Clients int
	Length  time.Duration
	// Process are faults of processes and of the network, Side those of disks and clocks; both go on at one time.
	Process, Side []Step
}

// NewPlan makes the plan of a seed.
func NewPlan(seed uint64) Plan {
	rng := rand.New(rand.NewPCG(seed, 1)) //nolint:gosec // a schedule
	p := Plan{Seed: seed, Size: 3, Clients: 5, Length: 12 * time.Second}
	if rng.IntN(4) == 0 {
		p.Size = 5
	}
	p.Process = steps(rng, p, processFaults)
	p.Side = steps(rng, p, sideFaults)
	return p
}

func steps(rng *rand.Rand, p Plan, faults []Fault) (out []Step) {
	span := func(least, most time.Duration) time.Duration {
		return (least + time.Duration(rng.Int64N(int64(most-least)))).Truncate(time.Millisecond)
	}
	for at := time.Duration(0); ; {
		s := Step{
			Fault: faults[rng.IntN(len(faults))], After: span(100*time.Millisecond, 1500*time.Millisecond), For: span(200*time.Millisecond, 3*time.Second),
			Leader: rng.IntN(2) == 0, Victim: rng.IntN(p.Size), At: Failpoints[rng.IntN(len(Failpoints))], Order: rng.Perm(p.Size),
		}
		if by, ok := amounts[s.Fault]; ok {
			s.By = span(by[0], by[1])
		}
		if at += s.After + s.For; at > p.Length {
			return out
		}
		out = append(out, s)
	}
}

// carryOut does the steps one after another.
func (c *Cluster) carryOut(ctx context.Context, steps []Step) {
	for _, s := range steps {
		if sleep(ctx, s.After) != nil {
			return
		}
		victim := c.members[c.ids[s.Victim]]
		if s.Leader {
			victim = c.members[c.leader()]
		}
		c.note("%s: %s", victim.id, s)
		c.inflict(ctx, s, victim)
		c.note("%s: end of %s", victim.id, s.Fault)
	}
}

// inflict does one step and takes it back.
func (c *Cluster) inflict(ctx context.Context, s Step, victim *member) {
	hold := func() { _ = sleep(ctx, s.For) }
	p := victim.running()
	switch s.Fault { //nolint:exhaustive // real processes have faults of their own
	case Crash:
		victim.down((*process).stop)
		hold()
		c.revive(victim)
	case CrashAt:
		if p != nil {
			p.armed.Store(&s.At)
		}
		if s.At == MidSnapshot && p != nil {
			var snap sync.WaitGroup
			snap.Go(func() { _ = p.node.Snapshot() })
			defer snap.Wait()
		}
		hold()
		if p != nil && p.dead.Load() {
			c.note("%s: was killed %s", victim.id, s.At)
		}
		c.revive(victim)
	case Stop:
		victim.down((*process).shutdown)
		hold()
		c.revive(victim)
	case CrashAll:
		var all sync.WaitGroup
		for _, id := range c.ids {
			all.Go(func() { c.members[id].down((*process).stop) })
		}
		all.Wait()
		for _, i := range s.Order {
			_ = sleep(ctx, s.For/time.Duration(len(s.Order)))
			c.revive(c.members[c.ids[i]])
		}
	case Pause, Isolate, Split, Deaf, Mute, Flap, FlapDeaf, FlapMute, SlowNet:
		c.Net.part(ctx, c.ids, s, victim.id)
	case SlowDisk:
		victim.disk.Slow(s.By)
		hold()
		victim.disk.Slow(0)
	case BadDisk, OddDisk:
		victim.disk.Fail(map[Fault]Damage{BadDisk: FailedNotApplied, OddDisk: FailedButApplied}[s.Fault])
		hold()
		victim.disk.Fail(Healthy)
		if p := victim.running(); p != nil && p.mount.failed() {
			c.revive(victim)
		}
	case Clock:
		victim.skew.Store(int64(s.By))
		hold()
	case Resize:
		limit, cancel := context.WithTimeout(ctx, s.For)
		defer cancel()
		leader := c.members[c.leader()].running()
		if leader != nil && leader.id == victim.id {
			// As the API has it: a leader that is to go hands over, and the next one removes it.
			_ = leader.node.TransferLeadership(limit, "")
			leader = c.members[c.leader()].running()
		}
		if leader != nil && leader.id != victim.id {
			err := leader.node.Remove(limit, victim.id) // which fails under a partition, or is not known to have worked
			c.note("%s: removed by %s: %v", victim.id, leader.id, err)
		}
		hold()
		c.readmit(ctx, victim.id)
	case Snap:
		if p != nil {
			_ = p.node.Snapshot() // a member that is down has none to take
		}
	}
}

// revive starts the member unless it runs.
func (c *Cluster) revive(m *member) {
	if err := m.up(); err != nil {
		c.fail("%w", err)
	}
}

// readmit asks whoever leads, once, to give the member its vote.
func (c *Cluster) readmit(ctx context.Context, id fleet.MemberID) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	if leader := c.members[c.leader()].running(); leader != nil {
		if err := leader.node.AddVoter(ctx, id, string(id)); err != nil {
			c.note("%s: not added again by %s: %v", id, leader.id, err)
		}
	}
}

// Run carries out the plan with clients at work, and returns what they saw.
func (p Plan) Run(c *Cluster) (*History, error) {
	h := &History{}
	kit, err := newKit()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), p.Length)
	defer cancel()
	var all sync.WaitGroup
	shared := &gates{}
	for i := range p.Clients {
		w := &worker{
			target: target{c, c.ids, c.operator, c.Ledger, ""}, history: h, number: i, kit: kit, gates: shared, seen: map[string]fleet.Tenant{},
			rng: rand.New(rand.NewPCG(p.Seed, uint64(100+i))), //nolint:gosec // a workload
		}
		all.Go(func() { w.run(ctx) })
	}
	all.Go(func() { c.carryOut(ctx, p.Process) })
	all.Go(func() { c.carryOut(ctx, p.Side) })
	all.Wait()
	return h, nil
}
