package epochs_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/raft"

	"github.com/edgefleet/edgefleet/controlplane/blobs"
	"github.com/edgefleet/edgefleet/controlplane/command"
	"github.com/edgefleet/edgefleet/controlplane/fsm"
	"github.com/edgefleet/edgefleet/controlplane/keys"
	"github.com/edgefleet/edgefleet/controlplane/leader/epochs"
	"github.com/edgefleet/edgefleet/controlplane/leader/heads"
	"github.com/edgefleet/edgefleet/controlplane/state"
	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/fleet/bundle"
	"github.com/edgefleet/edgefleet/tls/keyring"
)

// cluster is a state machine that applies what is proposed, with real keys and a library.
type cluster struct {
	t    *testing.T
	kek  *keyring.KEK
	lib  *blobs.Library
	node map[fleet.NodeID][]byte // private HPKE keys

	state   *state.Store
	machine *fsm.FSM
	refuse  error

	mu    sync.Mutex
	index uint64
	log   []command.Type
	bytes int
}

func (c *cluster) Propose(_ context.Context, h command.Header, b command.Body) (any, error) {
	entry, err := command.Encode(h, b)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := b.(command.GroupRekey); ok && c.refuse != nil {
		return nil, c.refuse
	}
	c.index++
	r, _ := c.machine.Apply(&raft.Log{Index: c.index, Data: entry}).(fsm.Result)
	if r.Err != nil {
		return nil, r.Err
	}
	c.log = append(c.log, b.Type())
	c.bytes += len(entry)
	return r.Object, nil
}

func (c *cluster) must(bs ...command.Body) {
	c.t.Helper()
	for _, b := range bs {
		if _, err := c.Propose(c.t.Context(), command.Header{Time: time.Now()}, b); err != nil {
			c.t.Fatalf("%s: %v", b.Type(), err)
		}
	}
}

// since returns what was committed since the last call.
func (c *cluster) since() (log []command.Type, bytes int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	log, bytes = c.log, c.bytes
	c.log, c.bytes = nil, 0
	return log, bytes
}

