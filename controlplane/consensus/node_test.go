package consensus_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/edgefleet/edgefleet/controlplane/consensus"
	"github.com/edgefleet/edgefleet/fleet"
)

func TestThreeMembersGoOnWithoutTheirLeaderAndTakeItBack(t *testing.T) {
	ms := cluster(t, 3, nil)
	old := ms[0]
	apply(t, old, "before")
	old.crash(t)

	leader := leaderOf(t, ms[1:]...)
	apply(t, leader, "after")

	back := start(t, old.options)
	eventually(t, "the old leader caught up", back.fsm.holds("after"))
	if diff := cmp.Diff([]string{"first", "before", "after"}, back.fsm.all()); diff != "" {
		t.Error(diff)
	}
	if id, addr, ok := back.Leader(); !ok || id != leader.options.Member || addr != leader.Addr() {
		t.Errorf("leader is %q at %q, %v", id, addr, ok)
	}
	_, _, err := back.Apply(t.Context(), []byte("x"))
	if !errors.Is(err, fleet.ErrUnavailable) || errors.Is(err, consensus.ErrOutcomeUnknown) {
		t.Errorf("apply on a follower: %v", err)
	}
	mustContain(t, err, "does not lead", string(leader.options.Member), leader.Addr())
	if _, err := back.ReadIndex(t.Context()); !errors.Is(err, fleet.ErrUnavailable) {
		t.Errorf("read index on a follower: %v", err)
	}
}

func TestAllMembersRestartFromDisk(t *testing.T) {
	ms := cluster(t, 3, nil)
	for i := range 20 {
		apply(t, ms[0], fmt.Sprint(i))
	}
	want := ms[0].fsm.all()
	for _, m := range ms {
		m.crash(t)
	}
	for i, m := range ms {
		ms[i] = start(t, m.options)
	}
	leaderOf(t, ms...)
	for _, m := range ms {
		eventually(t, "every command is back", func() bool { return cmp.Equal(want, m.fsm.all()) })
		if !errors.Is(m.Bootstrap(), fleet.ErrConflict) {
			t.Error("bootstrap of a member with state is not refused")
		}
	}
}

