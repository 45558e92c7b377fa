package blobs_test

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/hashicorp/raft"

	"github.com/edgefleet/edgefleet/controlplane/blobs"
	"github.com/edgefleet/edgefleet/controlplane/command"
	"github.com/edgefleet/edgefleet/controlplane/fsm"
	"github.com/edgefleet/edgefleet/controlplane/keys"
	"github.com/edgefleet/edgefleet/controlplane/state"
	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/fleet/bundle"
	"github.com/edgefleet/edgefleet/fleet/head"
	"github.com/edgefleet/edgefleet/tls/keyring"
)

var noon = time.Date(2026, 11, 5, 12, 0, 0, 0, time.UTC)

// customerKey stands for the private key of a certificate.
const customerKey = "PRIVATE KEY OF A CUSTOMER"

// fleetOf is a cluster of members that apply the same log, each with its own state, keys and library.
type fleetOf struct {
	t       testing.TB
	kek     *keyring.KEK
	index   uint64
	members []*member
	node    []byte // the HPKE private key of n1
}

type member struct {
	*blobs.Library
	state   *state.Store
	machine *fsm.FSM
	keys    *keys.Keys
}

func newFleet(t testing.TB) *fleetOf {
	t.Helper()
	kek, err := keyring.NewKEK()
	if err != nil {
		t.Fatal(err)
	}
	rec, err := keys.Generate("c1", "edge.example.net", kek, nil, noon)
	if err != nil {
		t.Fatal(err)
	}
	f := &fleetOf{t: t, kek: kek}
	for range 2 {
		k, err := keys.Open(rec, kek)
		if err != nil {
			t.Fatal(err)
		}
		s := state.New()
		f.members = append(f.members, &member{blobs.New(s, k), s, fsm.New(s), k})
	}
	private, public, err := keyring.NewHPKEKey()
	if err != nil {
		t.Fatal(err)
	}
	f.node = private
	hash := make([]byte, fleet.HashBytes)
	create := command.Put{Create: true}
	f.apply(
		command.ClusterInit{Cluster: rec, Member: fleet.Member{ID: "m1", API: "127.0.0.1:1", NATS: "127.0.0.1:2"}, Token: fleet.TokenRecord{Token: fleet.Token{ID: "op", Role: fleet.RoleOperator}, Hash: hash}},
		command.GroupPut{Put: create, Name: "second", Spec: fleet.GroupSpec{Form: fleet.Hybrid}},
		command.TenantPut{Put: create, ID: "acme", Spec: fleet.TenantSpec{Form: fleet.SecurityEdge, Group: "default", AllowedOrigins: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}},
		command.TenantPut{Put: create, ID: "beta", Spec: fleet.TenantSpec{Form: fleet.Hybrid, Group: "second"}},
		command.JoinTokenPut{Token: fleet.JoinTokenRecord{JoinToken: fleet.JoinToken{ID: "j", Kind: fleet.JoinNode, Group: "default", Region: "eu", ExpiresAt: noon.Add(time.Minute)}, Hash: hash}},
		command.NodeEnrol{Token: "j", ID: "n1", Spec: fleet.NodeSpec{Addresses: []netip.Addr{netip.MustParseAddr("198.51.100.1")}}, Identity: fleet.NodeIdentity{HPKE: public}},
		host("www.example.com", "acme", "l1"), host("api.example.com", "acme", "l2"), host("www.beta.example", "beta", "l3"),
		command.RulePut{Put: create, ID: "r1", Tenant: "acme", Spec: fleet.RuleSpec{Kind: fleet.RuleRegex, Pattern: "<x>", AttackType: fleet.AttackCustom}},
	)
	f.issue("www.example.com", "acme", 1)
	return f
}

func host(n fleet.HostName, t fleet.TenantID, label string) command.HostPut {
	return command.HostPut{Put: command.Put{Create: true}, Name: n, Tenant: t, Label: label, Spec: fleet.HostSpec{Mode: fleet.ModeBlock, Origins: []fleet.Origin{{URL: "https://203.0.113.1"}}}}
}

