package fsm_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/edgefleet/edgefleet/controlplane/command"
	"github.com/edgefleet/edgefleet/controlplane/fsm"
	"github.com/edgefleet/edgefleet/fleet"
)

// keyed applies a command under an idempotency key.
func (w *world) keyed(t testing.TB, caller, key, request string, b command.Body) fsm.Result {
	t.Helper()
	h := header(w.now)
	h.Once = &command.Once{Caller: caller, Key: key, Request: request, Expires: w.now.Add(fleet.KeyLife)}
	entry, err := command.Encode(h, b)
	if err != nil {
		t.Fatal(err)
	}
	return w.feed(t, entry)
}

func answerOf(t testing.TB, r fsm.Result) string {
	t.Helper()
	replay, ok := r.Object.(command.Replay)
	if !ok || r.Err != nil {
		t.Fatalf("no replay: %+v", r)
	}
	return string(replay.Answer)
}

func TestACommandUnderAKeyAppliesOnce(t *testing.T) {
	w := empty().must(t, clusterInit())
	first := w.keyed(t, "token/a", "k", "r1", tenant("acme"))
	made, ok := first.Object.(fleet.Tenant)
	if !ok {
		t.Fatalf("got %+v", first)
	}
	want, err := json.Marshal(made)
	if err != nil {
		t.Fatal(err)
	}
	entries := len(w.audit(t))
	if got := answerOf(t, w.keyed(t, "token/a", "k", "r1", tenant("acme"))); got != string(want) {
		t.Errorf("got %s, want %s", got, want)
	}
	if r := w.keyed(t, "token/a", "k", "r2", tenant("beta")); !errors.Is(r.Err, fleet.ErrKeyReused) {
		t.Errorf("another request: %+v", r)
	}
	if n := len(w.audit(t)); n != entries {
		t.Errorf("%d audit entries were added", n-entries)
	}
	if r := w.keyed(t, "token/b", "k", "r2", tenant("beta")); r.Err != nil {
		t.Errorf("another caller's key: %v", r.Err)
	}
	// What is not there any more is answered all the same.
	if r := w.keyed(t, "token/a", "d", "r3", command.TenantDelete{ID: "acme"}); r.Err != nil {
		t.Fatal(r.Err)
	}
	if got := answerOf(t, w.keyed(t, "token/a", "d", "r3", command.TenantDelete{ID: "acme"})); got != "" {
		t.Errorf("a deletion answered %s", got)
	}
}

func TestARefusedCommandLeavesItsKeyFree(t *testing.T) {
	w := empty().must(t, clusterInit())
	if r := w.keyed(t, "a", "k", "r1", command.TenantDelete{ID: "none"}); !errors.Is(r.Err, fleet.ErrNotFound) {
		t.Fatalf("got %+v", r)
	}
	if r := w.keyed(t, "a", "k", "r2", tenant("acme")); r.Err != nil {
		t.Error(r.Err)
	}
	for _, key := range []string{"", strings.Repeat("k", fleet.MaxKeyLength+1)} {
		if r := w.keyed(t, "a", key, "r", tenant("beta")); !errors.Is(r.Err, fleet.ErrInvalid) {
			t.Errorf("a key of %d bytes: %+v", len(key), r)
		}
	}
}

func TestKeysSurviveASnapshotAndEndWithTheirTime(t *testing.T) {
	w := empty().must(t, clusterInit())
	w.keyed(t, "a", "k", "r", tenant("acme"))
	var b strings.Builder
	if _, err := w.state.Read().WriteTo(&b); err != nil {
		t.Fatal(err)
	}
	other := empty()
	if err := other.state.Restore(strings.NewReader(b.String())); err != nil {
		t.Fatal(err)
	}
	other.index, other.now = w.index, w.now.Add(fleet.KeyLife-1)
	answerOf(t, other.keyed(t, "a", "k", "r", tenant("acme")))
	other.now = w.now.Add(fleet.KeyLife)
	if r := other.keyed(t, "a", "k", "other", tenant("beta")); r.Err != nil {
		t.Errorf("a key whose time is over: %v", r.Err)
	}
	other.keyed(t, "b", "k", "r", tenant("gamma"))
	other.must(t, command.KeysExpire{Before: other.now, Limit: 10})
	if _, ok := other.state.Read().Once("a", "k"); !ok {
		t.Error("a key was forgotten before its time")
	}
	other.must(t, command.KeysExpire{Before: other.now.Add(fleet.KeyLife), Limit: 1})
	if _, ok := other.state.Read().Once("a", "k"); ok {
		t.Error("the oldest key is still there")
	}
	if _, ok := other.state.Read().Once("b", "k"); !ok {
		t.Error("more keys than the limit were forgotten")
	}
}

// given remembers n keys of a caller with answers of so many bytes.
func (w *world) given(caller string, n, bytes uint64) {
	tx := w.state.Write()
	for i := range n {
		tx.PutOnce(fleet.Once{Caller: caller, Key: fmt.Sprint(i), Request: "r", Answer: make([]byte, bytes), Expires: w.now.Add(fleet.KeyLife), Index: 1_000_000 + i, Seq: i + 1, Bytes: (i + 1) * bytes})
	}
	tx.Commit()
}

func TestTheOldestKeysOfACallerMakeRoom(t *testing.T) {
	for name, test := range map[string]struct{ n, bytes uint64 }{
		"when there are too many":       {fleet.MaxKeysPerCaller - 2, 0},
		"when they hold too many bytes": {fleet.MaxKeyBytesPerCaller / 20_000, 20_000},
	} {
		t.Run(name, func(t *testing.T) {
			w := empty().must(t, clusterInit(), tenant("acme"))
			w.keyed(t, "b", "k", "r", tenant("beta"))
			w.given("a", test.n, test.bytes)
			const more = 40
			big := rule("r1", "acme")
			big.Spec.Comment = strings.Repeat("c", fleet.MaxCommentLength)
			w.must(t, big)
			big.Put = command.Put{}
			for i := range more {
				if r := w.keyed(t, "a", fmt.Sprint("new", i), "r", big); r.Err != nil {
					t.Fatal(r.Err)
				}
			}
			v := w.state.Read()
			oldest, _ := v.OldestOnce("a")
			newest, _ := v.NewestOnce("a")
			keys, bytes := newest.Seq-oldest.Seq+1, newest.Bytes-oldest.Bytes+uint64(len(oldest.Answer))
			if keys > fleet.MaxKeysPerCaller || bytes > fleet.MaxKeyBytesPerCaller || oldest.Seq < 2 || oldest.Seq > more || newest.Key != "new39" {
				t.Errorf("%d keys of %d bytes are kept, from %d to %s", keys, bytes, oldest.Seq, newest.Key)
			}
			if _, ok := v.Once("b", "k"); !ok {
				t.Error("another caller's key had to make room")
			}
		})
	}
}