// newCluster has two nodes and a tenant with that many certificates.
func newCluster(t *testing.T, certificates int) *cluster {
	t.Helper()
	kek, err := keyring.NewKEK()
	if err != nil {
		t.Fatal(err)
	}
	rec, err := keys.Generate("c1", "edge.example.net", kek, nil, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	k, err := keys.Open(rec, kek)
	if err != nil {
		t.Fatal(err)
	}
	s := state.New()
	c := &cluster{t: t, kek: kek, state: s, machine: fsm.New(s), lib: blobs.New(s, k), node: map[fleet.NodeID][]byte{}}
	hash, create := make([]byte, fleet.HashBytes), command.Put{Create: true}
	c.must(
		command.ClusterInit{Cluster: rec, Member: fleet.Member{ID: "m1", API: "127.0.0.1:1", NATS: "127.0.0.1:2"}, Token: fleet.TokenRecord{Token: fleet.Token{ID: "op", Role: fleet.RoleOperator}, Hash: hash}},
		command.TenantPut{Put: create, ID: "acme", Spec: fleet.TenantSpec{Form: fleet.SecurityEdge, Group: "default"}},
	)
	for i, id := range []fleet.NodeID{"n1", "n2"} {
		private, public, err := keyring.NewHPKEKey()
		if err != nil {
			t.Fatal(err)
		}
		c.node[id] = private
		token := fleet.JoinTokenRecord{JoinToken: fleet.JoinToken{ID: fleet.TokenID("j" + id), Kind: fleet.JoinNode, Group: "default", Region: "eu", ExpiresAt: time.Now().Add(time.Minute)}, Hash: hash}
		addr := netip.AddrFrom4([4]byte{198, 51, 100, byte(i + 1)})
		c.must(command.JoinTokenPut{Token: token}, command.NodeEnrol{Token: token.ID, ID: id, Spec: fleet.NodeSpec{Addresses: []netip.Addr{addr}}, Identity: fleet.NodeIdentity{HPKE: public}})
	}
	for i := range certificates {
		c.issue(fleet.HostName(fmt.Sprintf("h%d.example.com", i)), i)
	}
	return c
}

const customerKey = "PRIVATE KEY OF A CUSTOMER"

func (c *cluster) issue(h fleet.HostName, i int) {
	c.t.Helper()
	sealed, err := c.kek.Seal([]byte(customerKey), keyring.CertKeyAAD("acme", h, "spki", 1))
	if err != nil {
		c.t.Fatal(err)
	}
	id := fleet.OrderID(fmt.Sprintf("o%d", i))
	c.must(
		command.HostPut{Put: command.Put{Create: true}, Name: h, Tenant: "acme", Label: fmt.Sprintf("l%d", i), Spec: fleet.HostSpec{Mode: fleet.ModeBlock, Origins: []fleet.Origin{{URL: "https://203.0.113.1"}}}},
		command.OrderPut{Put: command.Put{Create: true}, Order: fleet.OrderRecord{Order: fleet.Order{ID: id, Host: h, Tenant: "acme", Generation: 1, State: fleet.OrderQueued}, Key: sealed, SPKI: "spki"}},
		command.CertificateCommit{Order: id, Certificate: fleet.CertificateRecord{Certificate: fleet.Certificate{Host: h, Tenant: "acme", Generation: 1, SPKI: "spki", Chain: "chain"}}},
	)
}

// lead runs the loops of a leader until stop.
func (c *cluster) lead() (stop func()) {
	ctx, cancel := context.WithCancel(c.t.Context())
	e := &epochs.Loop{State: c.state, Proposer: c, Logger: slog.New(slog.DiscardHandler), Now: time.Now}
	h := &heads.Loop{State: c.state, Library: c.lib, Proposer: c, Publish: func(string, []byte) error { return nil }, Now: time.Now}
	var wg sync.WaitGroup
	for _, run := range []func(context.Context) error{e.Run, h.Run} {
		wg.Go(func() {
			if err := run(ctx); err != nil {
				c.t.Error(err)
			}
		})
	}
	c.settle()
	return func() {
		cancel()
		wg.Wait()
	}
}

// settle lets the loops do what is to be done.
func (c *cluster) settle() {
	time.Sleep(5 * time.Second)
	synctest.Wait()
}

func (c *cluster) epoch() fleet.GroupEpoch { return c.state.Read().Epoch("default") }

// opens reports whether a node that was given an envelope opens the certificates as they are delivered now.
func (c *cluster) opens(id fleet.NodeID, env fleet.KeyEnvelope) bool {
	c.t.Helper()
	key, err := keyring.OpenEnvelope(env, id, c.node[id])
	if err != nil {
		return false
	}
	index, err := bundle.Index(c.lib.Root("default", fleet.HeadCerts), c.lib.Blob)
	if err != nil {
		c.t.Fatal(err)
	}
	b, err := bundle.Blob(index["acme"], c.lib.Blob)
	if err != nil {
		c.t.Fatal(err)
	}
	var certs fleet.CertsBundle
	if err := fleet.DecodeStrict(b, &certs); err != nil || len(certs.Certificates) == 0 {
		c.t.Fatal(certs, err)
	}
	for _, bc := range certs.Certificates {
		plain, err := key.Open(bc.Key, keyring.CertKeyAAD("acme", bc.Host, bc.SPKI, bc.Generation))
		if err != nil {
			return false
		}
		if string(plain) != customerKey {
			c.t.Fatalf("the key of %s is %q", bc.Host, plain)
		}
	}
	return true
}

func TestANewEpochBeginsEveryDay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 1)
		stop := c.lead()
		began := time.Now()
		for day := range uint64(3) {
			if e := c.epoch(); e.Number != day+1 || (day > 0 && e.Cause != fleet.EpochDaily) {
				t.Errorf("after %v: %+v", time.Since(began), e)
			}
			time.Sleep(fleet.EpochLife)
		}
		stop()
		// Nobody led for days: one epoch follows, not one for each day.
		n := c.epoch().Number
		time.Sleep(10 * fleet.EpochLife)
		stop = c.lead()
		defer stop()
		if e := c.epoch(); e.Number != n+1 || e.Cause != fleet.EpochDaily {
			t.Errorf("a new leader, after days without one: %+v", e)
		}
	})
}