// issue stores a certificate with a key as it comes from an order.
func (f *fleetOf) issue(h fleet.HostName, t fleet.TenantID, generation uint64) {
	f.t.Helper()
	sealed, err := f.kek.Seal([]byte(customerKey), keyring.CertKeyAAD(t, h, "spki", generation))
	if err != nil {
		f.t.Fatal(err)
	}
	f.issueSealed(h, t, generation, sealed)
}

func (f *fleetOf) issueSealed(h fleet.HostName, t fleet.TenantID, generation uint64, sealed fleet.Sealed) {
	f.t.Helper()
	o := fleet.OrderRecord{Order: fleet.Order{ID: "o", Host: h, Tenant: t, Generation: generation, State: fleet.OrderQueued}, Key: sealed, SPKI: "spki"}
	c := fleet.CertificateRecord{Certificate: fleet.Certificate{Host: h, Tenant: t, Generation: generation, SPKI: "spki", Chain: "chain"}}
	f.apply(command.OrderPut{Put: command.Put{Create: true}, Order: o}, command.CertificateCommit{Order: "o", Certificate: c})
}

func (f *fleetOf) apply(bs ...command.Body) {
	f.t.Helper()
	for _, b := range bs {
		entry, err := command.Encode(command.Header{Time: noon}, b)
		if err != nil {
			f.t.Fatal(err)
		}
		f.index++
		for _, m := range f.members {
			if r, ok := m.machine.Apply(&raft.Log{Index: f.index, Data: entry}).(fsm.Result); !ok || r.Err != nil {
				f.t.Fatalf("%s: %v", b.Type(), r.Err)
			}
		}
	}
}

func (f *fleetOf) refresh() {
	f.t.Helper()
	for _, m := range f.members {
		if err := m.Refresh(m.state.Read()); err != nil {
			f.t.Fatal(err)
		}
	}
}

// leaf reads a tenant's bundle out of a member's tree, as a node does.
func leaf[T any](t *testing.T, m *member, g fleet.GroupName, k fleet.HeadKind, tenant fleet.TenantID) (v T) {
	t.Helper()
	index, err := bundle.Index(m.Root(g, k), m.Blob)
	if err != nil {
		t.Fatal(err)
	}
	b, err := bundle.Blob(index[tenant], m.Blob)
	if err != nil {
		t.Fatal(err)
	}
	if err := fleet.DecodeStrict(b, &v); err != nil {
		t.Fatal(err)
	}
	return v
}

func TestEveryMemberDerivesTheSameBytes(t *testing.T) {
	f := newFleet(t)
	f.apply(command.ChallengePut{Challenge: fleet.Challenge{Type: fleet.ChallengeHTTP01, Host: "api.example.com", Token: "t", Response: "r"}})
	f.refresh()
	one, other := f.members[0], f.members[1]
	seen := map[fleet.Digest]bool{}
	for _, g := range []fleet.GroupName{"default", "second"} {
		for _, k := range fleet.HeadKinds {
			root := one.Root(g, k)
			if root.Validate() != nil || root != other.Root(g, k) || seen[root] {
				t.Errorf("%s of %s: %s here, %s there", k, g, root, other.Root(g, k))
			}
			seen[root] = true
			a, err := one.Blob(root)
			if err != nil {
				t.Fatal(err)
			}
			if b, err := other.Blob(root); err != nil || !cmp.Equal(a, b) {
				t.Error(err)
			}
		}
	}
	ca, cb := leaf[fleet.CertsBundle](t, one, "default", "certs", "acme"), leaf[fleet.CertsBundle](t, other, "default", "certs", "acme")
	if diff := cmp.Diff(ca, cb); diff != "" {
		t.Errorf("the sealed keys differ: %s", diff)
	}
	before := one.Root("default", "certs")
	f.refresh()
	if one.Root("default", "certs") != before {
		t.Error("deriving again gives other bytes")
	}
}

