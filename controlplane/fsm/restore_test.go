package fsm_test

import (
	"bytes"
	"crypto/ed25519"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/hashicorp/raft"

	"github.com/edgefleet/edgefleet/controlplane/command"
	"github.com/edgefleet/edgefleet/controlplane/fsm"
	"github.com/edgefleet/edgefleet/controlplane/state"
	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/fleet/head"
	"github.com/edgefleet/edgefleet/fleet/snapshot"
)

// The keys of the cluster that clusterInit makes.
var (
	recoveryKey = ed25519.NewKeyFromSeed(bytes.Repeat([]byte("r"), ed25519.SeedSize))
	headKey     = publicOf(ed25519.NewKeyFromSeed(bytes.Repeat([]byte("h"), ed25519.SeedSize)))
)

func publicOf(k ed25519.PrivateKey) []byte {
	return k.Public().(ed25519.PublicKey) //nolint:forcetypeassert // it is one
}

func statement(number uint64, change ...func(*head.Incarnation)) fleet.SignedIncarnation {
	i := head.Incarnation{Cluster: "c1", Number: number, HeadKeys: [][]byte{headKey}}
	for _, c := range change {
		c(&i)
	}
	s, err := head.SignIncarnation(i, recoveryKey)
	if err != nil {
		panic(err)
	}
	return s
}

// fileOf is a snapshot of a state.
func fileOf(s *state.Store) []byte {
	v := s.Read()
	c, _ := v.Cluster()
	var b bytes.Buffer
	_, err := snapshot.Write(&b, snapshot.Envelope{Cluster: c.ID, Incarnation: c.Incarnation, Index: v.Index(), Time: noon, Member: "m1"},
		func(string) (fleet.Sealed, error) { return fleet.Sealed{Key: "kek"}, nil },
		func(w io.Writer) error { _, err := v.WriteTo(w); return err })
	if err != nil {
		panic(err)
	}
	return b.Bytes()
}

// oldFile is a snapshot of the cluster when it had one tenant with one host.
var oldFile = sync.OnceValue(func() []byte {
	s := state.New()
	machine := fsm.New(s)
	for i, b := range []command.Body{clusterInit(), tenant("acme"), host("a.example.com", "acme", "l7")} {
		entry, err := command.Encode(header(noon), b)
		if err != nil {
			panic(err)
		}
		machine.Apply(&raft.Log{Index: uint64(i + 1), Data: entry})
	}
	return fileOf(s)
})

func shaOf(t testing.TB, file []byte) string {
	e, err := snapshot.Verify(bytes.NewReader(file))
	if err != nil {
		panic(err)
	}
	if t != nil {
		t.Helper()
	}
	return e.SHA256
}

func (d dice) disasters() command.Body {
	switch d.IntN(5) {
	case 0, 1:
		return command.SnapshotStage{Restore: pick(d, "r1", "r1", "r2", "Bad"), Seq: d.Uint64N(2), Data: pick(d, oldFile(), oldFile(), nil, []byte("rubbish"))}
	case 2:
		return command.ClusterRestore{Restore: pick(d, "r1", "r2"), Parts: 1, SHA256: shaOf(nil, oldFile()), Statement: statement(2 + d.Uint64N(200))}
	case 3:
		b := command.IncarnationStart{Number: 2 + d.Uint64N(50), Cause: pick(d, fleet.CauseOrder, fleet.CauseRecover, "bad")}
		if d.IntN(2) == 0 {
			b.Statement = statement(b.Number)
		}
		return b
	}
	return command.DrillPut{Put: d.put(), Drill: fleet.Drill{ID: pick(d, "d1", "d2"), Kind: pick(d, fleet.DrillRestore, "bad"), State: pick(d, fleet.DrillRunning, fleet.DrillPassed)}}
}

func stage(id string, file []byte, parts int) []command.Body {
	size := (len(file) + parts - 1) / parts
	var out []command.Body
	for i := range parts {
		out = append(out, command.SnapshotStage{Restore: id, Seq: uint64(i), Data: file[i*size : min(len(file), (i+1)*size)]})
	}
	return out
}

func restoreOf(t testing.TB, file []byte, parts uint64) command.ClusterRestore {
	t.Helper()
	return command.ClusterRestore{Restore: "r1", Parts: parts, SHA256: shaOf(t, file), Statement: statement(2)}
}

