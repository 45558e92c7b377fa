package state_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/edgefleet/edgefleet/controlplane/state"
	"github.com/edgefleet/edgefleet/fleet"
)

var (
	noon  = time.Date(2026, 11, 5, 12, 0, 0, 0, time.UTC)
	equal = cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{})
)

func meta(r uint64) fleet.Meta { return fleet.Meta{Revision: r, CreatedAt: noon, UpdatedAt: noon} }

func sealed(s string) fleet.Sealed {
	return fleet.Sealed{Key: "kek", Nonce: []byte("nonce"), Ciphertext: []byte(s)}
}

// full writes at least one object into every table.
func full(t *testing.T) *state.Store {
	t.Helper()
	s := state.New()
	tx := s.Write()
	tx.SetIndex(77)
	tx.PutCluster(fleet.ClusterRecord{
		Cluster: fleet.Cluster{ID: "c1", Incarnation: 2, Zone: "edge.example.net", MemberCA: "pem\n", HeadKeys: [][]byte{{1, 2}}, Meta: meta(1)},
		Secrets: map[fleet.SecretName]fleet.Sealed{fleet.SecretHeadKey: sealed("a"), fleet.SecretNodeCA: sealed("b")},
	})
	tx.PutMember(fleet.Member{ID: "m1", Raft: "127.0.0.1:1", Meta: meta(2)})
	tx.PutGroup(fleet.Group{Name: "default", Spec: fleet.GroupSpec{Form: fleet.SecurityEdge}, Meta: meta(3)})
	tx.PutTenant(fleet.Tenant{ID: "acme", Spec: fleet.TenantSpec{Name: "Acme <&>", Form: fleet.SecurityEdge, Group: "default", AllowedOrigins: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}, Meta: meta(4)})
	tx.PutTenant(fleet.Tenant{ID: "beta", Meta: meta(4)})
	tx.PutToken(fleet.TokenRecord{Token: fleet.Token{ID: "op", Role: fleet.RoleOperator, Meta: meta(5)}, Hash: []byte("hash")})
	tx.PutToken(fleet.TokenRecord{Token: fleet.Token{ID: "ta", Role: fleet.RoleTenant, Tenant: "acme"}})
	for i, h := range []string{"a.example.com", "b.example.com", "c.b.example.com"} {
		tx.PutHost(fleet.Host{Name: fleet.HostName(h), Tenant: []fleet.TenantID{"acme", "beta", "acme"}[i], Spec: fleet.HostSpec{Origins: []fleet.Origin{{URL: "https://203.0.113.1"}}, Mode: fleet.ModeBlock}, Meta: meta(6)})
		tx.PutLabel(fleet.Label{Label: fmt.Sprint("l", i), Host: fleet.HostName(h)})
	}
	tx.PutRule(fleet.Rule{ID: "r1", Tenant: "acme", Spec: fleet.RuleSpec{Kind: fleet.RuleRegex, Point: fleet.Point{{"post"}, {"hash", "x"}}, Pattern: "<a>"}, Meta: meta(7)})
	tx.PutRule(fleet.Rule{ID: "r2", Tenant: "beta"})
	tx.PutJoinToken(fleet.JoinTokenRecord{JoinToken: fleet.JoinToken{ID: "j1", Kind: fleet.JoinNode, ExpiresAt: noon}, Hash: []byte("h")})
	tx.PutNode(fleet.Node{
		ID: "n1", Spec: fleet.NodeSpec{Group: "default", Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.1")}}, Identity: fleet.NodeIdentity{HPKE: []byte{1}},
		Observed: fleet.NodeObserved{Heads: []fleet.HeadReport{{Kind: fleet.HeadConfig, Root: "r", AppliedAt: noon}}}, Meta: meta(8),
	})
	tx.PutNode(fleet.Node{ID: "n2", Spec: fleet.NodeSpec{Group: "default"}, Identity: fleet.NodeIdentity{RevokedAt: noon}})
	tx.PutHead(fleet.GroupHead{Group: "default", Kind: fleet.HeadConfig, Version: fleet.Version{Incarnation: 1, Generation: 9}, Root: "sha256:x"})
	tx.PutHead(fleet.GroupHead{Group: "default", Kind: fleet.HeadCerts})
	tx.PutChallenge(fleet.Challenge{Type: fleet.ChallengeDNS01, Host: "a.example.com", Tenant: "acme", Token: "t1", Response: "r"})
	tx.PutChallenge(fleet.Challenge{Type: fleet.ChallengeDNS01, Host: "b.example.com", Tenant: "beta", Token: "t1"})
	tx.PutOrder(fleet.OrderRecord{Order: fleet.Order{ID: "o1", Host: "a.example.com", Tenant: "acme", State: fleet.OrderQueued}, Key: sealed("k"), CSR: []byte("csr"), SPKI: "spki"})
	tx.PutOrder(fleet.OrderRecord{Order: fleet.Order{ID: "o2", Host: "b.example.com"}})
	tx.PutCertificate(fleet.CertificateRecord{Certificate: fleet.Certificate{Host: "a.example.com", Generation: 1, NotAfter: noon}, Key: sealed("k")})
	for i := range uint64(3) {
		tx.PutOnce(fleet.Once{Caller: "tenant/acme", Key: fmt.Sprint("k", i), Request: "r", Answer: []byte(`{"a":"\u003c"}`), AnswerSum: "s", Expires: noon, Index: 30 + i, Seq: 5 + i, Bytes: 12 * i})
	}
	tx.PutOnce(fleet.Once{Caller: "tenant/ac", Key: "k0", Expires: noon.Add(time.Hour), Index: 40, Seq: 1})
	tx.PutEntry(fleet.Entry{Key: "acme/a", Value: []byte("v"), UpdatedAt: noon})
	tx.PutEntry(fleet.Entry{Key: "acme/a/b"})
	tx.PutEntry(fleet.Entry{Key: "acme/ab"})
	tx.PutOrigins(fleet.HostOrigins{Host: "a.example.com", Tenant: "acme", Services: []fleet.ResolvedOrigin{{URL: "consul://web", Instances: []fleet.Origin{{URL: "http://203.0.113.7:80"}}}}})
	prev := fleet.AuditGenesis
	for i := range uint64(700) {
		e, err := fleet.AuditEntry{Seq: i + 1, Time: noon, Operation: "host_put", Tenant: []fleet.TenantID{"acme", "beta"}[i%2], After: []byte(`{"a":"\u003c"}`)}.Chain(prev)
		if err != nil {
			t.Fatal(err)
		}
		tx.PutAudit(e)
		prev = e.Hash
	}
	tx.PutAuditSegment(fleet.AuditSegment{From: 1, To: 300, Hash: "h", Digest: "sha256:x", Checkpoint: fleet.AuditCheckpoint{Seq: 300, Signature: []byte("s"), Time: noon}})
	tx.PutAuditSegment(fleet.AuditSegment{From: 301, To: 600})
	tx.PutAuditCheckpoint(fleet.AuditCheckpoint{From: 601, Seq: 650, Time: noon})
	tx.Commit()
	return s
}

func snapshot(t *testing.T, s *state.Store) []byte {
	t.Helper()
	var b bytes.Buffer
	n, err := s.Read().WriteTo(&b)
	if err != nil || n != int64(b.Len()) {
		t.Fatal(n, b.Len(), err)
	}
	return b.Bytes()
}

func hash(t *testing.T, s *state.Store) string {
	t.Helper()
	h, err := s.Read().Hash()
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// tables is the whole content of a state by table.
func tables(v *state.View) map[state.Table]any {
	c, _ := v.Cluster()
	var labels []fleet.Label
	for i := range 3 {
		l, _ := v.Label(fmt.Sprint("l", i))
		labels = append(labels, l)
	}
	j, _ := v.JoinToken("j1")
	return map[state.Table]any{
		state.Applied: v.Index(), state.Clusters: c, state.Members: v.Members(), state.Groups: v.Groups(), state.Tenants: v.Tenants(),
		state.Tokens: v.TokensAfter("", "", 100), state.Hosts: v.Hosts(), state.Labels: labels, state.Rules: append(v.RulesOf("acme"), v.RulesOf("beta")...),
		state.JoinTokens: j, state.Nodes: v.Nodes(), state.Heads: v.Heads(), state.Challenges: v.Challenges(), state.Orders: v.Orders(),
		state.Certificates: v.Certificates(), state.Entries: v.EntriesBelow(""), state.Audit: v.AuditAfter("", 0, 1000),
		state.Origins:       v.AllOrigins(),
		state.AuditSegments: slices.Collect(v.AuditSegments(0)), state.AuditCheckpoints: v.AuditCheckpoints(),
	}
}

func TestSnapshotRoundTripOfEveryTable(t *testing.T) {
	s := full(t)
	b := snapshot(t, s)
	for table := range tables(s.Read()) {
		if !bytes.Contains(b, []byte(`{"table":"`+string(table)+`",`)) {
			t.Errorf("no row of %s in the snapshot", table)
		}
	}
	other := state.New()
	if err := other.Restore(bytes.NewReader(b)); err != nil {
		t.Fatal(err)
	}
	want, got := tables(s.Read()), tables(other.Read())
	for table := range want {
		if diff := cmp.Diff(want[table], got[table], equal); diff != "" {
			t.Errorf("%s: %s", table, diff)
		}
	}
	if !bytes.Equal(b, snapshot(t, other)) || hash(t, s) != hash(t, other) {
		t.Error("the snapshot of the restored state differs")
	}
	if err := fleet.VerifyAudit(other.Read().AuditAfter("", 0, 1000)); err != nil {
		t.Error(err)
	}
}

func TestSnapshotOfNothing(t *testing.T) {
	s := full(t)
	if err := s.Restore(bytes.NewReader(snapshot(t, state.New()))); err != nil {
		t.Fatal(err)
	}
	if hash(t, s) != hash(t, state.New()) {
		t.Error("restoring an empty state left something behind")
	}
}

func TestDamagedSnapshotsAreRefusedAndTheOldStateStays(t *testing.T) {
	good := snapshot(t, full(t))
	lines := bytes.SplitAfter(good, []byte("\n"))
	without := func(i int) []byte { return bytes.Join(append(append([][]byte{}, lines[:i]...), lines[i+1:]...), nil) }
	with := func(i int, l string) []byte {
		return bytes.Join(append(append(append([][]byte{}, lines[:i]...), []byte(l+"\n")), lines[i:]...), nil)
	}
	for name, in := range map[string][]byte{
		"nothing":                 nil,
		"half":                    good[:len(good)/2],
		"all but the last byte":   good[:len(good)-1],
		"all but the trailer":     bytes.Join(lines[:len(lines)-2], nil),
		"no header":               without(0),
		"a row missing":           without(5),
		"a row twice":             with(5, string(bytes.TrimSpace(lines[5]))),
		"a later format":          bytes.Replace(good, []byte(`{"format":1}`), []byte(`{"format":2}`), 1),
		"an unknown table":        with(3, `{"table":"rollouts","row":{"id":"x"}}`),
		"an unknown field":        with(3, `{"table":"tenants","row":{"id":"x","colour":"red"}}`),
		"an unknown line":         with(3, `{"comment":"x"}`),
		"a row without its id":    with(3, `{"table":"tenants","row":{}}`),
		"a row that is null":      with(3, `{"table":"heads","row":null}`),
		"a row without content":   with(3, `{"table":"tokens"}`),
		"a row of the wrong kind": with(3, `{"table":"tenants","row":[]}`),
		"an empty object":         with(3, `{}`),
		"something after the end": append(bytes.Clone(good), "{}\n"...),
		"no JSON":                 []byte("PK\x03\x04\n"),
	} {
		t.Run(name, func(t *testing.T) {
			s := full(t)
			before := hash(t, s)
			if err := s.Restore(bytes.NewReader(in)); !errors.Is(err, fleet.ErrCorrupt) {
				t.Errorf("got %v", err)
			}
			if hash(t, s) != before {
				t.Error("the old state is gone")
			}
		})
	}
}

func TestNoFlippedBitGoesUnnoticed(t *testing.T) {
	good := snapshot(t, small())
	s := state.New()
	if err := s.Restore(bytes.NewReader(good)); err != nil {
		t.Fatal(err)
	}
	want := hash(t, s)
	for i := range good {
		for bit := range 8 {
			bad := bytes.Clone(good)
			bad[i] ^= 1 << bit
			err := s.Restore(bytes.NewReader(bad))
			// A key of the trailer in capitals reads the same; everything else is refused.
			if err != nil && !errors.Is(err, fleet.ErrCorrupt) || err == nil && !bytes.EqualFold(bad, good) {
				t.Fatalf("byte %d (%q), bit %d: %v", i, good[i], bit, err)
			}
		}
		if hash(t, s) != want {
			t.Fatalf("byte %d (%q): the old state is gone", i, good[i])
		}
	}
	for n := range good {
		if err := s.Restore(bytes.NewReader(good[:n])); !errors.Is(err, fleet.ErrCorrupt) {
			t.Fatalf("the first %d bytes: %v", n, err)
		}
	}
}

func small() *state.Store {
	s := state.New()
	tx := s.Write()
	tx.SetIndex(3)
	tx.PutTenant(fleet.Tenant{ID: "acme", Meta: meta(1)})
	tx.PutHost(fleet.Host{Name: "a.example.com", Tenant: "acme", Meta: meta(2)})
	tx.PutHead(fleet.GroupHead{Group: "default", Kind: fleet.HeadConfig, Meta: meta(3)})
	tx.Commit()
	return s
}

func TestAReaderThatFailsIsNoCorruption(t *testing.T) {
	disk := errors.New("disk is on fire")
	err := state.New().Restore(broken{disk})
	if !errors.Is(err, disk) || errors.Is(err, fleet.ErrCorrupt) {
		t.Errorf("got %v", err)
	}
	if _, err := full(t).Read().WriteTo(broken{disk}); !errors.Is(err, disk) {
		t.Errorf("got %v", err)
	}
}

type broken struct{ err error }

func (b broken) Read([]byte) (int, error)  { return 0, b.err }
func (b broken) Write([]byte) (int, error) { return 0, b.err }

func TestAViewNeverChanges(t *testing.T) {
	s := full(t)
	v := s.Read()
	before, _ := v.Hash()
	tx := s.Write()
	tx.DeleteTenant("acme")
	tx.SetIndex(78)
	if _, ok := s.Read().Tenant("acme"); !ok {
		t.Error("a write is visible before it is committed")
	}
	if _, ok := tx.Tenant("acme"); ok || tx.Index() != 78 {
		t.Error("a transaction does not see its own writes")
	}
	tx.Commit()
	if after, _ := v.Hash(); after != before {
		t.Error("the view changed")
	}
	if _, ok := s.Read().Tenant("acme"); ok {
		t.Error("the committed delete is not visible")
	}
	tx = s.Write()
	tx.DeleteTenant("beta")
	tx.Abort()
	if _, ok := s.Read().Tenant("beta"); !ok {
		t.Error("an aborted delete is visible")
	}
}

func TestAViewServesManyGoroutines(t *testing.T) {
	s := full(t)
	v := s.Read()
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 20 {
				if len(v.HostsOf("acme")) != 2 || v.AuditHead().Seq != 700 {
					t.Error("a list is short")
				}
			}
		})
	}
	wg.Go(func() {
		for i := range uint64(50) {
			tx := s.Write()
			tx.SetIndex(100 + i)
			tx.PutTenant(fleet.Tenant{ID: "gamma"})
			tx.Commit()
		}
	})
	wg.Wait()
}