func TestBundlesHoldWhatNodesNeedAndOnlyTheirGroupsTenants(t *testing.T) {
	f := newFleet(t)
	f.apply(
		command.ChallengePut{Challenge: fleet.Challenge{Type: fleet.ChallengeHTTP01, Host: "api.example.com", Token: "t", Response: "r"}},
		command.ChallengePut{Challenge: fleet.Challenge{Type: fleet.ChallengeDNS01, Host: "www.example.com", Token: "dns", Response: "r"}},
		command.ChallengePut{Challenge: fleet.Challenge{Type: fleet.ChallengeHTTP01, Host: "www.beta.example", Token: "b", Response: "r"}},
	)
	f.refresh()
	m := f.members[0]
	origins := []fleet.Origin{{URL: "https://203.0.113.1"}}
	want := fleet.ConfigBundle{Tenant: "acme", AllowedOrigins: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}, Hosts: []fleet.HostConfig{
		{Name: "api.example.com", Mode: fleet.ModeBlock, Origins: origins}, {Name: "www.example.com", Mode: fleet.ModeBlock, Origins: origins},
	}}
	if diff := cmp.Diff(want, leaf[fleet.ConfigBundle](t, m, "default", "config", "acme"), cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); diff != "" {
		t.Error(diff)
	}
	if r := leaf[fleet.RulesetBundle](t, m, "default", "ruleset", "acme"); len(r.Rules) != 1 || r.Rules[0].Spec.Pattern != "<x>" {
		t.Errorf("%+v", r)
	}
	certs := leaf[fleet.CertsBundle](t, m, "default", "certs", "acme")
	if diff := cmp.Diff([]fleet.BundleChallenge{{Host: "api.example.com", Token: "t", Response: "r"}}, certs.Challenges); diff != "" {
		t.Errorf("DNS answers and other tenants' are not for these edges: %s", diff)
	}
	if len(certs.Certificates) != 1 || certs.Certificates[0].Chain != "chain" {
		t.Errorf("%+v", certs)
	}
	for _, k := range fleet.HeadKinds {
		index, err := bundle.Index(m.Root("default", k), m.Blob)
		if _, foreign := index["beta"]; err != nil || foreign || len(index) != 1 {
			t.Errorf("%s: %v %v", k, index, err)
		}
	}
}

func TestANodeOpensTheKeysOfItsBundlesWithItsHeadSet(t *testing.T) {
	f := newFleet(t)
	f.refresh()
	m := f.members[0]
	f.apply(command.HeadsAdvance{Heads: []command.HeadAdvance{{Group: "default", Kind: "certs", Version: fleet.Version{Incarnation: 1, Generation: 1}, Root: m.Root("default", "certs")}}})
	set, err := f.members[1].HeadSet("n1") // any member answers
	if err != nil {
		t.Fatal(err)
	}
	c, _ := m.state.Read().Cluster()
	h, err := head.Verify(set.Heads[0], []ed25519.PublicKey{c.HeadKeys[0]})
	if err != nil || len(set.Heads) != 1 || h.Root != m.Root("default", "certs") || h.Group != "default" {
		t.Fatalf("%+v %v", h, err)
	}
	group, err := keyring.OpenEnvelope(*set.Envelope, "n1", f.node)
	if err != nil {
		t.Fatal(err)
	}
	cert := leaf[fleet.CertsBundle](t, m, "default", "certs", "acme").Certificates[0]
	plain, err := group.Open(cert.Key, keyring.CertKeyAAD("acme", cert.Host, cert.SPKI, cert.Generation))
	if err != nil || string(plain) != customerKey {
		t.Errorf("%q %v", plain, err)
	}
	if diff := cmp.Diff([]fleet.Endpoints{{Member: "m1", API: "127.0.0.1:1", NATS: "127.0.0.1:2"}}, set.Members); diff != "" {
		t.Error(diff)
	}
	if b, err := json.Marshal(set); err != nil || strings.Contains(string(b), customerKey) {
		t.Error("a key in the clear", err)
	}
}