func TestARestoreGoesBackToWhatPeopleDecidedAndKeepsWhatHappened(t *testing.T) {
	w := city(t)
	file := fileOf(w.state)
	before := w.state.Read()
	w.must(t,
		rule("late-rule", "acme"), host("late.example.com", "acme", "l90"), tenant("late"), tenantToken("late-tok", "late"), operatorToken("op9"),
		joinToken("j90", fleet.JoinNode), enrol("j90", "late-node", "198.51.100.90"), joinToken("j91", fleet.JoinNode),
		command.MemberPut{Member: fleet.Member{ID: "late-member", API: "x"}},
	)
	victim := before.Nodes()[0].ID
	w.must(t, command.NodeRevoke{ID: victim})
	for _, tok := range before.TokensAfter("", "", 100) {
		if tok.Role == fleet.RoleTenant {
			w.must(t, command.TokenDelete{ID: tok.ID})
		}
	}
	tokens, chain := w.state.Read().TokensAfter("", "", 100), w.audit(t)
	w.must(t, stage("r1", file, 3)...)
	r := w.apply(t, restoreOf(t, file, 3))
	if r.Err != nil {
		t.Fatal(r.Err)
	}
	v := w.state.Read()
	if diff := cmp.Diff(before.Hosts(), v.Hosts()); diff != "" {
		t.Errorf("hosts: %s", diff)
	}
	for _, tenant := range []fleet.TenantID{"acme", "beta"} {
		if diff := cmp.Diff(before.RulesOf(tenant), v.RulesOf(tenant), cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("rules: %s", diff)
		}
	}
	if _, ok := v.Tenant("late"); ok {
		t.Error("a tenant that came later is still there")
	}
	if _, ok := v.Node("late-node"); !ok {
		t.Error("a node that enrolled later is forgotten")
	}
	if n, _ := v.Node(victim); n.Identity.RevokedAt.IsZero() {
		t.Error("a revoked node came back")
	}
	if _, ok := v.Member("late-member"); !ok {
		t.Error("a member that joined later is forgotten")
	}
	if _, ok := v.Label("l90"); !ok {
		t.Error("a label may be issued a second time")
	}
	if j, ok := v.JoinToken("j90"); !ok || j.UsedBy == "" {
		t.Error("a used join token is good again")
	}
	if diff := cmp.Diff(len(tokens)-1, len(v.TokensAfter("", "", 100))); diff != "" {
		t.Errorf("of the tokens, exactly the late tenant's goes: %s", diff)
	}
	audit := w.audit(t) // which verifies the chain
	if len(audit) != len(chain)+1 || audit[len(audit)-1].Operation != "cluster_restore" {
		t.Errorf("%d audit entries after %d", len(audit), len(chain))
	}
	c, _ := v.Cluster()
	s := v.Statement()
	if c.Incarnation != 2 || s == nil || len(v.Heads()) != 0 {
		t.Errorf("incarnation %d, statement %v, %d heads", c.Incarnation, s, len(v.Heads()))
	}
	if v.StagedParts("r1") != 0 {
		t.Error("the staged parts are still there")
	}
	rec, ok := r.Object.(fleet.IncarnationRecord)
	if !ok || rec.Snapshot == nil || rec.Snapshot.Index != before.Index() || rec.From != 1 {
		t.Errorf("%+v", r.Object)
	}
	// The next heads begin at generation 1 of the new incarnation.
	w.must(t, command.HeadsAdvance{Heads: []command.HeadAdvance{{Group: "default", Kind: fleet.HeadConfig, Version: fleet.Version{Incarnation: 2, Generation: 1}, Root: fleet.DigestOf(nil)}}})
}

func TestANewerCertificateOutlivesARestore(t *testing.T) {
	w := city(t)
	file := fileOf(w.state)
	w.must(t, commit("oa2", "a.example.com", "acme", 2))
	w.must(t, stage("r1", file, 1)...)
	w.must(t, restoreOf(t, file, 1))
	if c, ok := w.state.Read().Certificate("a.example.com"); !ok || c.Generation != 2 {
		t.Errorf("%+v", c)
	}
}

