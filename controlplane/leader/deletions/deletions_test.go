package deletions_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"github.com/edgefleet/edgefleet/controlplane/blobs"
	"github.com/edgefleet/edgefleet/controlplane/command"
	"github.com/edgefleet/edgefleet/controlplane/fsm"
	"github.com/edgefleet/edgefleet/controlplane/keys"
	"github.com/edgefleet/edgefleet/controlplane/leader/deletions"
	"github.com/edgefleet/edgefleet/controlplane/leader/heads"
	"github.com/edgefleet/edgefleet/controlplane/state"
	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/tls/keyring"
)

const shop fleet.HostName = "shop.example.com"

// cluster is a state machine that applies what is proposed, with real keys, a real library and two nodes.
type cluster struct {
	t       *testing.T
	state   *state.Store
	machine *fsm.FSM
	kek     *keyring.KEK
	lib     *blobs.Library

	mu    sync.Mutex
	index uint64
}

func (c *cluster) Propose(_ context.Context, h command.Header, b command.Body) (any, error) {
	entry, err := command.Encode(h, b)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.index++
	r, _ := c.machine.Apply(&raft.Log{Index: c.index, Data: entry}).(fsm.Result)
	if r.Err != nil {
		return nil, r.Err
	}
	return r.Object, nil
}

func (c *cluster) try(b command.Body) error {
	_, err := c.Propose(c.t.Context(), command.Header{Time: time.Now()}, b)
	return err
}

func (c *cluster) must(bs ...command.Body) {
	c.t.Helper()
	for _, b := range bs {
		if err := c.try(b); err != nil {
			c.t.Fatalf("%s: %v", b.Type(), err)
		}
	}
}

var create = command.Put{Create: true}

func claim(of fleet.TenantID, label string) command.HostPut {
	return command.HostPut{Put: create, Name: shop, Tenant: of, Label: label, Exclusive: true, Spec: fleet.HostSpec{Mode: fleet.ModeBlock, Origins: []fleet.Origin{{URL: "https://203.0.113.1"}}}}
}

// newCluster has two tenants, two nodes, and a host with a certificate that both nodes have.
func newCluster(t *testing.T) *cluster {
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
	c := &cluster{t: t, kek: kek, state: s, machine: fsm.New(s), lib: blobs.New(s, k)}
	hash := make([]byte, fleet.HashBytes)
	c.must(command.ClusterInit{Cluster: rec, Member: fleet.Member{ID: "m1", API: "127.0.0.1:1", NATS: "127.0.0.1:2"}, Token: fleet.TokenRecord{Token: fleet.Token{ID: "op", Role: fleet.RoleOperator}, Hash: hash}})
	for i, id := range []fleet.NodeID{"n1", "n2"} {
		_, public, err := keyring.NewHPKEKey()
		if err != nil {
			t.Fatal(err)
		}
		token := fleet.JoinTokenRecord{JoinToken: fleet.JoinToken{ID: fleet.TokenID("j" + id), Kind: fleet.JoinNode, Group: "default", Region: "eu", ExpiresAt: time.Now().Add(time.Minute)}, Hash: hash}
		c.must(command.JoinTokenPut{Token: token}, command.NodeEnrol{Token: token.ID, ID: id, Spec: fleet.NodeSpec{Addresses: []netip.Addr{netip.AddrFrom4([4]byte{198, 51, 100, byte(i + 1)})}}, Identity: fleet.NodeIdentity{HPKE: public}})
	}
	for _, id := range []fleet.TenantID{"acme", "beta"} {
		c.must(command.TenantPut{Put: create, ID: id, Spec: fleet.TenantSpec{Form: fleet.SecurityEdge, Group: "default"}})
	}
	sealed, err := kek.Seal([]byte("PRIVATE KEY"), keyring.CertKeyAAD("acme", shop, "spki", 1))
	if err != nil {
		t.Fatal(err)
	}
	c.must(
		claim("acme", "la"),
		command.OrderPut{Put: create, Order: fleet.OrderRecord{Order: fleet.Order{ID: "o1", Host: shop, Tenant: "acme", Generation: 1, State: fleet.OrderQueued}, Key: sealed, SPKI: "spki"}},
		command.CertificateCommit{Order: "o1", Certificate: fleet.CertificateRecord{Certificate: fleet.Certificate{Host: shop, Tenant: "acme", Generation: 1, SPKI: "spki", Chain: "chain"}}},
	)
	return c
}

// deletions and heads are loops of a leader.
func (c *cluster) deletions() func(context.Context) error {
	return (&deletions.Loop{State: c.state, Proposer: c, Fetch: c.lib.Blob, Logger: slog.New(slog.DiscardHandler), Now: time.Now}).Run
}

func (c *cluster) heads() func(context.Context) error {
	return (&heads.Loop{State: c.state, Library: c.lib, Proposer: c, Publish: func(string, []byte) error { return nil }, Now: time.Now}).Run
}

