package revocations_test

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"github.com/edgefleet/edgefleet/controlplane/command"
	"github.com/edgefleet/edgefleet/controlplane/fsm"
	"github.com/edgefleet/edgefleet/controlplane/leader/revocations"
	"github.com/edgefleet/edgefleet/controlplane/state"
	"github.com/edgefleet/edgefleet/fleet"
)

// world is a state machine that applies what is proposed, and an authority.
type world struct {
	t       *testing.T
	state   *state.Store
	machine *fsm.FSM

	mu      sync.Mutex
	index   uint64
	refused error // what the authority says
	asked   []string
	dies    bool // the leader dies after the authority was asked, before that is stored
}

func (w *world) Propose(_ context.Context, h command.Header, b command.Body) (any, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.dies {
		return nil, fleet.NewError(fleet.ErrUnavailable, "leader", "not the leader any more")
	}
	entry, err := command.Encode(h, b)
	if err != nil {
		return nil, err
	}
	w.index++
	r, _ := w.machine.Apply(&raft.Log{Index: w.index, Data: entry}).(fsm.Result)
	if r.Err != nil {
		return nil, r.Err
	}
	return r.Object, nil
}

func (w *world) Revoke(_ context.Context, chain []byte, reason fleet.RevocationReason) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.asked = append(w.asked, string(chain)+"/"+string(reason))
	return w.refused
}

func (w *world) set(refused error, dies bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.refused, w.dies = refused, dies
}

func (w *world) times() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.asked)
}

func (w *world) must(bs ...command.Body) {
	w.t.Helper()
	for _, b := range bs {
		if _, err := w.Propose(w.t.Context(), command.Header{Time: time.Now().UTC(), Actor: fleet.Actor{Name: "test", Party: fleet.Vendor}}, b); err != nil {
			w.t.Fatalf("%s: %v", b.Type(), err)
		}
	}
}

// issue gives the host its next certificate.
func (w *world) issue(generation uint64, id fleet.OrderID) {
	w.t.Helper()
	w.must(
		command.OrderPut{Put: command.Put{Create: true}, Order: fleet.OrderRecord{Order: fleet.Order{ID: id, Host: "a.example.com", Tenant: "acme", Generation: generation, State: fleet.OrderQueued}, SPKI: string(id)}},
		command.CertificateCommit{Order: id, Certificate: fleet.CertificateRecord{Certificate: fleet.Certificate{
			Host: "a.example.com", Tenant: "acme", Generation: generation, SPKI: string(id), Serial: string(id), Chain: "chain-" + string(id),
			NotBefore: time.Now(), NotAfter: time.Now().Add(90 * 24 * time.Hour),
		}}},
	)
}

func (w *world) observe(generation uint64) {
	w.t.Helper()
	w.must(command.HostObserve{Name: "a.example.com", Tenant: "acme", Observed: fleet.HostObserved{Phase: fleet.PhaseActive, VerifiedGeneration: generation}})
}

// lead runs the loop until the returned function is called.
func (w *world) lead() (stop func()) {
	ctx, cancel := context.WithCancel(w.t.Context())
	done := make(chan struct{})
	loop := &revocations.Loop{State: w.state, Proposer: w, Authority: func(string) revocations.Authority { return w }, Logger: slog.New(slog.DiscardHandler), Now: func() time.Time { return time.Now().UTC() }}
	go func() { defer close(done); _ = loop.Run(ctx) }()
	return func() { cancel(); <-done }
}

func (w *world) revocation() fleet.Revocation {
	w.t.Helper()
	all := w.state.Read().Revocations()
	if len(all) != 1 {
		w.t.Fatalf("%d revocations", len(all))
	}
	return all[0].Revocation
}

func start(t *testing.T) *world {
	t.Helper()
	s := state.New()
	w := &world{t: t, state: s, machine: fsm.New(s)}
	w.must(
		command.ClusterInit{Cluster: fleet.ClusterRecord{Cluster: fleet.Cluster{ID: "c", Zone: "edge.example"}}, Member: fleet.Member{ID: "m1"}, Token: fleet.TokenRecord{Token: fleet.Token{ID: "t", Role: fleet.RoleOperator}, Hash: make([]byte, fleet.HashBytes)}},
		command.TenantPut{Put: command.Put{Create: true}, ID: "acme", Spec: fleet.TenantSpec{Form: fleet.SecurityEdge, Group: fleet.DefaultGroup}},
		command.HostPut{Put: command.Put{Create: true}, Name: "a.example.com", Tenant: "acme", Label: "l", Spec: fleet.HostSpec{Mode: fleet.ModeBlock, Origins: []fleet.Origin{{URL: "https://203.0.113.1"}}}},
	)
	w.issue(1, "o1")
	w.observe(1)
	return w
}

func TestACertificateOfAStolenNodeIsRevokedOnceItsSuccessorIsServed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t)
		stop := w.lead()
		w.must(command.GroupRekey{Group: fleet.DefaultGroup, From: 1, Cause: fleet.EpochRekey, Certificates: true})
		w.issue(2, "o2")
		time.Sleep(time.Hour)
		if n := w.times(); n != 0 {
			t.Fatalf("asked %d times before the successor is served", n)
		}
		// The authority is away, then the leader dies between its answer and the log.
		w.set(errors.New("away"), false)
		w.observe(2)
		time.Sleep(time.Minute)
		if r := w.revocation(); r.State != fleet.RevocationWaiting || r.Attempts != 1 || r.Problem != "away" || r.NextAttempt.IsZero() {
			t.Fatalf("%+v", r)
		}
		w.set(nil, true)
		time.Sleep(time.Hour)
		stop()
		asked := w.times()
		if r := w.revocation(); asked < 2 || r.State != fleet.RevocationWaiting {
			t.Fatalf("asked %d times, %+v", asked, r)
		}
		// The next leader goes on.
		w.set(nil, false)
		stop = w.lead()
		time.Sleep(time.Minute)
		if r := w.revocation(); r.State != fleet.RevocationDone || r.Generation != 1 || r.RevokedAt.IsZero() || w.times() != asked+1 || w.asked[0] != "chain-o1/key_compromise" {
			t.Errorf("%+v, asked %q", r, w.asked)
		}
		// It is not asked again, and forgets when the certificate has ended.
		time.Sleep(91 * 24 * time.Hour)
		if left := w.state.Read().Revocations(); len(left) != 0 || w.times() != asked+1 {
			t.Errorf("%+v, asked %q", left, w.asked)
		}
		stop()
	})
}

func TestARevocationThatCannotWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t)
		stop := w.lead()
		defer stop()
		w.must(command.CertificateRevoke{Host: "a.example.com", Tenant: "acme", Generation: 1, Reason: fleet.RevokeSuperseded, Now: true})
		time.Sleep(time.Minute)
		if r := w.revocation(); r.State != fleet.RevocationDone || w.asked[0] != "chain-o1/superseded" {
			t.Errorf("%+v, asked %q", r, w.asked)
		}
	})
}
