package consensus

import (
	"context"
	"strconv"
	"sync"
	"time"

	"github.com/hashicorp/raft"
	autopilot "github.com/hashicorp/raft-autopilot"

	"github.com/edgefleet/edgefleet/fleet"
)

// Known is a member that belongs to the cluster, whether it runs or not.
type Known struct {
	ID      fleet.MemberID
	Address string
	// Nonvoter: it is never given a vote, and loses the one that it has once it does not lead.
	Nonvoter bool
}

// AutopilotOptions say what the leader does with members by itself. Members, Stats and Remove are needed.
type AutopilotOptions struct {
	Members func() []Known
	// Stats asks another member how it stands.
	Stats func(ctx context.Context, id fleet.MemberID) (Stats, error)
	// Remove takes a member that is dead from the cluster; it returns at once.
	Remove func(id fleet.MemberID)
	// Stabilization is how long a newcomer must be healthy before it votes.
	Stabilization time.Duration
	// A member is healthy if it heard from the leader within LastContact and is at most MaxTrailing entries behind.
	LastContact time.Duration
	MaxTrailing uint64
	// DeadAfter is how long a member may be silent before it is removed, 0 for ever. It is counted anew by each leader.
	// MinQuorum is the number of voters below which nobody is removed.
	DeadAfter time.Duration
	MinQuorum uint
}

const (
	// autopilotInterval is how often members are looked at and decided about.
	autopilotInterval = 250 * time.Millisecond
	// statsTimeout bounds the answer of one member: longer than the interval, for a busy member is not an ill one.
	statsTimeout = time.Second
)

// RunAutopilot gives newcomers that are stable and caught up their vote, and removes dead members if it is told to,
// until ctx ends. It is run by the leader only.
func (n *Node) RunAutopilot(ctx context.Context, o AutopilotOptions) error {
	p := &pilot{n: n, o: o, seen: map[raft.ServerID]time.Time{}}
	ap := autopilot.New(n.raft, p, autopilot.WithLogger(newLogger(n.log)), autopilot.WithPromoter(&promoter{pilot: p}),
		autopilot.WithUpdateInterval(autopilotInterval), autopilot.WithReconcileInterval(autopilotInterval))
	ap.Start(ctx)
	<-ctx.Done()
	<-ap.Stop()
	return nil
}

// pilot is what autopilot knows of the cluster.
type pilot struct {
	n *Node
	o AutopilotOptions

	mu sync.Mutex
	// seen is when each member answered last, or was first heard of.
	seen map[raft.ServerID]time.Time
}

// AutopilotConfig implements autopilot.ApplicationIntegration.
func (p *pilot) AutopilotConfig() *autopilot.Config {
	return &autopilot.Config{
		CleanupDeadServers: p.o.DeadAfter > 0, LastContactThreshold: p.o.LastContact, MaxTrailingLogs: p.o.MaxTrailing,
		MinQuorum: p.o.MinQuorum, ServerStabilizationTime: p.o.Stabilization,
	}
}

// NotifyState implements autopilot.ApplicationIntegration; the members' API tells how they stand.
func (*pilot) NotifyState(*autopilot.State) {}

// KnownServers implements autopilot.ApplicationIntegration.
func (p *pilot) KnownServers() map[raft.ServerID]*autopilot.Server {
	out := map[raft.ServerID]*autopilot.Server{}
	for _, k := range p.o.Members() {
		id := raft.ServerID(k.ID)
		s := &autopilot.Server{
			ID: id, Name: string(k.ID), Address: raft.ServerAddress(k.Address), NodeStatus: autopilot.NodeAlive,
			RaftVersion: int(raft.ProtocolVersionMax), IsLeader: k.ID == p.n.member && p.n.IsLeader(), NodeType: autopilot.NodeVoter,
		}
		if k.Nonvoter {
			s.NodeType = nodeNonvoter
		}
		if p.o.DeadAfter > 0 && p.silent(id) > p.o.DeadAfter {
			s.NodeStatus = autopilot.NodeFailed
		}
		out[id] = s
	}
	return out
}

// silent is how long a member has not answered.
func (p *pilot) silent(id raft.ServerID) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	if id == raft.ServerID(p.n.member) {
		return 0
	}
	last, ok := p.seen[id]
	if !ok {
		last = time.Now()
		p.seen[id] = last
	}
	return time.Since(last)
}