func TestRevokedAndUnknownNodesGetNothing(t *testing.T) {
	f := newFleet(t)
	f.refresh()
	f.apply(command.NodeRevoke{ID: "n1"})
	for _, id := range []fleet.NodeID{"n1", "n9", ""} {
		if set, err := f.members[0].HeadSet(id); !errors.Is(err, fleet.ErrDenied) || set.Envelope != nil || set.Heads != nil {
			t.Errorf("%q: %+v, %v", id, set, err)
		}
	}
}

// A node that takes long to load a tree gets to its end while newer ones come.
func TestTreesThatWereReplacedAreServedForAWhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t)
		f.refresh()
		m := f.members[0]
		roots := []fleet.Digest{m.Root("default", "config")}
		add := func(label string) {
			f.apply(host(fleet.HostName(label+".example.com"), "acme", label))
			f.refresh()
			roots = append(roots, m.Root("default", "config"))
		}
		served := func(when string, want ...bool) {
			t.Helper()
			for i, w := range want {
				if _, err := m.Blob(roots[i]); (err == nil) != w || (err != nil && !errors.Is(err, fleet.ErrNotFound)) {
					t.Errorf("%s: tree %d: %v", when, i, err)
				}
			}
		}
		add("l8")
		add("l9")
		served("at once", true, true, true)
		if _, err := bundle.Index(roots[0], m.Blob); err != nil {
			t.Error("an older tree is not whole:", err)
		}
		time.Sleep(time.Minute)
		f.refresh() // without a change nothing is forgotten
		served("a minute later", true, true, true)
		add("l10")
		served("after the next change", false, false, true, true)
		for i := range 40 {
			add(fmt.Sprintf("m%d", i))
		}
		kept := 0
		for _, r := range roots {
			if _, err := m.Blob(r); err == nil {
				kept++
			}
		}
		if kept != 32 {
			t.Errorf("after many changes at once, %d trees are kept", kept)
		}
	})
}

func TestOneTenantsDamagedKeyStopsCertificatesOnlyAndIsTold(t *testing.T) {
	f := newFleet(t)
	f.refresh()
	m := f.members[0]
	certs := m.Root("default", "certs")
	moved, err := f.kek.Seal([]byte(customerKey), keyring.CertKeyAAD("beta", "www.beta.example", "spki", 1))
	if err != nil {
		t.Fatal(err)
	}
	f.issueSealed("api.example.com", "acme", 1, moved)
	f.apply(host("new.example.com", "acme", "l9"))
	config := m.Root("default", "config")
	err = m.Refresh(m.state.Read())
	if err == nil || !strings.Contains(err.Error(), "tenant acme") || !strings.Contains(err.Error(), "api.example.com") || m.Err() == nil {
		t.Errorf("got %v, %v", err, m.Err())
	}
	if m.Root("default", "certs") != certs || m.Root("default", "config") == config || m.Root("second", "certs") == "" {
		t.Error("the wrong trees moved")
	}
	f.apply(command.HostDelete{Name: "api.example.com", Tenant: "acme"})
	if err := m.Refresh(m.state.Read()); err != nil || m.Err() != nil {
		t.Error(err, m.Err())
	}
}

func TestAMemberWithoutTheKEKDerivesNothing(t *testing.T) {
	f := newFleet(t)
	l := blobs.New(f.members[0].state, nil)
	if err := l.Refresh(f.members[0].state.Read()); !errors.Is(err, fleet.ErrSealed) {
		t.Errorf("refresh: %v", err)
	}
	if _, err := l.HeadSet("n1"); !errors.Is(err, fleet.ErrSealed) {
		t.Errorf("head set: %v", err)
	}
	if _, err := l.Blob(fleet.DigestOf(nil)); !errors.Is(err, fleet.ErrNotFound) {
		t.Errorf("blob: %v", err)
	}
	if l.Root("default", "config") != "" {
		t.Error("a root out of nothing")
	}
}

