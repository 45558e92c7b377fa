package audit_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/edgefleet/edgefleet/controlplane/audit"
	"github.com/edgefleet/edgefleet/controlplane/command"
	"github.com/edgefleet/edgefleet/controlplane/fsm"
	leader "github.com/edgefleet/edgefleet/controlplane/leader/audit"
	"github.com/edgefleet/edgefleet/controlplane/state"
	"github.com/edgefleet/edgefleet/fleet"
	chain "github.com/edgefleet/edgefleet/fleet/audit"
	"github.com/edgefleet/edgefleet/observability"
)

var noon = time.Date(2026, 11, 5, 12, 0, 0, 0, time.UTC)

var key = ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))

func sign(b []byte) ([]byte, error) { return ed25519.Sign(key, b), nil }

// world is members with real state machines and disks; Raft is a list of entries, of which each has applied some.
type world struct {
	t       testing.TB
	entries []*raft.Log
	now     time.Time
	members []*member
}

type member struct {
	*audit.Log
	id      fleet.MemberID
	fsm     *fsm.FSM
	state   *state.Store
	dir     string
	applied int
	away    bool
	// full is what writes fail with.
	full error
}

func open(t testing.TB, n int) *world {
	t.Helper()
	w := &world{t: t, now: noon}
	for i := range n {
		m := &member{id: fleet.MemberID(fmt.Sprint("m", i+1)), state: state.New(), dir: t.TempDir()}
		m.fsm = fsm.New(m.state)
		w.members = append(w.members, m)
		m.open(w)
	}
	w.propose(command.ClusterInit{
		Cluster: fleet.ClusterRecord{Cluster: fleet.Cluster{ID: "c1", Zone: "edge.example.net", AuditKey: key.Public().(ed25519.PublicKey)}}, //nolint:forcetypeassert // it is
		Member:  fleet.Member{ID: "m1"}, Token: fleet.TokenRecord{Token: fleet.Token{ID: "op", Role: fleet.RoleOperator}, Hash: make([]byte, fleet.HashBytes)},
	})
	return w
}

// open is a start of the process: what was in memory is gone.
func (m *member) open(w *world) {
	w.t.Helper()
	var err error
	m.Log, err = audit.Open(audit.Options{Dir: m.dir, State: m.state, Telemetry: observability.Discard(), Fetch: func(_ context.Context, s fleet.AuditSegment) ([]byte, error) {
		for _, o := range w.members {
			if o == m || o.away {
				continue
			}
			if b, err := o.File(s.Digest); err == nil {
				return b, nil
			}
		}
		return nil, errors.New("nobody has it")
	}, Write: func(path string, b []byte) error {
		if m.full != nil {
			return m.full
		}
		return os.WriteFile(path, b, 0o600)
	}})
	must(w.t, err)
}

func (w *world) Propose(_ context.Context, h command.Header, b command.Body) (any, error) {
	data, err := command.Encode(h, b)
	must(w.t, err)
	w.entries = append(w.entries, &raft.Log{Index: uint64(len(w.entries) + 1), Term: 1, Data: data})
	var out fsm.Result
	for _, m := range w.members {
		for !m.away && m.applied < len(w.entries) {
			out, _ = m.fsm.Apply(w.entries[m.applied]).(fsm.Result)
			m.applied++
		}
	}
	if out.Err != nil {
		return nil, out.Err
	}
	return out.Object, nil
}

func (w *world) propose(b command.Body) {
	w.t.Helper()
	w.now = w.now.Add(time.Second)
	_, err := w.Propose(w.t.Context(), command.Header{Time: w.now, Actor: fleet.Actor{Name: "token/op", Party: fleet.Vendor}, RequestID: fmt.Sprint("r", len(w.entries))}, b)
	must(w.t, err)
}

// write makes n entries, of tenants in turn.
func (w *world) write(n int) {
	w.t.Helper()
	for i := range n {
		w.propose(command.TenantPut{Put: command.Put{Create: true}, ID: fleet.TenantID(fmt.Sprintf("t%d-%d", i%5, len(w.entries))), Spec: fleet.TenantSpec{Form: fleet.SecurityEdge, Group: fleet.DefaultGroup}})
	}
}

// lead runs the loop on one member until it has nothing more to do; the others hold what they can meanwhile.
func (w *world) lead(i, keep int) {
	w.t.Helper()
	for range 3 {
		ctx, cancel := context.WithCancel(w.t.Context())
		l := leader.New(leader.Options{
			State: w.members[i].state, Proposer: w, Sign: sign, Keep: keep, Pause: time.Millisecond, Now: func() time.Time { return w.now },
			Voters: func() []fleet.MemberID { cancel(); return []fleet.MemberID{"m1", "m2", "m3"}[:len(w.members)] },
			Held: func(_ context.Context, id fleet.MemberID) (map[fleet.Digest]bool, error) {
				held := map[fleet.Digest]bool{}
				for _, m := range w.members {
					if m.id == id && !m.away {
						for _, d := range m.Held() {
							held[d] = true
						}
					}
				}
				return held, nil
			},
		})
		must(w.t, l.Run(stubborn{ctx}))
		cancel()
		for _, m := range w.members {
			if !m.away {
				_ = m.Hold(w.t.Context())
			}
		}
	}
}

