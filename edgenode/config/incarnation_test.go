package config_test

import (
	"crypto/ed25519"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/edgefleet/edgefleet/edgenode/config"
	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/fleet/head"
	"github.com/edgefleet/edgefleet/observability"
	"github.com/edgefleet/edgefleet/tls/sni"
)

// lives is a control plane with a recovery key, through several incarnations.
type lives struct {
	*control
	recovery ed25519.PrivateKey
	enrolled ed25519.PublicKey
	dir      string
}

func newLives(t *testing.T) *lives {
	t.Helper()
	_, recovery, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	c := newControl(t)
	return &lives{control: c, recovery: recovery, enrolled: c.key.Public().(ed25519.PublicKey), dir: t.TempDir()}
}

// start starts the node.
func (l *lives) start() edge {
	l.t.Helper()
	table := &sni.Table{}
	s, err := config.Open(config.Options{
		Dir: l.dir, Node: node, Group: group, Cluster: "c1", Incarnation: 1, HeadKeys: []ed25519.PublicKey{l.enrolled},
		RecoveryKey: l.recovery.Public().(ed25519.PublicKey), HPKEPrivate: l.priv, Certificates: table, Telemetry: observability.Discard(),
	})
	if err != nil {
		l.t.Fatal(err)
	}
	return edge{s, table}
}

func (l *lives) statement(number uint64, by ed25519.PrivateKey) *fleet.SignedIncarnation {
	l.t.Helper()
	s, err := head.SignIncarnation(head.Incarnation{Cluster: "c1", Number: number, HeadKeys: [][]byte{l.key.Public().(ed25519.PublicKey)}}, by)
	if err != nil {
		l.t.Fatal(err)
	}
	return &s
}

// at signs a head that names one host.
func (l *lives) at(incarnation, generation uint64, host fleet.HostName) fleet.SignedHead {
	l.t.Helper()
	first := l.head(fleet.HeadConfig, generation, oneTenant(hosts("acme", host)))
	var h head.Head
	if err := fleet.DecodeStrict(first.Head, &h); err != nil {
		l.t.Fatal(err)
	}
	h.Version.Incarnation = incarnation
	return l.sign(h)
}

func (l *lives) offer(e edge, s *fleet.SignedIncarnation, heads ...fleet.SignedHead) string {
	l.t.Helper()
	var reasons []string
	for _, r := range e.Apply(l.t.Context(), fleet.HeadSet{Heads: heads, Incarnation: s}, l.fetch) {
		if r.Reason != "" {
			reasons = append(reasons, r.Reason)
		}
	}
	return strings.Join(reasons, "; ")
}

func (l *lives) serves(e edge, host fleet.HostName) {
	l.t.Helper()
	if e.Snapshot().Hosts[host] == nil || len(e.Snapshot().Hosts) != 1 {
		l.t.Errorf("serves %v, want %s", served(e), host)
	}
}

func TestAHigherIncarnationIsFollowedWithItsStatementOnly(t *testing.T) {
	l := newLives(t)
	e := l.start()
	if r := l.offer(e, nil, l.at(1, 7, "one.example.com")); r != "" {
		t.Fatal(r)
	}
	// Whoever has the head key may not jump: neither without a statement, nor with one of his own.
	if r := l.offer(e, nil, l.at(2, 1, "evil.example.com")); !strings.Contains(r, "statement of the recovery key") {
		t.Errorf("without a statement: %q", r)
	}
	if r := l.offer(e, l.statement(2, l.key), l.at(2, 1, "evil.example.com")); !strings.Contains(r, "statement of the recovery key") {
		t.Errorf("with a statement by the head key: %q", r)
	}
	l.serves(e, "one.example.com")
	if r := l.offer(e, l.statement(2, l.recovery), l.at(2, 1, "two.example.com")); r != "" {
		t.Fatalf("a lower generation of a higher incarnation: %s", r)
	}
	l.serves(e, "two.example.com")
	if r := l.offer(e, nil, l.at(1, 8, "one.example.com")); !strings.Contains(r, "ended") {
		t.Errorf("a head of the incarnation before: %q", r)
	}
	if r := l.offer(e, l.statement(2, l.recovery), l.at(1, 8, "one.example.com")); !strings.Contains(r, "ended") {
		t.Errorf("the same with the statement: %q", r)
	}
	e = l.start()
	l.serves(e, "two.example.com")
	if r := l.offer(e, nil, l.at(1, 9, "one.example.com")); !strings.Contains(r, "ended") {
		t.Errorf("after a restart: %q", r)
	}
	if r := l.offer(e, nil, l.at(2, 2, "three.example.com")); r != "" {
		t.Errorf("after a restart, without the statement: %s", r)
	}
	l.serves(e, "three.example.com")
}

