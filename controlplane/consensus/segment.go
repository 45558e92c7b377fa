package consensus

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"github.com/hashicorp/raft-wal/fs"
	"github.com/hashicorp/raft-wal/segment"
	"github.com/hashicorp/raft-wal/types"

	"github.com/edgefleet/edgefleet/fleet"
)

// checkedSegments puts a CRC-32C before each entry and checks it at every read. The write-ahead log by itself checks
// only the last batch, and only when it opens: a bit that flips in an older entry would be handed to Raft, applied
// here and replicated from here. (It also takes a codec of one's own, but 0.4.0 does not open again what it wrote with one.)
type checkedSegments struct{ types.SegmentFiler }

const checksumBytes = 4

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func newSegments(dir string) checkedSegments {
	return checkedSegments{segment.NewFiler(dir, fs.New())}
}

// Create implements types.SegmentFiler.
func (s checkedSegments) Create(info types.SegmentInfo) (types.SegmentWriter, error) {
	return checkWriter(s.SegmentFiler.Create(info))
}

// RecoverTail implements types.SegmentFiler.
func (s checkedSegments) RecoverTail(info types.SegmentInfo) (types.SegmentWriter, error) {
	return checkWriter(s.SegmentFiler.RecoverTail(info))
}

func checkWriter(w types.SegmentWriter, err error) (types.SegmentWriter, error) {
	if err != nil {
		return nil, err
	}
	return checkedWriter{w}, nil
}

// Open implements types.SegmentFiler. A segment whose end was cut, because another leader decided otherwise, is sealed in
// the metadata alone and has no index at its end: the write-ahead log (0.4.0) reads it until it is closed, and never again
// ("sealed segment has no index block"). It is read as a tail is.
func (s checkedSegments) Open(info types.SegmentInfo) (types.SegmentReader, error) {
	if info.IndexStart == 0 {
		return s.RecoverTail(info)
	}
	r, err := s.SegmentFiler.Open(info)
	if err != nil {
		return nil, err
	}
	return checkedReader{r}, nil
}

type checkedWriter struct{ types.SegmentWriter }

// Append implements types.SegmentWriter.
func (w checkedWriter) Append(entries []types.LogEntry) error {
	checked := make([]types.LogEntry, len(entries))
	for i, e := range entries {
		checked[i] = types.LogEntry{Index: e.Index, Data: addChecksum(e.Data)}
	}
	return w.SegmentWriter.Append(checked)
}

// GetLog implements types.SegmentReader.
func (w checkedWriter) GetLog(index uint64) (*types.PooledBuffer, error) {
	return checkedReader{w.SegmentWriter}.GetLog(index)
}

type checkedReader struct{ types.SegmentReader }

// GetLog implements types.SegmentReader. Entries that are not there stay raft.ErrLogNotFound itself, which Raft
// compares with.
func (r checkedReader) GetLog(index uint64) (*types.PooledBuffer, error) {
	buf, err := r.SegmentReader.GetLog(index)
	if err != nil {
		return nil, err
	}
	entry, err := cutChecksum(buf.Bs)
	if err != nil {
		return nil, errors.Join(err, buf.Close())
	}
	buf.Bs = entry
	return buf, nil
}

func addChecksum(entry []byte) []byte {
	out := make([]byte, checksumBytes, checksumBytes+len(entry))
	binary.LittleEndian.PutUint32(out, crc32.Checksum(entry, castagnoli))
	return append(out, entry...)
}

// cutChecksum returns the entry in b, or fleet.ErrCorrupt if addChecksum did not write b.
func cutChecksum(b []byte) ([]byte, error) {
	if len(b) < checksumBytes {
		return nil, fmt.Errorf("%w: an entry of %d bytes", fleet.ErrCorrupt, len(b))
	}
	entry := b[checksumBytes:]
	if crc32.Checksum(entry, castagnoli) != binary.LittleEndian.Uint32(b) {
		return nil, fmt.Errorf("%w: the checksum of an entry does not match", fleet.ErrCorrupt)
	}
	return entry, nil
}
