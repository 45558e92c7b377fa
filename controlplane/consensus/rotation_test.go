package consensus_test

import (
	"errors"
	"fmt"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/hashicorp/raft"
	wal "github.com/hashicorp/raft-wal"
	"github.com/hashicorp/raft-wal/metadb"
	"github.com/hashicorp/raft-wal/types"

	"github.com/edgefleet/edgefleet/controlplane/consensus"
)

// fullMeta is metadata on a disk that is full by now.
type fullMeta struct {
	metadb.BoltMetaDB
	full atomic.Bool
}

// CommitState implements types.MetaStore.
func (f *fullMeta) CommitState(s types.PersistentState) error {
	if f.full.Load() {
		return syscall.ENOSPC
	}
	return f.BoltMetaDB.CommitState(s)
}

func entry(i uint64) *raft.Log {
	return &raft.Log{Index: i, Term: 1, Data: fmt.Appendf(nil, "entry %d", i)}
}

func TestARotationThatAFullDiskCutShortIsFinished(t *testing.T) {
	const segmentBytes = 1 << 10
	dir := t.TempDir()
	meta := &fullMeta{}
	w, err := wal.Open(dir, wal.WithMetaStore(meta), wal.WithSegmentFiler(consensus.NewSegments(dir)), wal.WithSegmentSize(segmentBytes))
	if err != nil {
		t.Fatal(err)
	}
	meta.full.Store(true)
	stored := uint64(0)
	for err == nil {
		if err = w.StoreLog(entry(stored + 1)); err == nil {
			stored++
		}
	}
	if !errors.Is(err, types.ErrSealed) || stored == 0 {
		t.Fatalf("%d entries, then %v", stored, err)
	}
	if err := errors.Join(w.Close(), meta.Close()); err != nil {
		t.Fatal(err)
	}

	for range 2 { // the second time there is nothing to finish
		meta := &metadb.BoltMetaDB{}
		w, err := consensus.OpenWAL(dir, meta, segmentBytes)
		if err != nil {
			t.Fatal(err)
		}
		for range 40 { // over the end of the next segment, too
			stored++
			if err := w.StoreLog(entry(stored)); err != nil {
				t.Fatalf("entry %d: %v", stored, err)
			}
		}
		for i := uint64(1); i <= stored; i++ {
			var l raft.Log
			if err := w.GetLog(i, &l); err != nil || string(l.Data) != string(entry(i).Data) {
				t.Fatalf("entry %d reads %q, %v", i, l.Data, err)
			}
		}
		if err := errors.Join(w.Close(), meta.Close()); err != nil {
			t.Fatal(err)
		}
	}
}
