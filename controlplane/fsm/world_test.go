package fsm_test

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/edgefleet/edgefleet/controlplane/command"
	"github.com/edgefleet/edgefleet/controlplane/fsm"
	"github.com/edgefleet/edgefleet/controlplane/state"
	"github.com/edgefleet/edgefleet/fleet"
)

var noon = time.Date(2026, 11, 5, 12, 0, 0, 0, time.UTC)

// world is one state machine and the log that it was fed.
type world struct {
	*fsm.FSM
	state *state.Store
	index uint64
	now   time.Time
}

func empty() *world {
	s := state.New()
	return &world{FSM: fsm.New(s), state: s, now: noon}
}

func header(now time.Time) command.Header {
	return command.Header{Time: now, Actor: fleet.Actor{Name: "tok", Party: fleet.Vendor, Source: "192.0.2.9"}, RequestID: "req", Reason: "test"}
}

// apply feeds a command as Raft would.
func (w *world) apply(t testing.TB, b command.Body) fsm.Result {
	t.Helper()
	entry, err := command.Encode(header(w.now), b)
	if err != nil {
		t.Fatal(err)
	}
	return w.feed(t, entry)
}

func (w *world) feed(t testing.TB, entry []byte) fsm.Result {
	t.Helper()
	w.index++
	r, ok := w.Apply(&raft.Log{Index: w.index, Term: 1, Data: entry}).(fsm.Result)
	if !ok {
		t.Fatal("no result")
	}
	return r
}

// feedAll feeds entries in one batch.
func (w *world) feedAll(t testing.TB, entries [][]byte) {
	t.Helper()
	var logs []*raft.Log
	for _, e := range entries {
		w.index++
		logs = append(logs, &raft.Log{Index: w.index, Term: 1, Data: e})
	}
	if got := w.ApplyBatch(logs); len(got) != len(logs) {
		t.Fatalf("%d results for %d entries", len(got), len(logs))
	}
}

func (w *world) must(t testing.TB, bs ...command.Body) *world {
	t.Helper()
	for _, b := range bs {
		if r := w.apply(t, b); r.Err != nil {
			t.Fatalf("%s: %v", b.Type(), r.Err)
		}
	}
	return w
}

func (w *world) audit(t testing.TB) []fleet.AuditEntry {
	t.Helper()
	es := w.state.Read().AuditAfter("", 0, 1<<20)
	if err := fleet.VerifyAudit(es); err != nil {
		t.Fatal(err)
	}
	return es
}

// rows is the snapshot without the index and the trailer.
func (w *world) rows(t testing.TB) string {
	t.Helper()
	var b bytes.Buffer
	if _, err := w.state.Read().WriteTo(&b); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(b.String(), "\n")
	out := lines[:0]
	for _, l := range lines {
		if !strings.HasPrefix(l, `{"table":"applied"`) && !strings.HasPrefix(l, `{"rows"`) && !strings.HasPrefix(l, `{"sha256"`) {
			out = append(out, l)
		}
	}
	return strings.Join(out, "\n")
}

