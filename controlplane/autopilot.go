package controlplane

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"time"

	"github.com/edgefleet/edgefleet/controlplane/client"
	"github.com/edgefleet/edgefleet/controlplane/command"
	"github.com/edgefleet/edgefleet/controlplane/consensus"
	"github.com/edgefleet/edgefleet/controlplane/leader"
	"github.com/edgefleet/edgefleet/controlplane/state"
	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/tls/mtls"
)

func (a Autopilot) validate() error {
	switch {
	case a.Stabilization < 0 || a.Stabilization > time.Hour:
		return fleet.Invalid("autopilot.stabilization", "%s is not between 0s and 1h", a.Stabilization)
	case a.LastContact < 100*time.Millisecond || a.LastContact > time.Minute:
		return fleet.Invalid("autopilot.last_contact", "%s is not between 100ms and 1m", a.LastContact)
	case a.MaxTrailing < 1:
		return fleet.Invalid("autopilot.max_trailing", "%d is not a number of entries from 1", a.MaxTrailing)
	case a.MinQuorum < 1:
		return fleet.Invalid("autopilot.min_quorum", "%d is not a number of voters from 1", a.MinQuorum)
	case a.DeadAfter < time.Minute:
		return fleet.Invalid("autopilot.dead_after", "%s is less than a minute, in which a host restarts", a.DeadAfter)
	}
	return nil
}

// autopilot is the leader's loop over the members.
func (m *member) autopilot(ctx context.Context) error {
	o := consensus.AutopilotOptions{
		Members: m.knownMembers, Stabilization: m.c.Autopilot.Stabilization, LastContact: m.c.Autopilot.LastContact,
		MaxTrailing: uint64(m.c.Autopilot.MaxTrailing), MinQuorum: uint(m.c.Autopilot.MinQuorum), //nolint:gosec // validated
		Stats: func(ctx context.Context, id fleet.MemberID) (consensus.Stats, error) {
			other, ok := m.state.Read().Member(id)
			if !ok {
				return consensus.Stats{}, fleet.NewError(fleet.ErrNotFound, "member", "member %s does not exist", id)
			}
			s, err := m.stats(ctx, other)
			if err != nil {
				return consensus.Stats{}, err
			}
			out := consensus.Stats{LastIndex: s.LastIndex, LastTerm: s.LastTerm}
			if s.LastContactMS != nil {
				out.LastContact = time.Now().Add(-time.Duration(*s.LastContactMS) * time.Millisecond)
			}
			return out, nil
		},
	}
	if m.c.Autopilot.RemoveDead {
		o.DeadAfter = m.c.Autopilot.DeadAfter
	}
	dead := make(chan fleet.MemberID, 1)
	o.Remove = func(id fleet.MemberID) {
		select {
		case dead <- id:
		default: // another is being removed; it is found again
		}
	}
	return runAll(ctx, func(ctx context.Context) error { return m.node.RunAutopilot(ctx, o) }, func(ctx context.Context) error {
		for {
			select {
			case <-ctx.Done():
				return nil
			case id := <-dead:
				if err := m.removeDead(ctx, id); err != nil && ctx.Err() == nil {
					m.tel.Logger.WarnContext(ctx, "dead member not removed", "member", id, "err", err)
				}
			}
		}
	})
}

func (m *member) knownMembers() []consensus.Known {
	var out []consensus.Known
	for _, other := range m.state.Read().Members() {
		out = append(out, consensus.Known{ID: other.ID, Address: other.Raft, Nonvoter: other.Nonvoter})
	}
	return out
}