// stubborn is a context whose Err stays nil, so that one round of the loop runs to its end although it was cancelled within.
type stubborn struct{ context.Context } //nolint:containedctx // for one call

func (stubborn) Err() error { return nil }

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// all reads every entry that q selects, by pages.
func (m *member) all(t testing.TB, q audit.Query) []fleet.AuditEntry {
	t.Helper()
	q.Limit = 7
	var out []fleet.AuditEntry
	for range 10_000 {
		p, err := m.List(t.Context(), q)
		must(t, err)
		out = append(out, p.Entries...)
		if p.Next == 0 {
			return out
		}
		q.After = p.Next
	}
	t.Fatal("the pages do not end")
	return nil
}

func (m *member) export(t testing.TB, tenant fleet.TenantID) chain.Report {
	t.Helper()
	v := chain.NewVerifier(key.Public().(ed25519.PublicKey)) //nolint:forcetypeassert // it is
	for from, until := uint64(1), uint64(0); ; {
		b, err := m.Export(t.Context(), audit.Export{Tenant: tenant, From: from, Until: until, Sign: sign, Now: noon})
		must(t, err)
		for line := range bytes.Lines(b) {
			must(t, v.Line(line))
		}
		if from, until = v.Next(); from > until {
			r, err := v.Finish()
			must(t, err)
			return r
		}
	}
}

func (w *world) checkEqual() {
	w.t.Helper()
	want := ""
	for _, m := range w.members {
		h, err := m.state.Read().Hash()
		must(w.t, err)
		if want == "" {
			want = h
		}
		if h != want {
			w.t.Errorf("the state of %s differs", m.id)
		}
	}
}

func (m *member) files(t testing.TB) []string {
	t.Helper()
	f, err := filepath.Glob(filepath.Join(m.dir, "*.seg"))
	must(t, err)
	return f
}

func TestOldEntriesLeaveTheStateAndAreReadAsBefore(t *testing.T) {
	w := open(t, 3)
	w.write(120)
	w.lead(0, 50)
	w.write(60)
	w.lead(1, 50) // another leader goes on
	w.checkEqual()
	for _, m := range w.members {
		v := m.state.Read()
		if first := v.AuditFirst(); first < 120 || first > 131 || len(m.files(t)) != 36 {
			t.Errorf("%s: the state begins with entry %d, %d files", m.id, first, len(m.files(t)))
		}
		got := m.all(t, audit.Query{})
		must(t, fleet.VerifyAudit(got))
		back := m.all(t, audit.Query{Newest: true})
		slices.Reverse(back)
		if len(got) != 181 || len(back) != 181 || back[0].Hash != got[0].Hash || got[0].Seq != 1 {
			t.Errorf("%s: %d entries, %d back", m.id, len(got), len(back))
		}
		for name, q := range map[string]audit.Query{
			"tenant": {Tenant: got[100].Tenant}, "object": {Object: got[100].Object}, "request": {RequestID: got[100].RequestID},
			"times": {Since: got[100].Time, Until: got[101].Time},
		} {
			for _, q.Newest = range []bool{false, true} {
				if one := m.all(t, q); len(one) != 1 || one[0].Seq != 101 {
					t.Errorf("by %s: %d entries", name, len(one))
				}
			}
		}
		if n := len(m.all(t, audit.Query{Operation: "tenant_put"})); n != 180 {
			t.Error(n)
		}
		if r := m.export(t, ""); r.Entries != 181 || r.Hash != v.AuditHead().Hash {
			t.Errorf("%+v", r)
		}
		if r := m.export(t, got[100].Tenant); r.Entries != 1 || r.To != 181 {
			t.Errorf("%+v", r)
		}
	}
}

func TestAMemberThatMissedSegmentsFetchesThem(t *testing.T) {
	w := open(t, 3)
	w.write(30)
	w.members[2].away = true
	w.lead(0, 50)
	w.write(100)
	w.lead(1, 50)
	late := w.members[2]
	if w.members[0].state.Read().AuditFirst() == 1 {
		t.Fatal("a majority does not suffice")
	}
	// It comes back by a snapshot, in which the entries are no more.
	var b bytes.Buffer
	_, err := w.members[0].state.Read().WriteTo(&b)
	must(t, err)
	if bytes.Count(b.Bytes(), []byte(`"table":"audit",`)) > 65 {
		t.Error("the snapshot still holds old entries")
	}
	must(t, late.state.Restore(&b))
	late.away, late.applied = false, len(w.entries)
	must(t, late.Hold(t.Context()))
	if len(late.files(t)) != len(w.members[0].files(t)) || late.export(t, "").Entries != 131 {
		t.Error(len(late.files(t)))
	}
	w.checkEqual()
}

