package consensus_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/hashicorp/raft"
	wal "github.com/hashicorp/raft-wal"
	"github.com/hashicorp/raft-wal/metadb"
	"github.com/hashicorp/raft-wal/segment"
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

const smallSegment = 1 << 10

// cutShort leaves a log whose last segment is sealed while the metadata does not know that. It returns the last entry.
func cutShort(t *testing.T, dir string) (stored uint64) {
	t.Helper()
	meta := &fullMeta{}
	w, err := wal.Open(dir, wal.WithMetaStore(meta), wal.WithSegmentFiler(consensus.NewSegments(dir)), wal.WithSegmentSize(smallSegment))
	if err != nil {
		t.Fatal(err)
	}
	meta.full.Store(true)
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
	return stored
}

// goesOn opens the log, which must end at an entry, and appends to it; twice, for the second time nothing is to mend.
func goesOn(t *testing.T, dir string, stored uint64) {
	t.Helper()
	for range 2 {
		meta := &metadb.BoltMetaDB{}
		w, err := consensus.OpenWAL(dir, meta, smallSegment)
		if err != nil {
			t.Fatal(err)
		}
		if last, err := w.LastIndex(); err != nil || last != stored {
			t.Fatalf("the log ends at entry %d, %v; want %d", last, err, stored)
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

func TestARotationThatAFullDiskCutShortIsFinished(t *testing.T) {
	dir := t.TempDir()
	goesOn(t, dir, cutShort(t, dir))
}

func TestASealThatAFullDiskCutShortIsTakenBack(t *testing.T) {
	for _, cut := range []int64{-8, 0, 4, 40, 84} { // from the header of the index frame to before the commit
		t.Run(fmt.Sprint(cut), func(t *testing.T) {
			dir := t.TempDir()
			stored := cutShort(t, dir)
			meta := &metadb.BoltMetaDB{}
			state, err := meta.Load(dir)
			if err != nil {
				t.Fatal(err)
			}
			tail := state.Segments[len(state.Segments)-1]
			w, err := consensus.NewSegments(dir).RecoverTail(tail)
			if err != nil {
				t.Fatal(err)
			}
			_, index, err := w.Sealed()
			err = errors.Join(err, w.Close(), meta.Close(), os.Truncate(filepath.Join(dir, segment.FileName(tail)), int64(index)+cut))
			if err != nil {
				t.Fatal(err)
			}
			goesOn(t, dir, stored-1) // the entry that came with the index was never acknowledged
		})
	}
}