func TestARestoreThatCannotBeIsRefusedAndChangesNothing(t *testing.T) {
	file := oldFile()
	damaged := bytes.Clone(file)
	damaged[len(damaged)-20] ^= 1
	foreign := state.New()
	machine := fsm.New(foreign)
	entry, err := command.Encode(header(noon), with(clusterInit(), func(b *command.ClusterInit) { b.Cluster.ID = "c2" }))
	if err != nil {
		t.Fatal(err)
	}
	machine.Apply(&raft.Log{Index: 1, Data: entry})
	other := fileOf(foreign)
	good := restoreOf(t, file, 2)
	run(t, []testCase{
		{name: "a snapshot is restored", given: stage("r1", file, 2), when: good, object: "cluster/c1"},
		{name: "a restore without its parts", when: good, refused: fleet.ErrConflict, says: "0 of 2 parts"},
		{name: "a restore that lacks a part", given: stage("r1", file, 2)[:1], when: good, refused: fleet.ErrConflict, says: "1 of 2 parts"},
		{name: "a restore after another one began", given: append(stage("r1", file, 2), stage("r2", file, 2)[0]), when: good, refused: fleet.ErrConflict, says: "another restore began"},
		{name: "parts of two restores mixed", given: append(stage("r1", file, 2), stage("r2", file, 2)[0]), when: stage("r1", file, 2)[1], refused: fleet.ErrConflict, says: "another restore began"},
		{name: "a part out of order", given: stage("r1", file, 3)[:1], when: stage("r1", file, 3)[2], refused: fleet.ErrConflict, says: "does not follow"},
		{name: "a part without a name", when: command.SnapshotStage{Data: []byte("x")}, refused: fleet.ErrInvalid},
		{name: "parts are dropped", given: stage("r1", file, 2), when: command.SnapshotStage{Restore: "r1"}, entries: -1, then: func(t *testing.T, v *state.View) {
			t.Helper()
			if v.StagedParts("r1") != 0 {
				t.Error("still there")
			}
		}},
		{name: "a damaged snapshot", given: stage("r1", damaged, 2), when: good, refused: fleet.ErrCorrupt},
		{name: "another snapshot than was meant", given: stage("r1", file, 2), when: with(good, func(b *command.ClusterRestore) { b.SHA256 = "00" }), refused: fleet.ErrConflict, says: "expected 00"},
		{name: "another cluster's snapshot", given: stage("r1", other, 2), when: restoreOf(t, other, 2), refused: fleet.ErrConflict, says: "of cluster c2"},
		{name: "a statement that the recovery key did not sign", given: stage("r1", file, 2), when: with(good, func(b *command.ClusterRestore) { b.Statement.Signature = []byte("x") }), refused: fleet.ErrDenied},
		{name: "a statement of this incarnation", given: append(stage("r1", file, 2), command.IncarnationStart{Number: 2, Cause: fleet.CauseOrder}), when: good, refused: fleet.ErrConflict, says: "in 2 already"},
		{name: "a statement of other head keys", given: stage("r1", file, 2), when: with(good, func(b *command.ClusterRestore) {
			b.Statement = statement(2, func(i *head.Incarnation) { i.HeadKeys = [][]byte{publicOf(recoveryKey)} })
		}), refused: fleet.ErrConflict, says: "none of the cluster's head keys"},
	})
}

