package consensus

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/hashicorp/raft-wal/metadb"
	"github.com/hashicorp/raft-wal/segment"
	"github.com/hashicorp/raft-wal/types"
)

// finishRotation makes good what a crash, or a full disk, left half done: the last segment of the log has its index at the
// end, and the metadata does not know its successor. The write-ahead log (0.4.0) opens such a log and then refuses every
// append because the segment is sealed, whatever else is put right.
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
	sealed, index, err := w.Sealed()
	last := w.LastIndex()
	if err = errors.Join(err, w.Close()); err != nil || !sealed {
		return err
	}
	if whole, err := unseal(filepath.Join(dir, segment.FileName(*tail)), int64(index)); err != nil || !whole { //nolint:gosec // an offset in a file
		return err
	}
	now := time.Now()
	tail.SealTime, tail.MaxIndex, tail.IndexStart = now, last, index
	next := types.SegmentInfo{
		ID: state.NextSegmentID, BaseIndex: last + 1, MinIndex: last + 1, SizeLimit: tail.SizeLimit, Codec: tail.Codec, CreateTime: now,
	}
	state.Segments, state.NextSegmentID = append(state.Segments, next), state.NextSegmentID+1
	if err := meta.CommitState(state); err != nil {
		return fmt.Errorf("finish the rotation of the log: %w", err)
	}
	return nil
}

// unseal takes back an index that was not written to its end, with the entries before it that nobody was told were stored:
// the segment goes on after its last commit. It reports whether the index is whole, and then leaves it. Each frame has a
// header of 8 bytes, its type and its length, and is padded to a multiple of 8; a commit follows the index.
func unseal(file string, index int64) (whole bool, err error) {
	const header = 8
	f, err := os.OpenFile(file, os.O_RDWR, 0)
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	var frame [header]byte
	if _, err := f.ReadAt(frame[:], index-header); err != nil {
		return false, err
	}
	length := int64(binary.LittleEndian.Uint32(frame[4:]))
	_, err = f.ReadAt(frame[:], index+(length+header-1)/header*header)
	if err != nil && !errors.Is(err, io.EOF) {
		return false, err
	}
	if err == nil && frame[0] == segment.FrameCommit {
		return true, nil
	}
	if _, err := f.WriteAt(make([]byte, header), index-header); err != nil {
		return false, err
	}
	return false, f.Sync()
}
