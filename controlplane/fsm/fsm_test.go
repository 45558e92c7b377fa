package fsm_test

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/hashicorp/raft"

	"github.com/edgefleet/edgefleet/controlplane/command"
	"github.com/edgefleet/edgefleet/fleet"
)

func TestEveryCommandHasAProcessor(t *testing.T) {
	for _, typ := range command.Types() {
		_, b, err := command.Decode(append([]byte{1, byte(typ)}, `{"header":{"time":"2026-01-01T00:00:00Z","name":"a","party":"vendor"},"body":{}}`...))
		if err != nil {
			t.Fatal(err)
		}
		for name, w := range map[string]*world{"new": empty(), "used": city(t)} {
			before := w.rows(t)
			// Refusing is right, panicking would halt every member for good.
			if r := w.apply(t, b); r.Err != nil && w.rows(t) != before {
				t.Errorf("%s with nothing in it changed a %s state although refused: %v", typ, name, r.Err)
			}
		}
	}
}

func TestAnEntryThatCannotBeReadHaltsTheMemberWithAHelpfulMessage(t *testing.T) {
	w := city(t)
	before := w.hash(t)
	for name, tc := range map[string]struct {
		data []byte
		says []string
	}{
		"an unknown command": {[]byte("\x01\x7f{}"), []string{"log entry 99", "term 7", "stops so that it does not diverge", "unknown command 127", "upgrade"}},
		"damaged bytes":      {[]byte("rubbish"), []string{"log entry 99", "its log is damaged"}},
	} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				said, _ := recover().(string)
				for _, s := range tc.says {
					if !strings.Contains(said, s) {
						t.Errorf("%q does not say %q", said, s)
					}
				}
			}()
			w.Apply(&raft.Log{Index: 99, Term: 7, Data: tc.data})
			t.Error("applied")
		})
	}
	if w.hash(t) != before {
		t.Error("the state changed")
	}
	w.must(t, tenant("after")) // and the store is not left locked
}

func TestTheIndexMovesOnWhenACommandIsRefused(t *testing.T) {
	w := city(t)
	rows, index := w.rows(t), w.index
	if r := w.apply(t, tenant("acme")); r.Err == nil {
		t.Fatal("not refused")
	}
	if got := w.state.Read().Index(); got != index+1 || w.rows(t) != rows {
		t.Errorf("index %d, want %d", got, index+1)
	}
}

func TestRevisionsAndTimesComeFromTheLog(t *testing.T) {
	w := city(t)
	before, _ := w.state.Read().Tenant("acme")
	w.now = w.now.Add(60e9)
	w.must(t, command.TenantPut{ID: "acme", Spec: fleet.TenantSpec{Name: "x", Form: fleet.Hybrid, Group: "second"}, Put: command.Put{IfRevision: before.Revision}})
	after, _ := w.state.Read().Tenant("acme")
	if after.Revision != w.index || !after.CreatedAt.Equal(noon) || !after.UpdatedAt.Equal(w.now) {
		t.Errorf("%+v at index %d", after.Meta, w.index)
	}
}

func TestSnapshotIsWrittenWhileLaterCommandsApply(t *testing.T) {
	w := city(t)
	want := w.hash(t)
	snap, err := w.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	w.must(t, tenant("later"))
	var sink sink
	if err := snap.Persist(&sink); err != nil || !sink.closed || sink.cancelled {
		t.Fatal(err, sink.closed, sink.cancelled)
	}
	snap.Release()
	other := empty()
	other.must(t, tenantless()...)
	if err := other.Restore(io.NopCloser(&sink.Buffer)); err != nil {
		t.Fatal(err)
	}
	if other.hash(t) != want || other.state.Read().Index() != w.index-1 {
		t.Error("the restored state is not the one of the snapshot")
	}
}

// tenantless is a log that leaves a state with something else in it.
func tenantless() []command.Body { return []command.Body{clusterInit()} }

func TestASnapshotThatCannotBeWrittenIsCancelled(t *testing.T) {
	snap, err := city(t).Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	s := sink{fail: errors.New("disk is full")}
	if err := snap.Persist(&s); !errors.Is(err, s.fail) || !s.cancelled || s.closed {
		t.Error(err, s.cancelled, s.closed)
	}
}

func TestADamagedSnapshotLeavesTheStateAndIsClosed(t *testing.T) {
	w := city(t)
	before := w.hash(t)
	rc := &closer{Reader: strings.NewReader("{\"format\":1}\n")}
	if err := w.Restore(rc); !errors.Is(err, fleet.ErrCorrupt) || !rc.closed {
		t.Error(err, rc.closed)
	}
	if w.hash(t) != before {
		t.Error("the state changed")
	}
}

type closer struct {
	io.Reader
	closed bool
}

func (c *closer) Close() error { c.closed = true; return nil }

// sink is a raft.SnapshotSink in memory.
type sink struct {
	bytes.Buffer
	fail              error
	closed, cancelled bool
}

func (s *sink) Write(p []byte) (int, error) {
	if s.fail != nil {
		return 0, s.fail
	}
	return s.Buffer.Write(p)
}
func (s *sink) ID() string    { return "test" }
func (s *sink) Close() error  { s.closed = true; return nil }
func (s *sink) Cancel() error { s.cancelled = true; return nil }

func TestViewsHeldBeforeAreNotTouched(t *testing.T) {
	w := city(t)
	v := w.state.Read()
	before, err := v.Hash()
	if err != nil {
		t.Fatal(err)
	}
	w.must(t, command.NodesReport{Reports: []command.NodeReport{{ID: "n1", Observed: fleet.NodeObserved{State: fleet.NodeUp}}}}, command.HostDelete{Name: "a.example.com", Tenant: "acme"}, joinToken("j9", fleet.JoinMember), command.MemberJoin{Token: "j9", Member: fleet.Member{ID: "m9"}})
	if after, err := v.Hash(); err != nil || after != before {
		t.Error("an old view changed", err)
	}
}

var _ raft.FSM = (*world)(nil)