func TestAnIncarnationBegins(t *testing.T) {
	lone := []fleet.Member{{ID: "m9", API: "127.0.0.9:1"}}
	run(t, []testCase{
		{name: "with a statement", when: command.IncarnationStart{Number: 7, Cause: fleet.CauseOrder, Statement: statement(7)}, object: "cluster/c1", then: func(t *testing.T, v *state.View) {
			t.Helper()
			c, _ := v.Cluster()
			if rec, ok := v.Incarnation(7); !ok || c.Incarnation != 7 || rec.From != 1 || v.Statement() == nil || len(v.Incarnations()) != 1 {
				t.Errorf("%+v %+v", c, rec)
			}
		}},
		{name: "without one, which nodes do not follow", when: command.IncarnationStart{Number: 7, Cause: fleet.CauseRecover, Members: lone, Token: operatorToken("fresh").Token}, object: "cluster/c1", then: func(t *testing.T, v *state.View) {
			t.Helper()
			if ms := v.Members(); v.Statement() != nil || len(ms) != 1 || ms[0].ID != "m9" {
				t.Errorf("%+v", ms)
			}
			if _, ok := v.Token("fresh"); !ok {
				t.Error("no new operator token")
			}
			if _, ok := v.JoinToken("j1"); ok {
				t.Error("a join token of which the use is not known is still good")
			}
		}},
		{name: "not an earlier one", given: []command.Body{command.IncarnationStart{Number: 7, Cause: fleet.CauseOrder}}, when: command.IncarnationStart{Number: 7, Cause: fleet.CauseOrder}, refused: fleet.ErrConflict, says: "not later than 7"},
		{name: "not with a statement of another", when: command.IncarnationStart{Number: 8, Cause: fleet.CauseOrder, Statement: statement(7)}, refused: fleet.ErrInvalid, says: "for incarnation 7"},
		{name: "not for no cause", when: command.IncarnationStart{Number: 8}, refused: fleet.ErrInvalid},
		{name: "not with a token that is none", when: command.IncarnationStart{Number: 8, Cause: fleet.CauseRecover, Token: fleet.TokenRecord{Token: fleet.Token{ID: "x", Role: fleet.RoleOperator}}}, refused: fleet.ErrInvalid},
	})
}

func TestDrillsAreRecordedAndTheOldestForgotten(t *testing.T) {
	d := fleet.Drill{ID: "d1", Kind: fleet.DrillLeaderLoss, State: fleet.DrillRunning}
	begun := command.DrillPut{Put: create, Drill: d}
	passed := with(d, func(d *fleet.Drill) { d.State, d.RTO = fleet.DrillPassed, 812 })
	run(t, []testCase{
		{name: "a drill begins", when: begun, object: "drill/d1"},
		{name: "and ends", given: []command.Body{begun}, when: command.DrillPut{Drill: passed}, object: "drill/d1"},
		{name: "once", given: []command.Body{begun, command.DrillPut{Drill: passed}}, when: command.DrillPut{Drill: passed}, refused: fleet.ErrConflict, says: "has ended"},
		{name: "one that did not begin", when: command.DrillPut{Drill: passed}, refused: fleet.ErrNotFound},
		{name: "a marker on what was read", given: []command.Body{begun}, when: command.DrillPut{Put: command.Put{IfRevision: 1}, Drill: d}, refused: fleet.ErrConflict, says: "read it again"},
		{name: "of no kind", when: command.DrillPut{Put: create, Drill: with(d, func(d *fleet.Drill) { d.Kind = "fire" })}, refused: fleet.ErrInvalid},
		{name: "with a novel", when: command.DrillPut{Put: create, Drill: with(d, func(d *fleet.Drill) { d.Detail = strings.Repeat("x", 2000) })}, refused: fleet.ErrTooLarge},
	})
	w := city(t)
	for i := range 205 {
		w.now = noon.Add(time.Duration(i) * time.Second)
		w.must(t, command.DrillPut{Put: create, Drill: with(d, func(d *fleet.Drill) { d.ID = fmt.Sprintf("d%d", i) })})
	}
	drills := w.state.Read().Drills()
	if len(drills) != 200 || drills[0].ID != "d5" || drills[199].ID != "d204" {
		t.Errorf("%d drills, from %s", len(drills), drills[0].ID)
	}
}

func TestTheContentOfASnapshotHasTheHashOfItsState(t *testing.T) {
	w := city(t)
	e, content, err := snapshot.Open(bytes.NewReader(fileOf(w.state)))
	if err != nil {
		t.Fatal(err)
	}
	loaded, err := state.Load(content)
	if err != nil {
		t.Fatal(err)
	}
	hash, err := loaded.Read().Hash()
	if err != nil || hash != e.StateHash || hash != w.hash(t) {
		t.Errorf("%s, %s, %s, %v", hash, e.StateHash, w.hash(t), err)
	}
	rows := 0
	for _, n := range e.Rows {
		rows += n
	}
	var b bytes.Buffer
	if _, err := w.state.Read().WriteTo(&b); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(b.String()), "\n")
	var trailer struct {
		Rows int `json:"rows"`
	}
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &trailer); err != nil || trailer.Rows != rows {
		t.Errorf("the envelope counts %d rows, the trailer %d: %v", rows, trailer.Rows, err)
	}
}