// removeDead removes a member that has been silent for too long. Autopilot knows only that its API is: a member that still
// answers on its Raft port has a vote that counts, and is for people to look at.
func (m *member) removeDead(ctx context.Context, id fleet.MemberID) error {
	if other, ok := m.state.Read().Member(id); ok && m.raft.reach(ctx, other.Raft) == nil {
		return fleet.NewError(fleet.ErrConflict, "member", "the API of member %s, %s, has been silent for %s, but its Raft port answers: look at that member, or remove it by hand", id, other.API, m.c.Autopilot.DeadAfter)
	}
	m.tel.Logger.WarnContext(ctx, "removing a dead member", "member", id, "silent_for", m.c.Autopilot.DeadAfter)
	return m.raft.Remove(ctx, id, func() error {
		h := leader.Header("autopilot", utcNow())
		h.Reason = "silent for " + m.c.Autopilot.DeadAfter.String()
		_, err := m.raft.Propose(ctx, h, command.MemberRetire{ID: id})
		return err
	})
}

// removals finishes what a leader that crashed began: who was removed from the state leaves Raft too.
func (m *member) removals(ctx context.Context) error {
	for {
		ws := m.state.Watch(state.Members, state.RemovedMembers)
		v := m.state.Read()
		removed := map[fleet.MemberID]bool{}
		for _, r := range v.RemovedMembers() {
			_, back := v.Member(r.ID)
			removed[r.ID] = !back
		}
		suffrage, err := m.raft.Suffrage()
		if err != nil {
			return err
		}
		for id := range suffrage {
			if removed[id] {
				if err := m.raft.Remove(ctx, id, nil); err != nil {
					return err
				}
			}
		}
		if err := ws.WatchCtx(ctx); err != nil {
			return nil
		}
	}
}

// expulsion ends the Raft connections of members that were removed.
func (m *member) expulsion(ctx context.Context) error {
	for {
		ws := m.state.Watch(state.RemovedMembers)
		m.node.Recheck()
		if err := ws.WatchCtx(ctx); err != nil {
			return nil
		}
	}
}

// allowMember admits the members of this cluster, but for those that this member knows to be removed. It does not ask
// for members that it knows: one that was away for long may have to be told by members that came meanwhile.
func (m *member) allowMember(id fleet.Identity) error {
	if err := mtls.MembersOnly(m.trust.Cluster)(id); err != nil {
		return err
	}
	if _, removed := m.state.Read().RemovedMember(id.Member, id.Join); removed {
		return fleet.NewError(fleet.ErrDenied, "identity", "member %s was removed from cluster %s", id.Member, id.Cluster)
	}
	return nil
}

// maxStats bounds the answer of a member.
const maxStats = 4 << 10

// stats asks a member how it stands; itself it need not ask.
func (m *member) stats(ctx context.Context, other fleet.Member) (client.RaftStats, error) {
	if other.ID == m.c.Member {
		return m.ownStats(), nil
	}
	var s client.RaftStats
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+other.API+"/v1/cluster/stats", http.NoBody)
	if err != nil {
		return s, fleet.Invalid("api", "the address of member %s: %v", other.ID, err)
	}
	res, err := m.forward.RoundTrip(req)
	if err != nil {
		return s, fleet.NewError(fleet.ErrUnavailable, "api", "the API of member %s at %s does not answer: %v", other.ID, other.API, err)
	}
	defer func() { _ = res.Body.Close() }() // it was read, or is given up
	if res.StatusCode != http.StatusOK {
		return s, fleet.NewError(fleet.ErrUnavailable, "api", "the API of member %s at %s answers %s", other.ID, other.API, res.Status)
	}
	if err := json.NewDecoder(io.LimitReader(res.Body, maxStats)).Decode(&s); err != nil {
		return s, fleet.NewError(fleet.ErrUnavailable, "api", "the answer of member %s is not understood: %v", other.ID, err)
	}
	return s, nil
}

func (m *member) ownStats() client.RaftStats {
	s := m.node.Stats()
	out := client.RaftStats{
		Member: m.c.Member, State: s.State, Term: s.Term, LastTerm: s.LastTerm, LastIndex: s.LastIndex, Commit: s.Commit, Applied: s.Applied,
	}
	if m.kek != nil {
		out.KEKs = m.kek.Names()
	}
	if !s.LastContact.IsZero() {
		ms := time.Since(s.LastContact).Milliseconds()
		out.LastContactMS = &ms
	}
	return out
}