func TestDeletesTakeWhatBelongsToTheObject(t *testing.T) {
	s := full(t)
	tx := s.Write()
	tx.DeleteHost("a.example.com")
	tx.DeleteTenant("acme")
	tx.DeleteEntry("acme/a")
	tx.DeleteMember("m1")
	tx.DeleteMember("never there")
	tx.Commit()
	v := s.Read()
	if len(v.Challenges()) != 1 || len(v.OrdersOf("a.example.com")) != 0 || len(v.Orders()) != 1 || len(v.Certificates()) != 0 {
		t.Error("the host's challenges, orders or certificates", v.Challenges(), v.Orders(), v.Certificates())
	}
	if _, ok := v.Label("l0"); !ok {
		t.Error("a label is never forgotten")
	}
	if ts := v.TokensAfter("", "", 10); len(ts) != 1 || ts[0].ID != "op" || len(v.RulesOf("acme")) != 0 || len(v.RulesOf("beta")) != 1 {
		t.Error("the tenant's tokens or rules", ts)
	}
	if es := v.EntriesBelow("acme/"); len(es) != 1 || es[0].Key != "acme/ab" {
		t.Error("entries", es)
	}
	if len(v.Members()) != 0 {
		t.Error("members", v.Members())
	}
}

func TestListsGoOnAfterACursor(t *testing.T) {
	v := full(t).Read()
	names := func(hs []fleet.Host) (out []string) {
		for _, h := range hs {
			out = append(out, string(h.Name))
		}
		return out
	}
	for _, tc := range []struct {
		tenant fleet.TenantID
		cursor string
		limit  int
		want   []string
	}{
		{"", "", 10, []string{"a.example.com", "b.example.com", "c.b.example.com"}},
		{"", "", 2, []string{"a.example.com", "b.example.com"}},
		{"", "b.example.com", 2, []string{"c.b.example.com"}},
		{"", "b", 1, []string{"b.example.com"}},
		{"acme", "", 10, []string{"a.example.com", "c.b.example.com"}},
		{"acme", "a.example.com", 10, []string{"c.b.example.com"}},
		{"", "zzz", 10, nil},
		{"", "", 0, nil},
	} {
		if diff := cmp.Diff(tc.want, names(v.HostsAfter(tc.tenant, tc.cursor, tc.limit))); diff != "" {
			t.Errorf("%+v: %s", tc, diff)
		}
	}
	if got := v.RulesAfter("acme", "", 10); len(got) != 1 || got[0].ID != "r1" {
		t.Error(got)
	}
	if got := v.TokensAfter("acme", "", 10); len(got) != 1 || got[0].ID != "ta" {
		t.Error(got)
	}
	if got := v.TenantsAfter("acme", 10); len(got) != 1 || got[0].ID != "beta" {
		t.Error(got)
	}
	if got := v.NodesAfter("n1", 10); len(got) != 1 || got[0].ID != "n2" {
		t.Error(got)
	}
	if got := v.NodesOf("default"); len(got) != 1 || got[0].ID != "n1" {
		t.Error("revoked nodes are in no group", got)
	}
	if got := names(slices.Collect(v.HostsBelow("b.example.com"))); len(got) != 1 || got[0] != "c.b.example.com" {
		t.Error(got)
	}
}

