// Package heads is the leader's loop that turns desired state into heads: when the derived tree of a group and kind
// differs from the committed head, it commits the next generation, and tells the nodes.
//
// It owns no content (package blobs) and no transport (package bus). A missed message costs nothing: nodes poll.
package heads

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/edgefleet/edgefleet/controlplane/command"
	"github.com/edgefleet/edgefleet/controlplane/leader"
	"github.com/edgefleet/edgefleet/controlplane/state"
	"github.com/edgefleet/edgefleet/fleet"
)

// Library derives and signs.
type Library interface {
	// Run calls changed after each change of the state that heads depend on, until ctx ends.
	Run(ctx context.Context, changed func(context.Context) error) error
	Root(g fleet.GroupName, k fleet.HeadKind) fleet.Digest
	GroupHeads(v *state.View, g fleet.GroupName) ([]fleet.SignedHead, error)
}

// Loop is the loop.
type Loop struct {
	State    *state.Store
	Library  Library
	Proposer leader.Proposer
	// Publish sends a message to nodes; an error is not fatal: they poll.
	Publish func(subject string, data []byte) error
	Now     func() time.Time

	told map[fleet.GroupName]map[fleet.HeadKind]fleet.Version
}

// Run blocks until ctx ends or a proposal fails.
func (l *Loop) Run(ctx context.Context) error {
	l.told = map[fleet.GroupName]map[fleet.HeadKind]fleet.Version{}
	return l.Library.Run(ctx, l.step)
}

func (l *Loop) step(ctx context.Context) error {
	v := l.State.Read()
	cluster, ok := v.Cluster()
	if !ok {
		return nil
	}
	var cmd command.HeadsAdvance
	for _, g := range v.Groups() {
		for _, kind := range fleet.HeadKinds {
			root := l.Library.Root(g.Name, kind)
			cur, ok := v.Head(g.Name, kind)
			if root == "" || (ok && cur.Root == root && cur.Version.Incarnation == cluster.Incarnation) {
				continue
			}
			next := fleet.Version{Incarnation: cluster.Incarnation, Generation: 1}
			if ok && cur.Version.Incarnation == cluster.Incarnation {
				next.Generation = cur.Version.Generation + 1
			}
			cmd.Heads = append(cmd.Heads, command.HeadAdvance{Group: g.Name, Kind: kind, Version: next, Root: root})
		}
	}
	if len(cmd.Heads) > 0 {
		if _, err := l.Proposer.Propose(ctx, leader.Header("heads", l.Now()), cmd); err != nil {
			return fmt.Errorf("advance heads: %w", err)
		}
	}
	return l.tell(l.State.Read())
}

// tell sends the heads of groups that moved since the last time.
func (l *Loop) tell(v *state.View) error {
	for _, g := range v.Groups() {
		now := map[fleet.HeadKind]fleet.Version{}
		moved := false
		for _, kind := range fleet.HeadKinds {
			h, ok := v.Head(g.Name, kind)
			if ok {
				now[kind] = h.Version
				moved = moved || l.told[g.Name][kind] != h.Version
			}
		}
		if !moved {
			continue
		}
		signed, err := l.Library.GroupHeads(v, g.Name)
		if err != nil {
			return fmt.Errorf("sign heads of group %s: %w", g.Name, err)
		}
		data, err := json.Marshal(fleet.HeadSet{Heads: signed, Incarnation: v.Statement()})
		if err != nil {
			return fmt.Errorf("encode heads of group %s: %w", g.Name, err)
		}
		if l.Publish(g.Name.HeadSubject(), data) == nil {
			l.told[g.Name] = now
		}
	}
	return nil
}
