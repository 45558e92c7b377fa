package controlplane

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/edgefleet/edgefleet/controlplane/keys"
	"github.com/edgefleet/edgefleet/controlplane/state"
	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/tls/keyring"
)

// KEKNames lists the names of the key-encryption keys in a file, the newest last.
func KEKNames(path string) ([]string, error) { return namesOf(keyring.LoadKEK(path)) }

// AddKEK adds a new key-encryption key to a file, and lists the names as KEKNames.
func AddKEK(path string) ([]string, error) { return namesOf(keyring.AddKEK(path)) }

// DropKEK removes a key-encryption key from a file, and lists the names as KEKNames. Nothing may be sealed by it any more:
// see GET /v1/cluster/kek.
func DropKEK(path, name string) ([]string, error) { return namesOf(keyring.DropKEK(path, name)) }

func namesOf(k *keyring.KEK, err error) ([]string, error) {
	if err != nil {
		return nil, err
	}
	return k.Names(), nil
}

// secretsPause is how long a member that cannot open the cluster's secrets waits before it looks whether it is behind.
const secretsPause = 500 * time.Millisecond

// openSecrets opens the cluster's secrets. A member that was away while the key-encryption key was rotated, or joins
// afterwards, may first have a state in which a key that is gone seals them: it is refused only if it knows everything
// that was committed, and still has not the key.
func (m *member) openSecrets(ctx context.Context, kek *keyring.KEK) (*keys.Keys, error) {
	for looks := 0; ; {
		ws := m.state.Watch(state.Clusters)
		rec, _ := m.state.Read().Cluster()
		k, err := keys.Open(rec, kek)
		if err == nil || slices.Contains(kek.Names(), rec.KEK()) {
			return k, err
		}
		behind := m.current(ctx)
		if behind == nil {
			looks++
		}
		if looks > 1 { // at the first one, the state machine may have been at it
			return nil, err
		}
		m.tel.Health.Set("state", fmt.Errorf("waiting for a newer state of the cluster: %w", err))
		wait, cancel := context.WithTimeout(ctx, secretsPause)
		_ = ws.WatchCtx(wait) // what comes first
		cancel()
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
	}
}

// current returns nil if this member holds what the leader had committed when it was asked.
func (m *member) current(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	id, self := m.raft.Leader()
	if self {
		return m.raft.Settled(ctx)
	}
	leader, ok := m.state.Read().Member(id)
	if !ok {
		return fleet.NewError(fleet.ErrUnavailable, "leader", "no leader is known")
	}
	s, err := m.stats(ctx, leader)
	if err != nil {
		return err
	}
	if own := m.node.Stats().Applied; s.State != "leader" || own < s.Commit {
		return fleet.NewError(fleet.ErrUnavailable, "leader", "%s is %s at entry %d, this member has applied %d", id, s.State, s.Commit, own)
	}
	return nil
}

// checkKEK says whether this member opens what it must, and how far a rotation is.
func (m *member) checkKEK(ctx context.Context) fleet.Check {
	c := fleet.Check{Name: "key-encryption key", State: fleet.CheckOK, Detail: "opens the cluster's secrets"}
	if m.keys == nil {
		c.State, c.Detail = fleet.CheckFail, fmt.Sprintf("member %s has none: copy it from another member out of band and set kek_file", m.c.Member)
		if err := m.watch.state(); err != nil {
			c.Detail += "; " + err.Error()
		}
		return c
	}
	v := m.state.Read()
	cluster, _ := v.Cluster()
	waiting := v.NotSealedBy(cluster.KEK())
	if n := waiting.Count(); n > 0 {
		c.State, c.Detail = fleet.CheckWarn, fmt.Sprintf("%d secrets wait to be sealed by %s; keep %s until none does", n, cluster.KEK(), strings.Join(waiting.Keys(), ", "))
	}
	if err := m.watch.state(); err != nil {
		c.State, c.Detail = fleet.CheckWarn, fmt.Sprintf("member %s: %v", m.c.Member, err)
	}
	var without []string
	for _, other := range v.Members() {
		if s, err := m.stats(ctx, other); err == nil && len(s.KEKs) > 0 && !slices.Contains(s.KEKs, cluster.KEK()) {
			without = append(without, string(other.ID))
		}
	}
	if len(without) > 0 {
		c.State, c.Detail = fleet.CheckFail, fmt.Sprintf("%s seals, and the members %s do not have it: copy kek_file to them and restart them", cluster.KEK(), strings.Join(without, ", "))
	}
	return c
}