func TestHostsAreListedByWhatTheyAreBelowAndWhatTheyName(t *testing.T) {
	s := state.New()
	host := func(name fleet.HostName, origin string) fleet.Host {
		return fleet.Host{Name: name, Tenant: "acme", Spec: fleet.HostSpec{Origins: []fleet.Origin{{URL: origin}}}}
	}
	write := func(f func(*state.Tx)) *state.View {
		tx := s.Write()
		f(tx)
		tx.Commit()
		return s.Read()
	}
	v := write(func(tx *state.Tx) {
		for _, n := range []fleet.HostName{"shop.example", "a.shop.example", "b.a.shop.example", "ashop.example", "shop.example.org", "example"} {
			tx.PutHost(host(n, "https://203.0.113.1"))
		}
		tx.PutHost(host("svc.example", "consul://web"))
		bound := host("eu.example", "https://203.0.113.1")
		bound.Spec.Regions = []fleet.RegionName{"eu"}
		tx.PutHost(bound)
	})
	is := func(what string, got []fleet.Host, want ...fleet.HostName) {
		t.Helper()
		var names []fleet.HostName
		for _, h := range got {
			names = append(names, h.Name)
		}
		if diff := cmp.Diff(want, names, cmpopts.EquateEmpty(), cmpopts.SortSlices(func(a, b fleet.HostName) bool { return a < b })); diff != "" {
			t.Errorf("%s (-want +got):\n%s", what, diff)
		}
	}
	is("below shop.example", slices.Collect(v.HostsBelow("shop.example")), "a.shop.example", "b.a.shop.example")
	is("below example", slices.Collect(v.HostsBelow("example")), "shop.example", "a.shop.example", "b.a.shop.example", "ashop.example", "svc.example", "eu.example")
	is("in regions", v.HostsInRegions(), "eu.example")
	is("with a service", v.HostsWithServices(), "svc.example")
	v = write(func(tx *state.Tx) {
		tx.PutHost(host("svc.example", "https://203.0.113.1"))
		tx.PutHost(host("a.shop.example", "consul://web"))
		tx.DeleteHost("b.a.shop.example")
		tx.PutHost(host("eu.example", "https://203.0.113.1"))
		bound := host("us.example", "https://203.0.113.1")
		bound.Spec.Regions = []fleet.RegionName{"us"}
		tx.PutHost(bound)
	})
	is("in regions, another", v.HostsInRegions(), "us.example")
	is("below shop.example, one deleted", slices.Collect(v.HostsBelow("shop.example")), "a.shop.example")
	is("with a service, others", v.HostsWithServices(), "a.shop.example")
}

