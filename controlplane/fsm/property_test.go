package fsm_test

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/edgefleet/edgefleet/controlplane/command"
	"github.com/edgefleet/edgefleet/fleet"
)

// dice makes random commands over few names, so that most of them meet something.
type dice struct {
	*rand.Rand //nolint:forbidigo // seeded: the log is the input here
}

func newDice(seed uint64) dice {
	return dice{rand.New(rand.NewPCG(seed, 7))} //nolint:forbidigo // as above
}

func pick[T any](d dice, from ...T) T { return from[d.IntN(len(from))] }

func (d dice) put() command.Put {
	return command.Put{Create: d.IntN(2) == 0, IfRevision: pick(d, 0, 0, 0, 0, 0, 0, d.Uint64N(100))}
}

func (d dice) tenant() fleet.TenantID {
	return pick[fleet.TenantID](d, "acme", "acme", "acme", "acme", "acme", "beta", "gamma", "", "Bad")
}

func (d dice) host() fleet.HostName {
	return pick[fleet.HostName](d, "a.example.com", "a.example.com", "example.com", "www.beta.example", "x.edge.example.net", "bad")
}
func (d dice) node() fleet.NodeID     { return fleet.NodeID(fmt.Sprint("n", d.IntN(5))) }
func (d dice) member() fleet.MemberID { return pick[fleet.MemberID](d, "m1", "m2", "m3", "") }
func (d dice) token() fleet.TokenID   { return pick[fleet.TokenID](d, "t1", "t2", "op1", "op2", "") }
func (d dice) join() fleet.TokenID    { return fleet.TokenID(fmt.Sprint("j", d.IntN(5))) }
func (d dice) order() fleet.OrderID   { return pick[fleet.OrderID](d, "o1", "o1", "o2", "") }
func (d dice) label() string          { return fmt.Sprint("l", d.IntN(100)) }
func (d dice) group() fleet.GroupName {
	return pick[fleet.GroupName](d, "default", "default", "default", "second", "third", "")
}

func (d dice) form() fleet.Form {
	return pick(d, fleet.SecurityEdge, fleet.Hybrid, fleet.OnPremise, "bad")
}

func (d dice) addrs() []netip.Addr {
	return pick(d, nil, []netip.Addr{netip.AddrFrom4([4]byte{198, 51, 100, byte(d.IntN(50))})}, []netip.Addr{netip.AddrFrom4([4]byte{198, 51, 100, byte(d.IntN(50))})})
}

func (d dice) hostSpec() fleet.HostSpec {
	return spec(pick(d, "https://203.0.113.1", "https://203.0.113.2", "https://203.0.113.3", "http://10.0.0.1", "https://198.51.100.1", "https://lb.edge.example.net", "rubbish", "https://app.example.net"))
}

func (d dice) cert() fleet.ChallengeType {
	return pick[fleet.ChallengeType](d, fleet.ChallengeDNS01, fleet.ChallengeHTTP01, "bad")
}

func (d dice) command() command.Body {
	if d.IntN(6) == 0 {
		return d.access()
	}
	if d.IntN(12) == 0 {
		return d.disasters()
	}
	if d.IntN(12) == 0 {
		return d.zone()
	}
	if d.IntN(24) == 0 {
		return d.authority()
	}
	switch d.IntN(4) {
	case 0:
		return d.people()
	case 1:
		return d.machines()
	case 2:
		return d.certificates()
	}
	return pick[func() command.Body](d, d.people, d.machines, d.certificates)()
}