// lead runs loops until the test ends.
func (c *cluster) lead(loops ...func(context.Context) error) {
	ctx, cancel := context.WithCancel(c.t.Context())
	var wg sync.WaitGroup
	for _, run := range loops {
		wg.Go(func() {
			if err := run(ctx); err != nil {
				c.t.Error(err)
			}
		})
	}
	c.t.Cleanup(func() {
		cancel()
		wg.Wait()
	})
	c.settle()
}

func (c *cluster) settle() {
	time.Sleep(5 * time.Second)
	synctest.Wait()
}

// report has a node say that it is up, and that it runs the newest heads of some kinds.
func (c *cluster) report(id fleet.NodeID, kinds ...fleet.HeadKind) {
	c.t.Helper()
	v := c.state.Read()
	n, _ := v.Node(id)
	o := n.Observed
	o.State, o.Serving = fleet.NodeUp, true
	for _, kind := range kinds {
		h, ok := v.Head("default", kind)
		if !ok {
			c.t.Fatalf("no head of kind %s", kind)
		}
		o.Heads = append(slices.DeleteFunc(slices.Clone(o.Heads), func(r fleet.HeadReport) bool { return r.Kind == kind }), fleet.HeadReport{Kind: kind, Version: h.Version, Root: h.Root})
	}
	c.must(command.NodesReport{Reports: []command.NodeReport{{ID: id, Observed: o}}})
	c.settle()
}

// open is a cluster whose nodes have the host, which is then retired.
func open(t *testing.T) *cluster {
	t.Helper()
	c := newCluster(t)
	c.lead(c.deletions(), c.heads())
	c.report("n1", fleet.HeadKinds...)
	c.report("n2", fleet.HeadKinds...)
	c.must(command.HostRetire{Name: shop, Tenant: "acme"})
	c.settle()
	return c
}

func (c *cluster) deleting() bool {
	h, ok := c.state.Read().Host(shop)
	if ok && (h.Observed.Phase != fleet.PhaseDeleting || !h.Deleting()) {
		c.t.Errorf("%+v", h)
	}
	return ok
}

func TestANameIsFreeWhenEveryEdgeLetGoOfIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := open(t)
		if _, ok := c.state.Read().Certificate(shop); ok {
			t.Error("the certificate is still there")
		}
		for _, step := range []func(){
			func() {},
			func() { c.report("n1", fleet.HeadKinds...) },
			func() { c.report("n2", fleet.HeadConfig) },
		} {
			step()
			if !c.deleting() {
				t.Fatal("the name is free while an edge has it")
			}
			if err := c.try(claim("beta", "lb")); !errors.Is(err, fleet.ErrConflict) || strings.Contains(fmt.Sprint(err), "acme") {
				t.Errorf("another tenant's claim: %v", err)
			}
		}
		c.report("n2", fleet.HeadCerts)
		if c.deleting() {
			t.Fatal("no edge has the host, and its name is not free")
		}
		l, ok := c.state.Read().Label("la")
		if !ok || l.Host != shop || l.Tenant != "acme" || l.DeletedAt.IsZero() {
			t.Errorf("the tombstone is %+v", l)
		}
		if err := c.try(claim("beta", "la")); !errors.Is(err, fleet.ErrConflict) {
			t.Errorf("the label is issued again: %v", err)
		}
		c.must(claim("beta", "lb"))
	})
}

func TestANameIsHeldUntilANewIncarnationHasHeads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		c.report("n1")
		c.must(command.HostRetire{Name: shop, Tenant: "acme"})
		c.lead(c.deletions())
		if !c.deleting() {
			t.Fatal("the name is free while an edge may have it")
		}
		c.lead(c.heads())
		if !c.deleting() {
			t.Fatal("the name is free before the edge has what is new")
		}
		c.report("n1", fleet.HeadKinds...)
		if c.deleting() {
			t.Error("the edge has not the host, and its name is not free")
		}
	})
}

func TestAnEdgeThatIsDownKeepsNoName(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := open(t)
		c.report("n1", fleet.HeadKinds...)
		if !c.deleting() {
			t.Fatal("the name is free while an edge has it")
		}
		n, _ := c.state.Read().Node("n2")
		n.Observed.State = fleet.NodeDown
		c.must(command.NodesReport{Reports: []command.NodeReport{{ID: "n2", Observed: n.Observed}}})
		c.settle()
		if c.deleting() {
			t.Error("an edge that is down keeps the name")
		}
	})
}

func TestAnEdgeThatTakesNothingNewKeepsANameForAWhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := open(t)
		time.Sleep(deletions.Patience - time.Minute)
		if !c.deleting() {
			t.Fatal("the name is free too early")
		}
		time.Sleep(2 * time.Minute)
		if c.deleting() {
			t.Error("it keeps the name for ever")
		}
	})
}
