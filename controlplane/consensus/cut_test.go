package consensus_test

import (
	"errors"
	"testing"

	"github.com/hashicorp/raft"
	"github.com/hashicorp/raft-wal/metadb"

	"github.com/edgefleet/edgefleet/controlplane/consensus"
)

// What was not committed is cut when another leader decided otherwise; the log must open afterwards, again and again.
func TestALogWhoseEndWasCutOpensAgain(t *testing.T) {
	dir := t.TempDir()
	open := func(use func(raft.LogStore)) {
		t.Helper()
		meta := &metadb.BoltMetaDB{}
		w, err := consensus.OpenWAL(dir, meta, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		use(w)
		if err := errors.Join(w.Close(), meta.Close()); err != nil {
			t.Fatal(err)
		}
	}
	store := func(from, to uint64) func(raft.LogStore) {
		return func(w raft.LogStore) {
			for i := from; i <= to; i++ {
				if err := w.StoreLog(entry(i)); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	holds := func(last uint64) func(raft.LogStore) {
		return func(w raft.LogStore) {
			for i := uint64(1); i <= last; i++ {
				var l raft.Log
				if err := w.GetLog(i, &l); err != nil || string(l.Data) != string(entry(i).Data) {
					t.Fatalf("entry %d of %d: %q %v", i, last, l.Data, err)
				}
			}
			if got, err := w.LastIndex(); err != nil || got != last {
				t.Fatalf("the last entry is %d, want %d: %v", got, last, err)
			}
			if err := w.GetLog(last+1, new(raft.Log)); !errors.Is(err, raft.ErrLogNotFound) {
				t.Fatalf("what was cut is there: %v", err)
			}
		}
	}
	cut := func(from, to uint64) func(raft.LogStore) {
		return func(w raft.LogStore) {
			if err := w.DeleteRange(from, to); err != nil {
				t.Fatal(err)
			}
		}
	}
	open(store(1, 9))
	open(cut(8, 9))
	open(holds(7))
	open(cut(6, 7)) // of a segment that was cut before
	open(holds(5))
	open(store(6, 12))
	open(holds(12))
	open(cut(4, 12)) // of two segments
	open(holds(3))
	open(store(4, 5))
	open(holds(5))
}