func (d dice) people() command.Body {
	switch d.IntN(15) {
	case 11, 12:
		return command.OriginCertPut{Certificate: originCert("a.example.com", d.tenant(), d.hostSpec().Origins[0].URL, pick[uint64](d, 1, 1, 1, 2))}
	case 13, 14:
		return command.OriginCertDelete{Host: "a.example.com", Tenant: d.tenant(), Origin: pick(d, "https://203.0.113.10", "https://203.0.113.1", "https://203.0.113.2", "https://203.0.113.3")}
	case 0:
		return clusterInit()
	case 1:
		return command.GroupPut{Put: d.put(), Name: d.group(), Spec: fleet.GroupSpec{Form: d.form()}}
	case 2:
		return command.TenantPut{Put: d.put(), ID: d.tenant(), Spec: fleet.TenantSpec{Form: d.form(), Group: d.group()}}
	case 3:
		return command.TenantDelete{ID: d.tenant(), IfRevision: d.put().IfRevision}
	case 4:
		role := pick(d, fleet.RoleOperator, fleet.RoleTenant)
		return command.TokenPut{Token: fleet.TokenRecord{Token: fleet.Token{ID: d.token(), Role: role, Tenant: d.tenant()}, Hash: secretHash}}
	case 5:
		return command.TokenDelete{ID: d.token(), Tenant: d.tenant()}
	case 6, 7:
		put := command.HostPut{Put: d.put(), Name: d.host(), Tenant: d.tenant(), Spec: d.hostSpec(), Label: d.label()}
		if d.IntN(3) == 0 {
			put.Spec = spec(pick(d, "consul://web", "consul://web?tag=a", "consul://web?x=y", "https://203.0.113.1"))
			return command.HostPutConsul{HostPut: put}
		}
		return put
	case 8:
		if d.IntN(3) == 0 {
			return command.HostRetire{Name: d.host(), Tenant: d.tenant(), IfRevision: d.put().IfRevision}
		}
		return command.HostDelete{Name: d.host(), Tenant: d.tenant(), IfRevision: d.put().IfRevision}
	case 9:
		b := rule(pick[fleet.RuleID](d, "r1", "r2", "r3", ""), d.tenant())
		b.Put = d.put()
		return b
	}
	if d.IntN(3) == 0 {
		return command.RulesImport{Tenant: d.tenant(), Put: []command.RuleEntry{{ID: pick[fleet.RuleID](d, "r1", "r2", "r3"), Spec: rule("", "").Spec}}}
	}
	return command.RuleDelete{ID: pick[fleet.RuleID](d, "r1", "r2", "r3"), Tenant: d.tenant()}
}

func (d dice) machines() command.Body {
	switch d.IntN(14) {
	case 12:
		return command.KeysExpire{Before: noon.Add(fleet.KeyLife), Limit: d.IntN(3)}
	case 0:
		return command.MemberPut{Member: fleet.Member{ID: d.member(), API: pick(d, "a", "b")}}
	case 1:
		m := d.member()
		if m == "" {
			return command.LeaderTransfer{From: "m1", To: "m2"}
		}
		if m == "m3" {
			return command.MemberRetire{ID: m}
		}
		return command.MemberRemove{ID: m}
	case 2:
		return command.MemberJoin{Token: d.join(), Member: fleet.Member{ID: d.member()}}
	case 3:
		return with(joinToken(d.join(), pick(d, fleet.JoinNode, fleet.JoinMember)), func(b *command.JoinTokenPut) { b.Token.Region = pick[fleet.RegionName](d, "eu", "eu", "") })
	case 4:
		return command.NodeEnrol{Token: d.join(), ID: d.node(), Spec: fleet.NodeSpec{Addresses: d.addrs()}}
	case 5, 13:
		return d.identity()
	case 6, 10, 11:
		return command.NodePut{Put: d.put(), ID: d.node(), Spec: fleet.NodeSpec{Group: d.group(), Region: "eu", Addresses: d.addrs()}}
	case 7:
		return command.NodeRevoke{ID: d.node()}
	case 8:
		return command.NodesReport{Reports: []command.NodeReport{{ID: d.node(), Observed: fleet.NodeObserved{State: fleet.NodeUp, Boot: pick(d, "a", "b")}}, {ID: d.node()}}}
	}
	var b command.HeadsAdvance
	for range d.IntN(3) {
		b.Heads = append(b.Heads, command.HeadAdvance{
			Group: d.group(), Kind: pick(d, fleet.HeadConfig, fleet.HeadCerts, "bad"), Version: fleet.Version{Incarnation: 1, Generation: d.Uint64N(4)}, Root: fleet.DigestOf(nil),
		})
	}
	return b
}

func (d dice) identity() command.Body {
	switch d.IntN(6) {
	case 0:
		return command.NodeRenew{ID: d.node(), SPKI: pick(d, "a", "b")}
	case 1, 2:
		return command.NodeLock{ID: d.node(), Reason: pick(d, "two machines", "")}
	case 3, 4:
		return command.NodeUnlock{ID: d.node()}
	}
	return command.NodeRotate{ID: d.node(), From: pick(d, "", "a", "b"), SPKI: pick(d, "a", "b", "c")}
}