func TestWithoutAMajorityNothingLeavesTheState(t *testing.T) {
	w := open(t, 3)
	full := fmt.Errorf("write: %w", syscall.ENOSPC)
	w.members[1].full, w.members[2].full = full, full
	w.write(120)
	w.lead(0, 50)
	if first := w.members[0].state.Read().AuditFirst(); first != 1 {
		t.Fatalf("one disk of three holds the segments, and the state begins with %d", first)
	}
	if err := w.members[1].Hold(t.Context()); !errors.Is(err, syscall.ENOSPC) || len(w.members[1].files(t)) != 0 {
		t.Error(err)
	}
	must(t, fleet.VerifyAudit(w.members[1].all(t, audit.Query{})))
	w.members[1].full = nil // someone made room
	w.lead(0, 50)
	if first := w.members[0].state.Read().AuditFirst(); first < 60 {
		t.Errorf("the state still begins with %d", first)
	}
	// The member whose disk is full answers all the same, by those of the others.
	if got := w.members[2].all(t, audit.Query{}); len(got) != 121 {
		t.Error(len(got))
	}
}

func TestLostAndDamagedFilesAreFetchedAgain(t *testing.T) {
	w := open(t, 3)
	w.write(120)
	w.lead(0, 50)
	m := w.members[1]
	for name, damage := range map[string]func(string) error{
		"deleted":   os.Remove,
		"truncated": func(f string) error { return os.Truncate(f, 10) },
		"a bit": func(f string) error {
			b, err := os.ReadFile(f)
			if err == nil {
				b[len(b)/2] ^= 1
				err = os.WriteFile(f, b, 0o600)
			}
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			for _, f := range m.files(t) {
				must(t, damage(f))
			}
			m.open(w) // nothing is remembered
			if got := m.all(t, audit.Query{}); len(got) != 121 || fleet.VerifyAudit(got) != nil {
				t.Errorf("%d entries", len(got))
			}
			for range 30 {
				must(t, m.Hold(t.Context()))
			}
			for _, f := range m.files(t) {
				want, err := os.ReadFile(filepath.Join(w.members[0].dir, filepath.Base(f)))
				must(t, err)
				if got, err := os.ReadFile(f); err != nil || !bytes.Equal(got, want) {
					t.Errorf("%s is not repaired: %v", f, err)
				}
			}
		})
	}
	// With the others away, the query says what is missing, and the rest is answered.
	for _, f := range m.files(t) {
		must(t, os.Remove(f))
	}
	w.members[0].away, w.members[2].away = true, true
	m.open(w)
	if _, err := m.List(t.Context(), audit.Query{Limit: 5}); !errors.Is(err, fleet.ErrUnavailable) {
		t.Error(err)
	}
	if p, err := m.List(t.Context(), audit.Query{Limit: 5, Newest: true}); err != nil || len(p.Entries) != 5 {
		t.Error(p, err)
	}
}

func TestEntriesThatWaitAreSigned(t *testing.T) {
	w := open(t, 1)
	w.write(3)
	w.lead(0, 10_000)
	if got := w.members[0].state.Read().AuditCheckpoints(); len(got) != 0 {
		t.Fatal(got)
	}
	w.now = w.now.Add(time.Hour)
	w.lead(0, 10_000)
	got := w.members[0].state.Read().AuditCheckpoints()
	if len(got) != 1 || got[0].Seq != 4 {
		t.Fatalf("%+v", got)
	}
	must(t, got[0].Verify(key.Public().(ed25519.PublicKey))) //nolint:forcetypeassert // it is
}

func TestJoinTokensAreReapedADayAfterTheyExpired(t *testing.T) {
	w := open(t, 1)
	for i, life := range []time.Duration{time.Minute, 12 * time.Hour} {
		w.propose(command.JoinTokenPut{Token: fleet.JoinTokenRecord{JoinToken: fleet.JoinToken{ID: fleet.TokenID(fmt.Sprint("j", i)), Kind: fleet.JoinMember, ExpiresAt: noon.Add(life)}, Hash: make([]byte, fleet.HashBytes)}})
	}
	w.now = noon.Add(25 * time.Hour)
	w.lead(0, 1000)
	if left := w.members[0].state.Read().JoinTokens(); len(left) != 1 || left[0].ID != "j1" {
		t.Errorf("%+v", left)
	}
}

// BenchmarkMillion lists and exports a million entries; heap is what lives at the most.
func BenchmarkMillion(b *testing.B) {
	w := open(b, 1)
	for range 1000 {
		w.write(1000)
		w.entries = slices.Clip(w.entries[:len(w.entries):len(w.entries)])
		w.lead(0, 10_000)
	}
	for b.Loop() {
		peak := uint64(0)
		var ms runtime.MemStats
		v := chain.NewVerifier(nil)
		for from, until := uint64(1), uint64(0); from <= until || until == 0; from, until = v.Next() {
			part, err := w.members[0].Export(b.Context(), audit.Export{From: from, Until: until, Sign: sign, Now: noon})
			must(b, err)
			for line := range bytes.Lines(part) {
				must(b, v.Line(line))
			}
			runtime.ReadMemStats(&ms)
			peak = max(peak, ms.HeapAlloc)
		}
		b.ReportMetric(float64(peak)/(1<<20), "heap-MiB")
	}
}