func TestAuditIsListedInOrderBeyondAByte(t *testing.T) {
	v := full(t).Read()
	var all []fleet.AuditEntry
	for {
		seq := uint64(0)
		if len(all) > 0 {
			seq = all[len(all)-1].Seq
		}
		page := v.AuditAfter("", seq, 64)
		if len(page) == 0 {
			break
		}
		all = append(all, page...)
	}
	if err := fleet.VerifyAudit(all); err != nil || len(all) != 700 {
		t.Error(len(all), err)
	}
	if h := v.AuditHead(); h.Seq != 700 || h.Hash != all[699].Hash {
		t.Error(h)
	}
	own := v.AuditAfter("beta", 690, 3)
	if len(own) != 3 || own[0].Seq != 692 || own[2].Seq != 696 {
		t.Error(own)
	}
	if got := v.AuditAfter("", math.MaxUint64, 10); len(got) != 0 {
		t.Errorf("%d entries after the last possible one", len(got))
	}
	if h := state.New().Read().AuditHead(); h.Seq != 0 || h.Hash != fleet.AuditGenesis {
		t.Error(h)
	}
}

func TestWatchWakesForItsTablesOnly(t *testing.T) {
	s := full(t)
	woken := func(change func(tx *state.Tx), watched ...state.Table) bool {
		ws := s.Watch(watched...)
		tx := s.Write()
		change(tx)
		tx.Commit()
		ctx, cancel := context.WithCancel(t.Context())
		cancel() // WatchCtx looks at the channels first when one is closed already
		for ch := range ws {
			select {
			case <-ch:
				return true
			default:
			}
		}
		return ws.WatchCtx(ctx) == nil
	}
	put := func(tx *state.Tx) { tx.PutHost(fleet.Host{Name: "new.example.com", Tenant: "acme"}) }
	if !woken(put, state.Nodes, state.Hosts) {
		t.Error("a new host wakes nobody who watches hosts")
	}
	if !woken(func(tx *state.Tx) { tx.DeleteHost("new.example.com") }, state.Hosts) {
		t.Error("a deleted host wakes nobody")
	}
	if woken(put, state.Nodes, state.Tenants) {
		t.Error("a new host wakes who watches nodes")
	}
	if !woken(func(tx *state.Tx) { tx.PutMember(fleet.Member{ID: "m1", API: "x"}) }, state.Members) {
		t.Error("a changed member wakes nobody")
	}
	if !woken(func(tx *state.Tx) {
		tx.PutChallenge(fleet.Challenge{Type: fleet.ChallengeHTTP01, Host: "a.example.com", Token: "t2"})
	}, state.Challenges) {
		t.Error("a challenge wakes nobody")
	}
}

