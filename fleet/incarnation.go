package fleet

import "time"

// SignedIncarnation is the statement that begins a new incarnation of a cluster, signed by its recovery key; package head
// makes and checks it. Nodes take heads of a higher incarnation only with it, whoever holds the head key.
type SignedIncarnation struct {
	// Statement is the exact JSON that was signed.
	Statement []byte `json:"statement"`
	Signature []byte `json:"signature"`
}

// IncarnationCause is why an incarnation began.
type IncarnationCause string

// The causes of an incarnation.
const (
	// CauseRestore: the state was replaced by a snapshot.
	CauseRestore IncarnationCause = "restore"
	// CauseRecover: the quorum was lost, and a member recovered alone.
	CauseRecover IncarnationCause = "recover"
	// CauseOrder: an operator ordered it, for example because the head key was stolen.
	CauseOrder IncarnationCause = "order"
)

// IncarnationRecord is one incarnation after the first.
type IncarnationRecord struct {
	Number uint64           `json:"number"`
	Cause  IncarnationCause `json:"cause"`
	// From is the incarnation before it, as far as the cluster knew.
	From uint64 `json:"from"`
	// Snapshot is the snapshot that was restored, if one was.
	Snapshot *SnapshotOrigin `json:"snapshot,omitempty"`
	// Statement is what nodes are shown; without it they stay with what they have.
	Statement *SignedIncarnation `json:"statement,omitempty"`
	Meta
}

// SnapshotOrigin says which snapshot a state came from.
type SnapshotOrigin struct {
	Incarnation uint64    `json:"incarnation"`
	Index       uint64    `json:"index"`
	Time        time.Time `json:"time"`
	StateHash   string    `json:"state_hash"`
}