func (d dice) certificates() command.Body {
	if d.IntN(9) == 0 {
		return d.brought()
	}
	generation, h, of := 1+d.Uint64N(2), d.host(), d.tenant()
	if d.IntN(3) > 0 {
		h, of = "a.example.com", "acme"
	}
	switch d.IntN(10) {
	case 9:
		if d.IntN(2) == 0 {
			return command.RenewalPlan{Host: h, Generation: generation, Renewal: fleet.Renewal{At: noon, Source: fleet.RenewalLife}}
		}
		return command.OrderProgress{ID: d.order(), Asked: true, URL: pick(d, "", "https://ca.example/order/1")}
	case 8:
		return d.sealing()
	case 7:
		return resolve(d.host(), d.tenant(), pick(d, "consul://web", "consul://web?tag=a"), pick(d, "http://203.0.113.7:80", "http://10.0.0.1:80"))
	case 0:
		return command.HostObserve{Name: d.host(), Tenant: d.tenant(), Observed: fleet.HostObserved{Phase: pick(d, fleet.PhaseActive, fleet.PhaseOrdering)}}
	case 1:
		return challenge(d.host(), d.cert(), pick(d, "t1", "t2", ""))
	case 2:
		return command.ChallengeDelete{Host: d.host(), Via: d.cert(), Token: pick(d, "t1", "t2", "")}
	case 3:
		return with(order(d.order(), h, of, generation), func(b *command.OrderPut) { b.Put = d.put() })
	case 4:
		return commit(d.order(), h, of, generation)
	case 5:
		return command.EntryPut{Key: pick(d, "a", "a/b", "ab", ""), Value: secretBytes}
	}
	return command.EntryDelete{Key: pick(d, "a", "a/b", "b", "")}
}

func (d dice) sealing() command.Body {
	if d.IntN(2) == 0 {
		if d.IntN(2) == 0 {
			return command.LockRelease{Name: "a", Holder: pick(d, "x", "x", "")}
		}
		return command.LockTake{Name: pick(d, "a", "a", "b", ""), Holder: pick(d, "x", "x", "y", ""), Until: noon.Add(time.Duration(d.IntN(12)) * time.Minute)}
	}
	if d.IntN(3) == 0 {
		return command.GroupRekey{Group: d.group(), From: 1 + d.Uint64N(2), Cause: pick(d, fleet.EpochDaily, fleet.EpochRekey, fleet.EpochEvicted), Node: d.node(), Certificates: d.IntN(2) == 0}
	}
	if d.IntN(2) == 0 {
		return rotateKEK(pick(d, "kek", "kek-1", "kek-2"), pick(d, "kek-1", "kek-2"), pick(d, []fleet.MemberID{"m1", "m2", "m3"}, []fleet.MemberID{"m1"})...)
	}
	sealed := fleet.Sealed{Key: pick(d, "kek", "kek-1", "kek-2"), Ciphertext: secretBytes}
	return command.SecretsReseal{
		KEK:          pick(d, sealed.Key, sealed.Key, "kek-3"),
		Certificates: []command.CertificateReseal{{Host: "a.example.com", Generation: 1 + d.Uint64N(2), Key: sealed}},
		Orders:       []command.OrderReseal{{ID: d.order(), Key: sealed}},
		Entries:      []command.EntryReseal{{Key: "a", Was: pick(d, fleet.DigestOf(secretBytes), fleet.DigestOf(nil)), Value: secretBytes}},
	}
}

// log is what a seed stands for: encoded commands with times that go forward and back.
func (d dice) log(t *testing.T, n int) (entries [][]byte, bodies []command.Body) {
	t.Helper()
	bodies = []command.Body{clusterInit(), tenant("acme"), tenant("beta"), host("a.example.com", "acme", "la"), order("o1", "a.example.com", "acme", 1), commit("o1", "a.example.com", "acme", 1), command.OriginCertPut{Certificate: originCert("a.example.com", "acme", "https://203.0.113.10", 1)}, joinToken("j0", fleet.JoinNode), enrol("j0", "n1", "203.0.113.9")}
	for len(bodies) < n {
		bodies = append(bodies, d.command())
	}
	for _, b := range bodies {
		zone := time.FixedZone("", pick(d, 0, 3600, -7*3600))
		h := header(noon.Add(time.Duration(d.IntN(1200)) * time.Second).In(zone))
		if d.IntN(4) == 0 {
			h.Once = &command.Once{Caller: pick(d, "a", "b"), Key: pick(d, "1", "2", "3", ""), Request: b.Type().String(), Expires: h.Time.Add(time.Duration(d.IntN(600)) * time.Second)}
		}
		e, err := command.Encode(h, b)
		if err != nil {
			t.Fatal(err)
		}
		entries = append(entries, e)
	}
	return entries, bodies
}

