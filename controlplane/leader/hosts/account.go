package hosts

import (
	"context"
	"fmt"
	"time"

	"github.com/edgefleet/edgefleet/controlplane/command"
	"github.com/edgefleet/edgefleet/controlplane/leader"
	"github.com/edgefleet/edgefleet/controlplane/state"
)

// Accounts is certstore's backend in the replicated state. What it stores is sealed already. It is used on the
// leader only, whose reads see its own writes.
type Accounts struct {
	State    *state.Store
	Proposer leader.Proposer
	Now      func() time.Time
}

// Get implements certstore.KV.
func (a *Accounts) Get(_ context.Context, key string) (value []byte, modified time.Time, ok bool, err error) {
	e, ok := a.State.Read().Entry(key)
	return e.Value, e.UpdatedAt, ok, nil
}

// Put implements certstore.KV.
func (a *Accounts) Put(ctx context.Context, key string, value []byte) error {
	if _, err := a.Proposer.Propose(ctx, leader.Header(name, a.Now()), command.EntryPut{Key: key, Value: value}); err != nil {
		return fmt.Errorf("put entry: %w", err)
	}
	return nil
}

// Delete implements certstore.KV.
func (a *Accounts) Delete(ctx context.Context, key string) error {
	if _, ok := a.State.Read().Entry(key); !ok {
		return nil
	}
	if _, err := a.Proposer.Propose(ctx, leader.Header(name, a.Now()), command.EntryDelete{Key: key}); err != nil {
		return fmt.Errorf("delete entry: %w", err)
	}
	return nil
}

// List implements certstore.KV.
func (a *Accounts) List(_ context.Context, prefix string) ([]string, error) {
	var keys []string
	for _, e := range a.State.Read().EntriesBelow(prefix) {
		keys = append(keys, e.Key)
	}
	return keys, nil
}
