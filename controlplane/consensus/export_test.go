package consensus

import (
	"log/slog"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	wal "github.com/hashicorp/raft-wal"
	"github.com/hashicorp/raft-wal/metadb"
	"github.com/hashicorp/raft-wal/types"
)

// WithLogStore puts wrap between Raft and the write-ahead log.
func WithLogStore(o Options, wrap func(raft.LogStore) raft.LogStore) Options {
	o.wrapLog = wrap
	return o
}

// WithSegmentBytes seals segments of the write-ahead log at that size.
func WithSegmentBytes(o Options, n int) Options {
	o.segmentBytes = n
	return o
}

// LoopbackTransport is Raft's transport in memory, or something around it.
type LoopbackTransport = transport

// OpenInMemory starts a member without disk and network, which fits in a bubble of fake time.
func OpenInMemory(o Options, transport LoopbackTransport) (*Node, error) {
	o = o.withDefaults()
	if err := o.validate(); err != nil {
		return nil, err
	}
	store := raft.NewInmemStore()
	return open(o, parts{
		logs: store, stable: store, snapshots: raft.NewInmemSnapshotStore(), transport: transport,
		disconnect: transport.Close, release: func() error { return nil },
	})
}

// FirstIndex is the oldest entry that the log has.
func FirstIndex(n *Node) (uint64, error) { return n.logs.FirstIndex() }

// NewLogger is the logger that Raft is given.
func NewLogger(l *slog.Logger) hclog.Logger { return newLogger(l) }

// AddChecksum and CutChecksum are what is done to an entry before it is written, and when it is read.
func AddChecksum(entry []byte) []byte { return addChecksum(entry) }

// CutChecksum is the other direction.
func CutChecksum(b []byte) ([]byte, error) { return cutChecksum(b) }

// NewSegments are the files of a write-ahead log, with a checksum before each entry.
func NewSegments(dir string) types.SegmentFiler { return newSegments(dir) }

// OpenWAL opens a write-ahead log as a member does.
func OpenWAL(dir string, meta *metadb.BoltMetaDB, segmentBytes int) (*wal.WAL, error) {
	return openWAL(dir, meta, segmentBytes, hclog.NewNullLogger())
}

// NewStableStore keeps Raft's term and vote in s until end.
func NewStableStore(s raft.StableStore) (store raft.StableStore, end func()) {
	st := &stableStore{StableStore: s}
	return st, st.end
}

// NewPipeline is what Raft sends through.
func NewPipeline(p raft.AppendPipeline) raft.AppendPipeline { return newPipeline(p) }