// FetchServerStats implements autopilot.ApplicationIntegration. A member that does not answer is out of contact for as
// long as it has been silent, and at once unhealthy: what it said before is not believed any longer.
func (p *pilot) FetchServerStats(ctx context.Context, servers map[raft.ServerID]*autopilot.Server) map[raft.ServerID]*autopilot.ServerStats {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), statsTimeout)
	defer cancel()
	var mu sync.Mutex
	var asked sync.WaitGroup
	out := map[raft.ServerID]*autopilot.ServerStats{}
	for id := range servers {
		asked.Go(func() {
			s := p.ask(ctx, id)
			mu.Lock()
			defer mu.Unlock()
			out[id] = s
		})
	}
	asked.Wait()
	return out
}

func (p *pilot) ask(ctx context.Context, id raft.ServerID) *autopilot.ServerStats {
	if id == raft.ServerID(p.n.member) {
		s := p.n.Stats()
		return &autopilot.ServerStats{LastTerm: s.LastTerm, LastIndex: s.LastIndex}
	}
	s, err := p.o.Stats(ctx, fleet.MemberID(id))
	if err != nil || s.LastContact.IsZero() {
		return &autopilot.ServerStats{LastContact: p.o.LastContact + p.silent(id) + 1}
	}
	p.mu.Lock()
	p.seen[id] = time.Now()
	p.mu.Unlock()
	return &autopilot.ServerStats{LastContact: max(0, time.Since(s.LastContact)), LastTerm: s.LastTerm, LastIndex: s.LastIndex}
}

// RemoveFailedServer implements autopilot.ApplicationIntegration.
func (p *pilot) RemoveFailedServer(s *autopilot.Server) { p.o.Remove(fleet.MemberID(s.ID)) }

// nodeNonvoter is a member that never votes.
const nodeNonvoter autopilot.NodeType = "nonvoter"

// promoter is autopilot's for stable members, but for those that are not to vote.
type promoter struct {
	autopilot.StablePromoter
	pilot *pilot
}

// GetNodeTypes implements autopilot.Promoter.
func (p *promoter) GetNodeTypes(_ *autopilot.Config, s *autopilot.State) map[raft.ServerID]autopilot.NodeType {
	types := map[raft.ServerID]autopilot.NodeType{}
	known := p.pilot.KnownServers()
	for id := range s.Servers {
		types[id] = nodeNonvoter // who is not known (any more) is not promoted
		if k, ok := known[id]; ok {
			types[id] = k.NodeType
		}
	}
	return types
}

// CalculatePromotionsAndDemotions implements autopilot.Promoter. Autopilot itself takes everybody for stable until it has run
// for as long as a member must be well: just then, after a change of leader, a newcomer that was well for an instant would
// get a vote, and block writes when it is gone the next.
func (p *promoter) CalculatePromotionsAndDemotions(c *autopilot.Config, s *autopilot.State) autopilot.RaftChanges {
	var changes autopilot.RaftChanges
	for _, id := range p.StablePromoter.CalculatePromotionsAndDemotions(c, s).Promotions {
		srv := s.Servers[id]
		if srv.Server.NodeType == autopilot.NodeVoter && srv.Health.IsStable(time.Now(), c.ServerStabilizationTime) {
			changes.Promotions = append(changes.Promotions, id)
		}
	}
	for _, k := range p.pilot.o.Members() {
		id := raft.ServerID(k.ID)
		if srv, ok := s.Servers[id]; ok && k.Nonvoter && srv.State == autopilot.RaftVoter {
			changes.Demotions = append(changes.Demotions, id)
		}
	}
	return changes
}

// FilterFailedServerRemovals implements autopilot.Promoter: servers that the state does not know are on their way out,
// or in, which the leader finishes itself.
func (*promoter) FilterFailedServerRemovals(_ *autopilot.Config, _ *autopilot.State, failed *autopilot.FailedServers) *autopilot.FailedServers {
	failed.StaleVoters, failed.StaleNonVoters = nil, nil
	return failed
}

// IsPotentialVoter implements autopilot.Promoter.
func (*promoter) IsPotentialVoter(t autopilot.NodeType) bool { return t == autopilot.NodeVoter }

// lastTerm is the term of the last entry of the log.
func lastTerm(stats map[string]string) uint64 {
	t, _ := strconv.ParseUint(stats["last_log_term"], 10, 64) // a missing or odd value reads as 0
	return t
}
