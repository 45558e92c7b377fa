package once_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"github.com/edgefleet/edgefleet/controlplane/command"
	"github.com/edgefleet/edgefleet/controlplane/fsm"
	"github.com/edgefleet/edgefleet/controlplane/leader/once"
	"github.com/edgefleet/edgefleet/controlplane/state"
	"github.com/edgefleet/edgefleet/fleet"
)

// cluster applies what is proposed to a real state machine.
type cluster struct {
	state *state.Store
	fsm   *fsm.FSM
	index uint64
	// fail is what every proposal ends with; nil for none.
	fail atomic.Pointer[error]
}

func (c *cluster) Propose(_ context.Context, h command.Header, b command.Body) (any, error) {
	if err := c.fail.Load(); err != nil {
		return nil, *err
	}
	data, err := command.Encode(h, b)
	if err != nil {
		return nil, err
	}
	c.index++
	r, _ := c.fsm.Apply(&raft.Log{Index: c.index, Data: data}).(fsm.Result)
	if r.Err != nil {
		return nil, r.Err
	}
	return r.Object, nil
}

func TestKeysAreForgottenWhenTheirTimeIsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := state.New()
		c := &cluster{state: s, fsm: fsm.New(s)}
		tx := s.Write()
		const n = 5_000 // more than one command forgets
		for i := range uint64(n) {
			tx.PutOnce(fleet.Once{Caller: "a", Key: fmt.Sprint(i), Expires: time.Now().Add(time.Hour), Index: i + 1, Seq: i + 1})
		}
		tx.PutOnce(fleet.Once{Caller: "b", Key: "later", Expires: time.Now().Add(2 * time.Hour), Index: n + 1, Seq: 1})
		tx.Commit()
		c.index = n + 1
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- (&once.Loop{State: s, Proposer: c, Now: time.Now}).Run(ctx) }()
		left := func() int { return len(s.Read().OnceExpired(time.Now().Add(24*time.Hour), 2*n)) }
		time.Sleep(59 * time.Minute)
		synctest.Wait()
		if l := left(); l != n+1 {
			t.Errorf("%d of %d keys are left before their time", l, n+1)
		}
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if l := left(); l != 1 {
			t.Errorf("%d keys are left, want the one whose time is later", l)
		}
		lost := errors.New("no quorum")
		c.fail.Store(&lost)
		time.Sleep(2 * time.Hour)
		if err := <-done; !errors.Is(err, lost) {
			t.Errorf("ended with %v", err)
		}
		cancel()
	})
}