func TestRestoreWakesWatchers(t *testing.T) {
	s := full(t)
	empty := state.New()
	watched := s.Watch(state.Hosts)
	first := empty.Watch(state.Hosts) // of an empty table
	if err := s.Restore(bytes.NewReader(snapshot(t, small()))); err != nil {
		t.Fatal(err)
	}
	if err := empty.Restore(bytes.NewReader(snapshot(t, full(t)))); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if watched.WatchCtx(ctx) != nil || first.WatchCtx(ctx) != nil {
		t.Error("restoring woke nobody")
	}
}

func FuzzRestore(f *testing.F) {
	var b bytes.Buffer
	if _, err := small().Read().WriteTo(&b); err != nil {
		f.Fatal(err)
	}
	f.Add(b.Bytes())
	f.Add([]byte("{\"format\":1}\n{\"table\":\"tenants\",\"row\":{}}\n"))
	f.Add([]byte("{\"format\":1}\n{\"sha256\":\"\"}\n"))
	f.Fuzz(func(t *testing.T, in []byte) {
		s := state.New()
		if err := s.Restore(bytes.NewReader(in)); err != nil && !errors.Is(err, fleet.ErrCorrupt) {
			t.Errorf("got %v", err)
		}
	})
}

func TestKeysAreInTheOrderOfTheirCallersAndOfTheLog(t *testing.T) {
	v := full(t).Read()
	oldest, ok := v.OldestOnce("tenant/acme")
	newest, also := v.NewestOnce("tenant/acme")
	if !ok || !also || oldest.Key != "k0" || newest.Key != "k2" {
		t.Errorf("got %+v and %+v", oldest, newest)
	}
	if one, ok := v.NewestOnce("tenant/ac"); !ok || one.Caller != "tenant/ac" {
		t.Errorf("got %+v", one)
	}
	for _, nobody := range []string{"tenant/a", "tenant/acmee", "a", "z", ""} {
		if o, ok := v.NewestOnce(nobody); ok {
			t.Errorf("%q has %+v", nobody, o)
		}
		if o, ok := v.OldestOnce(nobody); ok {
			t.Errorf("%q has %+v", nobody, o)
		}
	}
	if n := len(v.OnceExpired(noon, 10)); n != 3 {
		t.Errorf("%d keys are over, want 3", n)
	}
	if es := v.OnceExpired(noon, 2); len(es) != 2 || es[0].Key != "k0" {
		t.Errorf("got %+v", es)
	}
	if n := len(v.OnceExpired(noon.Add(-1), 10)); n != 0 {
		t.Errorf("%d keys are over before their time", n)
	}
}
