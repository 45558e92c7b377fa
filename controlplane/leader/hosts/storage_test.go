package hosts_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/edgefleet/edgefleet/controlplane/command"
	"github.com/edgefleet/edgefleet/controlplane/consensus"
	"github.com/edgefleet/edgefleet/controlplane/fsm"
	"github.com/edgefleet/edgefleet/controlplane/leader/hosts"
	"github.com/edgefleet/edgefleet/controlplane/state"
	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/observability"
	"github.com/edgefleet/edgefleet/tls/certstore"
	"github.com/edgefleet/edgefleet/tls/certstore/storetest"
	"github.com/edgefleet/edgefleet/tls/keyring"
	"github.com/edgefleet/edgefleet/tls/mtls"
)

// storageMember is a member with real Raft on disk and mTLS, and the storage of its ACME client.
type storageMember struct {
	*consensus.Node
	id fleet.MemberID
	// store and second are two over the same backend.
	store, second *certstore.Store
	ahead         atomic.Int64 // of its clock
}

func (m *storageMember) Propose(ctx context.Context, h command.Header, b command.Body) (any, error) {
	entry, err := command.Encode(h, b)
	if err != nil {
		return nil, err
	}
	answer, _, err := m.Apply(ctx, entry)
	if err != nil {
		return nil, err
	}
	r, ok := answer.(fsm.Result)
	if !ok {
		return nil, fmt.Errorf("answered %T", answer)
	}
	if r.Err != nil {
		return nil, r.Err
	}
	return r.Object, nil
}

func storageMembers(t *testing.T, n int) []*storageMember {
	t.Helper()
	ca, err := mtls.NewCA("members", time.Now(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	kek, err := keyring.NewKEK()
	if err != nil {
		t.Fatal(err)
	}
	var all []*storageMember
	for i := range n {
		id := fleet.MemberID(fmt.Sprintf("m%d", i+1))
		s := state.New()
		m := &storageMember{id: id}
		o := memberOptions(t, ca, id)
		o.FSM, o.Telemetry = fsm.New(s), observability.Discard()
		m.Node, err = consensus.Open(o)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 30*time.Second)
			defer cancel()
			if err := m.Crash(ctx); err != nil {
				t.Error(err)
			}
		})
		now := func() time.Time { return time.Now().Add(time.Duration(m.ahead.Load())).UTC() }
		backend := &hosts.Accounts{State: s, Proposer: m, Now: now}
		m.store, m.second = certstore.New(backend, kek), certstore.New(backend, kek)
		all = append(all, m)
	}
	if err := all[0].Bootstrap(); err != nil {
		t.Fatal(err)
	}
	leads(t, all[0])
	for _, m := range all[1:] {
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		err := all[0].AddVoter(ctx, m.id, m.Addr())
		cancel()
		if err != nil {
			t.Fatal(err)
		}
	}
	return all
}

// leads waits until m leads and has applied what was committed before.
func leads(t *testing.T, m *storageMember) {
	t.Helper()
	deadline := time.NewTimer(60 * time.Second)
	defer deadline.Stop()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !m.IsLeader() || m.Barrier(t.Context()) != nil {
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatalf("%s does not lead", m.id)
		}
	}
}

func TestTheContractOfStorageOverRaft(t *testing.T) {
	m := storageMembers(t, 1)[0]
	storetest.Run(t, m.store, m.second)
}

func TestALockIsHeldOverAChangeOfLeaderAndEndsWithItsLease(t *testing.T) {
	all := storageMembers(t, 3)
	one, next := all[0], all[1]
	ctx := t.Context()
	if err := one.store.Store(ctx, "acme/account", []byte("key")); err != nil {
		t.Fatal(err)
	}
	if err := one.store.Lock(ctx, "account"); err != nil {
		t.Fatal(err)
	}
	moving, cancel := context.WithTimeout(ctx, 60*time.Second)
	defer cancel()
	if err := one.TransferLeadership(moving, next.id); err != nil {
		t.Fatal(err)
	}
	leads(t, next)
	if got, err := next.store.Load(ctx, "acme/account"); err != nil || string(got) != "key" {
		t.Errorf("%q, %v", got, err)
	}
	if taken, err := next.store.TryLock(ctx, "account"); taken || err != nil {
		t.Errorf("the next leader took a lock that is held: %v, %v", taken, err)
	}
	// The holder leads no more, and can neither renew it nor give it back.
	if err := one.store.Unlock(ctx, "account"); !errors.Is(err, fleet.ErrUnavailable) {
		t.Errorf("unlocked by a member that does not lead: %v", err)
	}
	next.ahead.Store(int64(time.Minute))
	if taken, err := next.store.TryLock(ctx, "account"); !taken || err != nil {
		t.Errorf("its lease was over: %v, %v", taken, err)
	}
	if err := next.store.Unlock(ctx, "account"); err != nil {
		t.Error(err)
	}
}