func TestRunFollowsTheState(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t)
		m := f.members[0]
		var mu sync.Mutex
		var roots []fleet.Digest
		seen := func() []fleet.Digest {
			time.Sleep(time.Second) // derivations are spaced
			synctest.Wait()
			mu.Lock()
			defer mu.Unlock()
			return append([]fleet.Digest{}, roots...)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() {
			done <- m.Run(ctx, func(context.Context) error {
				mu.Lock()
				defer mu.Unlock()
				roots = append(roots, m.Root("default", "config"))
				return nil
			})
		}()
		if got := seen(); len(got) != 1 || got[0] == "" {
			t.Fatalf("%v", got)
		}
		f.apply(host("new.example.com", "acme", "l9"))
		if got := seen(); len(got) != 2 || got[0] == got[1] {
			t.Errorf("%v", got)
		}
		f.apply(command.NodesReport{Reports: []command.NodeReport{{ID: "n1"}}}) // heartbeats derive nothing
		if got := seen(); len(got) != 2 {
			t.Errorf("%d derivations", len(got))
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		stop := errors.New("stop")
		if err := m.Run(t.Context(), func(context.Context) error { return stop }); !errors.Is(err, stop) {
			t.Error(err)
		}
	})
}

func TestAnOlderViewChangesNothing(t *testing.T) {
	f := newFleet(t)
	m := f.members[0]
	old := m.state.Read()
	f.apply(host("new.example.com", "acme", "l9"))
	f.refresh()
	root := m.Root("default", "config")
	if err := m.Refresh(old); err != nil || m.Root("default", "config") != root {
		t.Error("an older view replaced a newer one", err)
	}
}

func TestServicesAreReplacedByTheirInstances(t *testing.T) {
	f := newFleet(t)
	const name = "web.acme.example"
	put := host(name, "acme", "lweb")
	put.Spec.Origins = []fleet.Origin{{URL: "consul://web"}}
	origins := func() (out []string) {
		f.refresh()
		for _, h := range leaf[fleet.ConfigBundle](t, f.members[0], "default", fleet.HeadConfig, "acme").Hosts {
			for _, o := range h.Origins {
				if h.Name == name {
					out = append(out, o.URL)
				}
			}
		}
		return out
	}
	resolve := func(urls ...string) command.OriginsResolve {
		r := fleet.ResolvedOrigin{URL: "consul://web"}
		for _, u := range urls {
			r.Instances = append(r.Instances, fleet.Origin{URL: u})
		}
		return command.OriginsResolve{Hosts: []fleet.HostOrigins{{Host: name, Tenant: "acme", Services: []fleet.ResolvedOrigin{r}}}}
	}
	f.apply(command.HostPutConsul{HostPut: put})
	if got := origins(); got != nil {
		t.Errorf("a host of which no server is known is in the bundle with %v", got)
	}
	for _, want := range [][]string{{"http://203.0.113.7:80"}, {"http://203.0.113.7:80", "http://203.0.113.8:80"}, {"http://203.0.113.8:80"}} {
		f.apply(resolve(want...))
		if diff := cmp.Diff(want, origins()); diff != "" {
			t.Error(diff)
		}
	}
}