func TestAStatementAloneChangesNothingThatIsServedAndIsKept(t *testing.T) {
	l := newLives(t)
	e := l.start()
	l.offer(e, nil, l.at(1, 7, "one.example.com"))
	before := served(e)
	l.offer(e, l.statement(5, l.recovery))
	for range 2 {
		if diff := cmp.Diff(before, served(e)); diff != "" {
			t.Errorf("served: %s", diff)
		}
		if r := l.offer(e, nil, l.at(1, 8, "late.example.com")); !strings.Contains(r, "ended") {
			t.Errorf("a head of the incarnation that ended: %q", r)
		}
		l.offer(e, l.statement(4, l.recovery), l.at(4, 1, "late.example.com")) // an older backup that comes to life
		l.serves(e, "one.example.com")
		e = l.start()
	}
}

func TestTheRecoveryKeyRevokesAStolenHeadKey(t *testing.T) {
	l := newLives(t)
	e := l.start()
	l.offer(e, nil, l.at(1, 7, "one.example.com"))
	stolen := l.key
	_, fresh, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	l.key = fresh
	if r := l.offer(e, l.statement(2, l.recovery), l.at(2, 1, "two.example.com")); r != "" {
		t.Fatal(r)
	}
	thief := &lives{control: &control{t: t, key: stolen, priv: l.priv, pub: l.pub, blobs: l.blobs}}
	for _, incarnation := range []uint64{1, 2, 3} {
		for _, kind := range []edge{e, l.start()} {
			if r := thief.offer(kind, nil, thief.at(incarnation, 99, "evil.example.com")); r == "" {
				t.Errorf("the stolen key signs for incarnation %d", incarnation)
			}
			l.serves(kind, "two.example.com")
		}
	}
	// What the old key signed for another kind, and a node never saw, is refused too.
	var h head.Head
	if err := fleet.DecodeStrict(l.head(fleet.HeadRuleset, 1, oneTenant(ruleset("evil"))).Head, &h); err != nil {
		t.Fatal(err)
	}
	old, err := head.Sign(h, stolen)
	if err != nil {
		t.Fatal(err)
	}
	if r := l.offer(e, nil, old); r == "" || e.Snapshot().Versions[fleet.HeadRuleset] != (fleet.Version{}) {
		t.Errorf("an old head of another kind: %q", r)
	}
}

func TestLastKnownGoodOfAnEarlierIncarnationIsServedAfterARestart(t *testing.T) {
	l := newLives(t)
	e := l.start()
	l.offer(e, nil, l.at(1, 7, "one.example.com"))
	_, fresh, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	l.key = fresh
	missing := l.sign(head.Head{Group: group, Kind: fleet.HeadConfig, Version: fleet.Version{Incarnation: 2, Generation: 1}, Root: fleet.DigestOf([]byte("nowhere"))})
	l.offer(e, l.statement(2, l.recovery), missing) // its blobs are not to be had
	l.serves(e, "one.example.com")
	l.serves(l.start(), "one.example.com")
	// A damaged heads file loses the statement, and comes back with the one before.
	l.offer(e, nil, l.at(2, 2, "two.example.com"))
	if err := os.WriteFile(filepath.Join(l.dir, "heads.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	e = l.start()
	l.serves(e, "one.example.com")
	if r := l.offer(e, l.statement(2, l.recovery), l.at(2, 3, "three.example.com")); r != "" {
		t.Error(r)
	}
	l.serves(e, "three.example.com")
}

func TestManyIncarnationsLeaveOnlyTheStatementsThatAreNeeded(t *testing.T) {
	l := newLives(t)
	e := l.start()
	for n := uint64(2); n < 40; n++ {
		if r := l.offer(e, l.statement(n, l.recovery), l.at(n, 1, "one.example.com")); r != "" {
			t.Fatal(r)
		}
	}
	b, err := os.ReadFile(filepath.Join(l.dir, "heads.json"))
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(b), `"statement"`); n > 3 {
		t.Errorf("%d statements are kept", n)
	}
	l.serves(l.start(), "one.example.com")
}