func TestAnEvictedNodeGetsNothingThatItCanOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 3)
		stop := c.lead()
		before := map[fleet.NodeID]fleet.KeyEnvelope{}
		for id := range c.node {
			set, err := c.lib.HeadSet(id)
			if err != nil || !c.opens(id, *set.Envelope) {
				t.Fatalf("%s: %v", id, err)
			}
			before[id] = *set.Envelope
		}
		c.must(command.NodeRevoke{ID: "n2"})
		c.settle()
		if e := c.epoch(); e.Number != 2 || e.Cause != fleet.EpochEvicted || e.Node != "n2" {
			t.Fatalf("%+v", e)
		}
		if _, err := c.lib.HeadSet("n2"); !errors.Is(err, fleet.ErrDenied) {
			t.Errorf("the evicted node's poll: %v", err)
		}
		if c.opens("n2", before["n2"]) || c.opens("n1", before["n1"]) {
			t.Error("what was given before the eviction opens what is delivered after it")
		}
		set, err := c.lib.HeadSet("n1")
		if err != nil || !c.opens("n1", *set.Envelope) {
			t.Errorf("the other node: %v", err)
		}
		if c.opens("n2", *set.Envelope) {
			t.Error("the evicted node opens the other's envelope")
		}
		// The next leader does not evict it once more; the next eviction is one.
		stop()
		stop = c.lead()
		defer stop()
		if e := c.epoch(); e.Number != 2 {
			t.Errorf("a new leader: %+v", e)
		}
		c.must(command.NodeRevoke{ID: "n1"})
		c.settle()
		if e := c.epoch(); e.Number != 3 || e.Node != "n1" {
			t.Errorf("%+v", e)
		}
	})
}

// What a new epoch writes to the log does not depend on what is sealed by its key.
func TestANewEpochWritesNothingPerCertificate(t *testing.T) {
	type cost struct {
		log   []command.Type
		bytes int
	}
	costs := map[int]cost{}
	for _, n := range []int{1, 200} {
		synctest.Test(t, func(t *testing.T) {
			c := newCluster(t, n)
			stop := c.lead()
			defer stop()
			root := c.lib.Root("default", fleet.HeadCerts)
			c.since()
			time.Sleep(fleet.EpochLife)
			c.settle()
			log, bytes := c.since()
			if c.lib.Root("default", fleet.HeadCerts) == root {
				t.Error("what nodes get is not sealed anew")
			}
			costs[n] = cost{log, bytes}
		})
	}
	want := []command.Type{command.TypeGroupRekey, command.TypeHeadsAdvance}
	for n, got := range costs {
		if diff := cmp.Diff(want, got.log); diff != "" {
			t.Errorf("with %d certificates: %s", n, diff)
		}
	}
	if one, many := costs[1].bytes, costs[200].bytes; many-one > 8 || one-many > 8 { // times differ in length
		t.Errorf("%d bytes with one certificate, %d with 200", one, many)
	}
}

// A restored state has an old epoch: the keys of its next must not be those that an evicted node was given before.
func TestARestoredStateNeverUsesAKeyTwice(t *testing.T) {
	e := fleet.GroupEpoch{Number: 7}
	seen := map[uint64]bool{}
	for _, incarnation := range []uint64{1, 2, 3} {
		k := e.Key(incarnation)
		if seen[k] || len(seen) > 0 && k <= (fleet.GroupEpoch{Number: 1 << 20}).Key(incarnation-1) {
			t.Errorf("incarnation %d has the key of epoch %d", incarnation, k)
		}
		seen[k] = true
	}
	if e.Key(0) != 7 || e.Key(1) != 7 {
		t.Error("the first incarnation's epochs are their numbers")
	}
}

func TestAnEpochWaitsForMembersThatDoNotKnowIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 1)
		c.refuse = fleet.NewError(fleet.ErrConflict, "", "upgrade the others")
		stop := c.lead()
		defer stop()
		time.Sleep(fleet.EpochLife)
		c.settle()
		if e := c.epoch(); e.Number != 1 {
			t.Fatalf("%+v", e)
		}
		c.mu.Lock()
		c.refuse = nil
		c.mu.Unlock()
		time.Sleep(2 * time.Minute)
		c.settle()
		if e := c.epoch(); e.Number != 2 {
			t.Errorf("%+v", e)
		}
	})
}
