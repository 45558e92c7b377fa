package consensus

import (
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/hashicorp/raft-wal/metadb"
	"github.com/hashicorp/raft-wal/types"
)

// finishRotation makes good what a crash, or a full disk, left half done: the last segment of the log was sealed, and the
// metadata does not know its successor. The write-ahead log (0.4.0) opens such a log and then refuses every append
// because the segment is sealed, whatever else is put right.
func finishRotation(dir string, segments types.SegmentFiler) (err error) {
	meta := &metadb.BoltMetaDB{}
	defer func() { err = errors.Join(err, meta.Close()) }()
	state, err := meta.Load(dir)
	if err != nil || len(state.Segments) == 0 {
		return err
	}
	tail := &state.Segments[len(state.Segments)-1]
	if !tail.SealTime.IsZero() {
		return nil
	}
	w, err := segments.RecoverTail(*tail)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // it is made when the log opens
	}
	if err != nil {
		return err
	}
	sealed, indexStart, err := w.Sealed()
	last := w.LastIndex()
	if err = errors.Join(err, w.Close()); err != nil || !sealed {
		return err
	}
	now := time.Now()
	tail.SealTime, tail.MaxIndex, tail.IndexStart = now, last, indexStart
	next := types.SegmentInfo{
		ID: state.NextSegmentID, BaseIndex: last + 1, MinIndex: last + 1, SizeLimit: tail.SizeLimit, Codec: tail.Codec, CreateTime: now,
	}
	state.Segments, state.NextSegmentID = append(state.Segments, next), state.NextSegmentID+1
	if err := meta.CommitState(state); err != nil {
		return fmt.Errorf("finish the rotation of the log: %w", err)
	}
	return nil
}