func TestAChangeOfOneTenantIsSeenInWhatWasKeptOfTheOthers(t *testing.T) {
	f := newFleet(t)
	m := f.members[0]
	add := func(bs ...command.Body) {
		t.Helper()
		f.apply(bs...)
		if err := m.Refresh(m.state.Read()); err != nil {
			t.Fatal(err)
		}
		for _, g := range []fleet.GroupName{"default", "second"} {
			fresh, err := blobs.Derive(m.state.Read(), g, m.keys)
			if err != nil {
				t.Fatal(err)
			}
			for _, k := range fleet.HeadKinds {
				if m.Root(g, k) != fresh[k].Root {
					t.Errorf("%s of %s after %s is not what is derived afresh", k, g, bs[0].Type())
				}
			}
		}
	}
	rule := command.RulePut{Put: command.Put{Create: true}, ID: "r2", Tenant: "beta", Spec: fleet.RuleSpec{Kind: fleet.RuleRegex, Pattern: "y", AttackType: fleet.AttackCustom}}
	add(rule)
	add(command.TenantPut{ID: "acme", Spec: fleet.TenantSpec{Form: fleet.SecurityEdge, Group: "default", AllowedOrigins: []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16")}}})
	add(command.TenantPut{ID: "acme", Spec: fleet.TenantSpec{Form: fleet.SecurityEdge, Group: "second"}})
	add(command.ChallengePut{Challenge: fleet.Challenge{Type: fleet.ChallengeHTTP01, Host: "api.example.com", Tenant: "acme", Token: "t", Response: "r"}})
	add(command.ChallengeDelete{Host: "api.example.com", Via: fleet.ChallengeHTTP01, Token: "t"})
	f.issue("api.example.com", "acme", 1)
	add(command.HostDelete{Name: "www.example.com", Tenant: "acme"})
	add(command.RuleDelete{ID: "r2", Tenant: "beta"})
	add(command.TenantPut{Put: command.Put{Create: true}, ID: "newest", Spec: fleet.TenantSpec{Form: fleet.SecurityEdge, Group: "default"}})
	add(command.TenantDelete{ID: "newest"})
}

func BenchmarkDerive(b *testing.B) {
	f, m := manyTenants(b, 1000)
	b.Run("one tenant of a thousand changes", func(b *testing.B) {
		for b.Loop() {
			f.apply(command.TenantPut{ID: "t7", Spec: fleet.TenantSpec{Name: "x", Form: fleet.SecurityEdge, Group: "default"}})
			if err := m.Refresh(m.state.Read()); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("all are derived afresh", func(b *testing.B) {
		for b.Loop() {
			if _, err := blobs.Derive(m.state.Read(), "default", m.keys); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// manyTenants is a fleet of n tenants with ten rules each, besides the usual ones.
func manyTenants(b *testing.B, n int) (*fleetOf, *member) {
	b.Helper()
	f := newFleet(b)
	f.members = f.members[:1]
	for i := range n {
		id := fleet.TenantID(fmt.Sprintf("t%d", i))
		f.apply(command.TenantPut{Put: command.Put{Create: true}, ID: id, Spec: fleet.TenantSpec{Form: fleet.SecurityEdge, Group: "default"}})
		for r := range 10 {
			f.apply(command.RulePut{Put: command.Put{Create: true}, ID: fleet.RuleID(fmt.Sprintf("r%d-%d", i, r)), Tenant: id, Spec: fleet.RuleSpec{Kind: fleet.RuleRegex, Pattern: "attack", AttackType: fleet.AttackCustom}})
		}
	}
	return f, f.members[0]
}

func TestOfATenantItsAllowedOriginsMoveABundleAndItsNameDoesNot(t *testing.T) {
	f := newFleet(t)
	m := f.members[0]
	f.refresh()
	before := m.Root("default", "config")
	tenant, _ := m.state.Read().Tenant("acme")
	put := func(spec fleet.TenantSpec) {
		f.t.Helper()
		now, _ := m.state.Read().Tenant("acme")
		f.apply(command.TenantPut{Put: command.Put{IfRevision: now.Revision}, ID: "acme", Spec: spec})
		f.refresh()
	}
	renamed := tenant.Spec
	renamed.Name = "Acme"
	put(renamed)
	if got := m.Root("default", "config"); got != before {
		t.Errorf("a name moved the tree: %s, before %s", got, before)
	}
	allowed := renamed
	allowed.AllowedOrigins = []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16")}
	put(allowed)
	if diff := cmp.Diff(allowed.AllowedOrigins, leaf[fleet.ConfigBundle](t, m, "default", fleet.HeadConfig, "acme").AllowedOrigins, cmpopts.EquateComparable(netip.Prefix{})); diff != "" {
		t.Errorf("allowed origins (-want +got):\n%s", diff)
	}
	put(tenant.Spec)
	if got := m.Root("default", "config"); got != before {
		t.Errorf("the tree of before is another one: %s, before %s", got, before)
	}
}