func TestALeaderThatClosesHandsOver(t *testing.T) {
	ms := cluster(t, 3, nil)
	term := ms[0].Stats().Term
	if err := ms[0].Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	leader := leaderOf(t, ms[1:]...)
	if got := leader.Stats().Term; got != term+1 {
		t.Errorf("term %d after a hand-over in term %d: there was an election more", got, term)
	}
	if _, _, err := ms[0].Apply(t.Context(), []byte("x")); !errors.Is(err, fleet.ErrUnavailable) {
		t.Errorf("apply on a closed member: %v", err)
	}
	l, err := net.Listen("tcp", ms[0].Addr())
	if err != nil {
		t.Fatalf("the port is still in use: %v", err)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
}

func TestTransferLeadership(t *testing.T) {
	ms := cluster(t, 3, nil)
	if err := ms[0].TransferLeadership(t.Context(), ""); err != nil {
		t.Fatal(err)
	}
	leader := leaderOf(t, ms[1:]...)
	apply(t, leader, "x")
	if err := ms[0].TransferLeadership(t.Context(), ""); !errors.Is(err, fleet.ErrUnavailable) {
		t.Errorf("transfer by a follower: %v", err)
	}
}

func TestANewVoterStartsFromASnapshotWhenTheLogIsTruncated(t *testing.T) {
	a := newAuthority(t)
	o := a.options(t, "m1")
	o.TrailingLogs = 1
	// What is left in the last segment could still be sent.
	leader := start(t, consensus.WithSegmentBytes(o, 1<<10))
	if err := leader.Bootstrap(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "m1 leads", leader.IsLeader)
	for i := range 50 {
		apply(t, leader, fmt.Sprint(i))
	}
	if err := leader.Snapshot(); err != nil {
		t.Fatal(err)
	}
	if err := leader.Snapshot(); err != nil {
		t.Errorf("a snapshot with nothing new: %v", err)
	}
	newcomer := start(t, a.options(t, "m2"))
	join(t, leader, newcomer)
	apply(t, leader, "last")
	eventually(t, "the new voter caught up", newcomer.fsm.holds("last"))
	if diff := cmp.Diff(leader.fsm.all(), newcomer.fsm.all()); diff != "" || newcomer.fsm.restored == 0 {
		t.Errorf("restored %d times: %s", newcomer.fsm.restored, diff)
	}
	// Both come back from the snapshot and what follows it.
	want := leader.fsm.all()
	leader.crash(t)
	newcomer.crash(t)
	leader, newcomer = start(t, leader.options), start(t, newcomer.options)
	leaderOf(t, leader, newcomer)
	for _, m := range []*member{leader, newcomer} {
		eventually(t, "every command is back", func() bool { return cmp.Equal(want, m.fsm.all()) })
	}
}

func TestReadIndexSeesWhatWasAcknowledged(t *testing.T) {
	ms := cluster(t, 3, nil)
	for i := range 20 {
		command := fmt.Sprint(i)
		_, index, err := ms[0].Apply(t.Context(), []byte(command))
		if err != nil {
			t.Fatal(err)
		}
		read, err := ms[0].ReadIndex(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if read < index || !ms[0].fsm.holds(command)() {
			t.Errorf("read at %d misses the write at %d", read, index)
		}
	}
	// A fresh leader, with nothing of its own term in the state machine.
	ms[0].crash(t)
	leader := leaderOf(t, ms[1:]...)
	if _, err := leader.ReadIndex(t.Context()); err != nil || !leader.fsm.holds("19")() {
		t.Errorf("read on a new leader: %v", err)
	}
	// Without a quorum there is no linearizable read and no write, and the caller's deadline holds.
	for _, m := range without(ms[1:], leader) {
		m.crash(t)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if _, err := leader.ReadIndex(ctx); !errors.Is(err, fleet.ErrUnavailable) {
		t.Errorf("read without quorum: %v", err)
	}
	_, _, err := leader.Apply(ctx, []byte("lost"))
	if !errors.Is(err, fleet.ErrUnavailable) {
		t.Errorf("write without quorum: %v", err)
	}
}

func TestMembershipChangesAreIdempotent(t *testing.T) {
	ms := cluster(t, 3, nil)
	leader, ctx := ms[0], t.Context()
	server := func(m *member, s consensus.Suffrage) consensus.Server {
		return consensus.Server{ID: m.options.Member, Address: m.Addr(), Suffrage: s}
	}
	want := []consensus.Server{server(ms[0], consensus.Voter), server(ms[1], consensus.Voter)}
	steps := []struct {
		name string
		do   func() error
		want []consensus.Server
	}{
		{"removing a member", func() error { return leader.Remove(ctx, "m3") }, want},
		{"removing it again changes nothing", func() error { return leader.Remove(ctx, "m3") }, want},
		{"adding it without a vote", func() error { return leader.AddNonvoter(ctx, "m3", ms[2].Addr()) }, append(want[:2:2], server(ms[2], consensus.Nonvoter))},
		{"giving it a vote", func() error { return leader.AddVoter(ctx, "m3", ms[2].Addr()) }, append(want[:2:2], server(ms[2], consensus.Voter))},
		{"giving it a vote again changes nothing", func() error { return leader.AddVoter(ctx, "m3", ms[2].Addr()) }, append(want[:2:2], server(ms[2], consensus.Voter))},
		{"adding it without a vote takes none away", func() error { return leader.AddNonvoter(ctx, "m3", ms[2].Addr()) }, append(want[:2:2], server(ms[2], consensus.Voter))},
	}
	for _, step := range steps {
		if err := step.do(); err != nil {
			t.Fatalf("%s: %v", step.name, err)
		}
		got, err := leader.Servers()
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(step.want, got); diff != "" {
			t.Errorf("%s: %s", step.name, diff)
		}
	}
	if err := leader.AddVoter(ctx, "m4", ms[2].Addr()); !errors.Is(err, fleet.ErrConflict) {
		t.Errorf("a second member at the same address: %v", err)
	}
	if err := ms[1].Remove(ctx, "m3"); !errors.Is(err, fleet.ErrUnavailable) {
		t.Errorf("removal on a follower: %v", err)
	}
	// What is left of two goes on, and cannot remove its last voter.
	if err := leader.Remove(ctx, "m1"); !errors.Is(err, fleet.ErrNotLeader) {
		t.Fatal(err)
	}
	next := leaderOf(t, ms[1:]...)
	if err := next.Remove(ctx, "m1"); err != nil {
		t.Fatal(err)
	}
	other := without(ms[1:], next)[0]
	if err := next.Remove(ctx, other.options.Member); err != nil {
		t.Fatal(err)
	}
	if err := next.Remove(ctx, next.options.Member); !errors.Is(err, fleet.ErrConflict) {
		t.Errorf("removal of the last voter: %v", err)
	}
}

func TestCommandsAreLimited(t *testing.T) {
	ms := cluster(t, 1, nil)
	if _, _, err := ms[0].Apply(t.Context(), make([]byte, consensus.MaxCommandBytes+1)); !errors.Is(err, fleet.ErrTooLarge) {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := ms[0].Apply(ctx, []byte("x")); !errors.Is(err, context.Canceled) || errors.Is(err, consensus.ErrOutcomeUnknown) {
		t.Errorf("apply with an ended context: %v", err)
	}
	if ms[0].fsm.holds("x")() {
		t.Error("a command that was not to be proposed was applied")
	}
}

func TestStatsAndMetrics(t *testing.T) {
	ms := cluster(t, 3, nil)
	s := ms[0].Stats()
	if s.State != "leader" || s.Leader != "m1" || s.Term == 0 || s.Applied == 0 || s.LastIndex < s.Commit || !s.LastContact.IsZero() {
		t.Errorf("%+v", s)
	}
	s = ms[1].Stats()
	if s.State != "follower" || s.Leader != "m1" || s.LastContact.IsZero() {
		t.Errorf("%+v", s)
	}
	metrics := scrape(t, ms[0].tel)
	for _, want := range []string{"edgefleet_raft_is_leader 1", "edgefleet_raft_peers 3", "edgefleet_raft_apply_seconds_count 1", "edgefleet_raft_applied_index "} {
		if !metrics(want) {
			t.Errorf("no %q in the metrics", want)
		}
	}
}

func TestAMemberThatStartsWithoutAQuorumHasTheStateThatItHad(t *testing.T) {
	ms := cluster(t, 3, nil)
	apply(t, ms[0], "before the snapshot")
	await := func(m *member, want ...string) {
		t.Helper()
		eventually(t, "the member has "+want[len(want)-1], m.fsm.holds(want[len(want)-1]))
		if diff := cmp.Diff(want, m.fsm.all()); diff != "" {
			t.Errorf("commands (-want +got):\n%s", diff)
		}
	}
	await(ms[2], "first", "before the snapshot")
	if err := ms[2].Snapshot(); err != nil {
		t.Fatal(err)
	}
	apply(t, ms[0], "second")
	apply(t, ms[0], "third")
	await(ms[2], "first", "before the snapshot", "second", "third")
	for _, m := range ms {
		m.crash(t)
	}

	alone := start(t, ms[2].options)
	if diff := cmp.Diff([]string{"first", "before the snapshot", "second", "third"}, alone.fsm.all()); diff != "" {
		t.Errorf("without the others (-want +got):\n%s", diff)
	}
	if err := alone.Snapshot(); err != nil {
		t.Errorf("a snapshot before raft has caught up: %v", err)
	}
	other := start(t, ms[0].options)
	apply(t, leaderOf(t, alone, other), "fourth")
	for _, m := range []*member{alone, other} {
		await(m, "first", "before the snapshot", "second", "third", "fourth")
	}
	if err := alone.Snapshot(); err != nil {
		t.Error(err)
	}
}