func (w *world) hash(t testing.TB) string {
	t.Helper()
	h, err := w.state.Read().Hash()
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// secretHash and secretBytes are what must appear in no audit entry.
var (
	secretHash  = bytes.Repeat([]byte("H"), fleet.HashBytes)
	secretBytes = []byte("TOP-SECRET-KEY-MATERIAL")
)

func sealedSecret() fleet.Sealed {
	return fleet.Sealed{Key: "kek", Nonce: secretBytes[:12], Ciphertext: secretBytes}
}

func holdsSecret(t testing.TB, e fleet.AuditEntry) bool {
	t.Helper()
	b, err := json.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range [][]byte{secretHash, secretBytes, secretBytes[:12]} {
		enc := base64.StdEncoding.EncodeToString(s)
		if bytes.Contains(b, []byte(strings.TrimRight(enc, "=")[:12])) || bytes.Contains(b, s) {
			return true
		}
	}
	return bytes.Contains(b, []byte(`"hash":"SEh`)) || bytes.Contains(b, []byte("ciphertext"))
}

func clusterInit() command.ClusterInit {
	return command.ClusterInit{
		Cluster: fleet.ClusterRecord{
			Cluster: fleet.Cluster{
				ID: "c1", Zone: "edge.example.net", MemberCA: "pem", AuditKey: auditKey().Public().(ed25519.PublicKey),
				HeadKeys: [][]byte{headKey}, RecoveryKey: publicOf(recoveryKey),
			},
			Secrets: map[fleet.SecretName]fleet.Sealed{fleet.SecretHeadKey: sealedSecret(), fleet.SecretNodeCA: sealedSecret()},
		},
		Member: fleet.Member{ID: "m1", API: "127.0.0.1:1"},
		Token:  operatorToken("op1").Token,
	}
}

func operatorToken(id fleet.TokenID) command.TokenPut {
	return command.TokenPut{Token: fleet.TokenRecord{Token: fleet.Token{ID: id, Role: fleet.RoleOperator}, Hash: secretHash}}
}

func tenantToken(id fleet.TokenID, tenant fleet.TenantID) command.TokenPut {
	return command.TokenPut{Token: fleet.TokenRecord{Token: fleet.Token{ID: id, Role: fleet.RoleTenant, Tenant: tenant}, Hash: secretHash}}
}

func tenant(id fleet.TenantID) command.TenantPut {
	return command.TenantPut{Put: create, ID: id, Spec: fleet.TenantSpec{Name: string(id), Form: fleet.SecurityEdge, Group: fleet.DefaultGroup}}
}

var create = command.Put{Create: true}

func host(name fleet.HostName, of fleet.TenantID, label string) command.HostPut {
	return command.HostPut{Put: create, Name: name, Tenant: of, Label: label, Spec: spec("https://203.0.113.10")}
}

func spec(origins ...string) fleet.HostSpec {
	s := fleet.HostSpec{Mode: fleet.ModeBlock}
	for _, o := range origins {
		s.Origins = append(s.Origins, fleet.Origin{URL: o})
	}
	return s
}

// with returns a copy of b after change.
func with[T any](b T, change func(*T)) T {
	change(&b)
	return b
}

func rule(id fleet.RuleID, of fleet.TenantID) command.RulePut {
	return command.RulePut{Put: create, ID: id, Tenant: of, Spec: fleet.RuleSpec{Kind: fleet.RuleRegex, Pattern: "x", AttackType: fleet.AttackCustom}}
}

func joinToken(id fleet.TokenID, kind fleet.JoinKind) command.JoinTokenPut {
	j := fleet.JoinToken{ID: id, Kind: kind, ExpiresAt: noon.Add(15 * time.Minute)}
	if kind == fleet.JoinNode {
		j.Group, j.Region = fleet.DefaultGroup, "eu"
	}
	return command.JoinTokenPut{Token: fleet.JoinTokenRecord{JoinToken: j, Hash: secretHash}}
}

func enrol(token fleet.TokenID, id fleet.NodeID, addr string) command.NodeEnrol {
	return command.NodeEnrol{
		Token: token, ID: id, Spec: fleet.NodeSpec{Group: "of-the-node's-choice", Region: "moon", Cordoned: true, Addresses: []netip.Addr{netip.MustParseAddr(addr)}},
		Identity: fleet.NodeIdentity{SPKI: "spki", HPKE: []byte("public"), NotAfter: noon.Add(24 * time.Hour)},
	}
}

func order(id fleet.OrderID, h fleet.HostName, of fleet.TenantID, generation uint64) command.OrderPut {
	return command.OrderPut{Put: create, Order: fleet.OrderRecord{
		Order: fleet.Order{ID: id, Host: h, Tenant: of, Generation: generation, Challenge: fleet.ChallengeDNS01, State: fleet.OrderQueued},
		Key:   sealedSecret(), CSR: []byte("csr"), SPKI: "spki-1",
	}}
}

func commit(o fleet.OrderID, h fleet.HostName, of fleet.TenantID, generation uint64) command.CertificateCommit {
	return command.CertificateCommit{Order: o, Certificate: fleet.CertificateRecord{
		Certificate: fleet.Certificate{Host: h, Tenant: of, Generation: generation, SPKI: "spki-1", Chain: "pem", NotAfter: noon.Add(time.Hour)},
		Key:         sealedSecret(),
	}}
}

func challenge(h fleet.HostName, via fleet.ChallengeType, token string) command.ChallengePut {
	return command.ChallengePut{Challenge: fleet.Challenge{Type: via, Host: h, Tenant: "whoever", Token: token, Response: "response"}}
}

func advance(kind fleet.HeadKind, generation uint64) command.HeadsAdvance {
	return command.HeadsAdvance{Heads: []command.HeadAdvance{{
		Group: fleet.DefaultGroup, Kind: kind, Version: fleet.Version{Incarnation: 1, Generation: generation}, Root: fleet.DigestOf([]byte{byte(generation)}),
	}}}
}

// city is a world in use: two tenants with hosts, a node, tokens, a certificate, a head.
func city(t testing.TB) *world {
	t.Helper()
	return empty().must(t,
		clusterInit(),
		command.GroupPut{Put: create, Name: "second", Spec: fleet.GroupSpec{Form: fleet.Hybrid}},
		tenant("acme"), tenant("beta"),
		host("a.example.com", "acme", "la"), host("www.beta.example", "beta", "lb"),
		tenantToken("ta", "acme"), tenantToken("tb", "beta"),
		rule("ra", "acme"), rule("rb", "beta"),
		joinToken("j1", fleet.JoinNode), joinToken("j2", fleet.JoinNode), joinToken("jm", fleet.JoinMember),
		enrol("j1", "n1", "198.51.100.1"),
		order("oa", "a.example.com", "acme", 1), commit("oa", "a.example.com", "acme", 1),
		order("oa2", "a.example.com", "acme", 2),
		challenge("a.example.com", fleet.ChallengeHTTP01, "tok"),
		advance(fleet.HeadConfig, 1),
		command.EntryPut{Key: "acme/account", Value: secretBytes},
	)
}