// passedOver: the command leaves one audit entry, or none when what it is about has changed.
const passedOver = -1

// audited is how many audit entries an accepted command leaves.
func audited(b command.Body) int {
	switch b := b.(type) {
	case command.HostObserve, command.NodesReport, command.AuditSeal, command.AuditDrop, command.AuditCheckpoint, command.TokensUsed, command.SnapshotStage, command.KeysExpire,
		command.OrderProgress, command.RenewalPlan, command.LockTake, command.LockRelease, command.DNSSetsPut, command.AuthorityObserve:
		return 0
	case command.RevocationPut:
		if b.Forget || !b.Revoked {
			return 0
		}
	case command.HeadsAdvance:
		return len(b.Heads)
	case command.OriginsResolve:
		return passedOver
	case command.JoinTokensReap:
		return len(b.IDs)
	}
	return 1
}

func TestTheSameLogGivesTheSameStateWhereverASnapshotIsTaken(t *testing.T) {
	accepted := map[command.Type]int{}
	missing := func() []command.Type {
		return slices.DeleteFunc(command.Types(), func(typ command.Type) bool { return accepted[typ] > 0 })
	}
	// More seeds follow while a command was never accepted: each new command changes what the others draw.
	for seed := uint64(0); seed < 16 || seed < 64 && len(missing()) > 0; seed++ {
		d := newDice(seed)
		entries, bodies := d.log(t, 600)
		one, other, joined, batched := empty(), empty(), empty(), empty()
		var batch [][]byte
		at := d.IntN(len(entries))
		for i, e := range entries {
			if i%20 == 19 {
				e, bodies[i] = housekeeping(t, one, i/20)
			}
			rows, audit := "", one.state.Read().AuditHead().Seq
			if seed < 2 { // it is the slow part
				rows = one.rows(t)
			}
			r := one.feed(t, e)
			grown := int(one.state.Read().AuditHead().Seq - audit)
			if r.Err != nil && (rows != "" && one.rows(t) != rows || grown != 0) {
				t.Fatalf("seed %d, command %d: %s changed something although refused: %v", seed, i, bodies[i].Type(), r.Err)
			}
			if r.Err == nil {
				accepted[bodies[i].Type()]++
				want := audited(bodies[i])
				if _, replay := r.Object.(command.Replay); replay {
					want = 0
				}
				if grown != want && (want != passedOver || grown > 1) {
					t.Fatalf("seed %d, command %d: %s left %d audit entries", seed, i, bodies[i].Type(), grown)
				}
			}
			if got := other.feed(t, e); (got.Err == nil) != (r.Err == nil) {
				t.Fatalf("seed %d, command %d: %v here, %v there", seed, i, r.Err, got.Err)
			}
			if batch = append(batch, e); d.IntN(8) == 0 || i == len(entries)-1 {
				batched.feedAll(t, batch)
				batch = nil
				if seed < 2 && batched.rows(t) != one.rows(t) {
					t.Fatalf("seed %d, command %d: a batch leads to another state", seed, i)
				}
			}
			switch {
			case i == at:
				transfer(t, one, joined)
			case i > at:
				joined.feed(t, e)
			}
		}
		if one.hash(t) != other.hash(t) || one.hash(t) != joined.hash(t) || one.hash(t) != batched.hash(t) {
			t.Errorf("seed %d: the states differ", seed)
		}
		for _, e := range joined.audit(t) {
			if holdsSecret(t, e) {
				t.Errorf("seed %d: a secret in the entry of %s", seed, e.Operation)
			}
		}
	}
	for _, typ := range missing() {
		t.Errorf("no seed makes an accepted %s: the test does not cover it", typ)
	}
}

// transfer brings to up to the state of from by a snapshot.
func transfer(t *testing.T, from, to *world) {
	t.Helper()
	snap, err := from.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	var s sink
	if err := snap.Persist(&s); err != nil {
		t.Fatal(err)
	}
	if err := to.Restore(io.NopCloser(&s.Buffer)); err != nil {
		t.Fatal(err)
	}
	to.index = from.index
}
