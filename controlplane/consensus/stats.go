package consensus

import (
	"context"
	"strconv"
	"time"

	"github.com/hashicorp/raft"

	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/observability"
)

// Stats is how this member stands, as one look saw it.
type Stats struct {
	// State is leader, follower, candidate or shutdown.
	State string
	Term  uint64
	// LastIndex is the last entry of the log here, Commit the last known to be committed, Applied the last handed to
	// the state machine.
	LastIndex, Commit, Applied uint64
	// LastTerm is the term of the last entry of the log.
	LastTerm uint64
	// FSMPending is how many batches wait for the state machine.
	FSMPending uint64
	// Leader is who leads, empty during an election.
	Leader fleet.MemberID
	// LastContact is when this member last heard from a leader; zero if never, or if it leads.
	LastContact time.Time
}

// Stats never blocks for long and works on a closed member.
func (n *Node) Stats() Stats {
	s := Stats{
		Term: n.raft.CurrentTerm(), LastIndex: n.raft.LastIndex(), Commit: n.raft.CommitIndex(), Applied: n.raft.AppliedIndex(),
	}
	state := n.raft.State()
	s.State = stateNames[state]
	s.Leader, _, _ = n.Leader()
	if state != raft.Leader {
		s.LastContact = n.raft.LastContact()
	}
	// Raft shows it nowhere else; a missing or odd value reads as 0.
	shown := n.raft.Stats()
	s.FSMPending, _ = strconv.ParseUint(shown["fsm_pending"], 10, 64)
	s.LastTerm = lastTerm(shown)
	return s
}

var stateNames = map[raft.RaftState]string{
	raft.Follower: "follower", raft.Candidate: "candidate", raft.Leader: "leader", raft.Shutdown: "shutdown",
}

// publish registers the gauges of this member. Gauges stay for the life of the telemetry: one Node a telemetry.
func (n *Node) publish(tel *observability.Telemetry) {
	gauge := func(name string, read func() float64) {
		tel.Gauge(name, func() []observability.Sample { return []observability.Sample{{Value: read()}} })
	}
	gauge("edgefleet_raft_is_leader", func() float64 {
		if n.IsLeader() {
			return 1
		}
		return 0
	})
	gauge("edgefleet_raft_term", func() float64 { return float64(n.raft.CurrentTerm()) })
	gauge("edgefleet_raft_last_index", func() float64 { return float64(n.raft.LastIndex()) })
	gauge("edgefleet_raft_applied_index", func() float64 { return float64(n.raft.AppliedIndex()) })
	gauge("edgefleet_raft_peers", func() float64 { return float64(len(n.configuration().Servers)) })
}

// applySeconds returns what records how long the state machine took for a command.
func applySeconds(tel *observability.Telemetry) func(time.Duration) {
	h := tel.Histogram("edgefleet_raft_apply_seconds")
	return func(d time.Duration) { h.Record(context.Background(), d.Seconds()) }
}

// refusals returns what counts connections to the Raft port that were not from members.
func refusals(tel *observability.Telemetry) func() {
	c := tel.Counter("edgefleet_raft_refused_connections_total")
	return func() { c.Add(context.Background(), 1) }
}
