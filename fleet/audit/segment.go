package audit

import (
	"bytes"
	"encoding/json"
	"fmt"

	"github.com/edgefleet/edgefleet/fleet"
)

// segmentFormat is the version of a segment's file: a header line, then one entry a line.
const segmentFormat = 1

// MaxSegmentBytes bounds a segment's entries; one entry that is larger is a segment of its own.
const MaxSegmentBytes = 4 << 20

// MaxLine bounds one line: before and after of an entry come from commands of at most 4 MiB each.
const MaxLine = 16 << 20

// header is the first line of a segment's file. Everything in it also stands in the state's row.
type header struct {
	Segment int             `json:"segment"`
	Cluster fleet.ClusterID `json:"cluster"`
	From    uint64          `json:"from"`
	To      uint64          `json:"to"`
	Prev    string          `json:"prev"`
	Hash    string          `json:"hash"`
	Count   uint64          `json:"count"`
	// Digest is the SHA-256 of what follows the header.
	Digest fleet.Digest `json:"digest"`
}

// Line is an entry as it stands in segments and exports.
func Line(e fleet.AuditEntry) ([]byte, error) {
	b, err := json.Marshal(e)
	if err != nil {
		return nil, fmt.Errorf("encode audit entry %d: %w", e.Seq, err)
	}
	return append(b, '\n'), nil
}

// Hashes are the hashes of entries, in order: the leaves of their Merkle tree.
func Hashes(entries []fleet.AuditEntry) []string {
	hs := make([]string, len(entries))
	for i, e := range entries {
		hs[i] = e.Hash
	}
	return hs
}

// Seal makes a segment of consecutive entries: its row without a signature, and its file. Every member makes the same.
func Seal(cluster fleet.ClusterID, entries []fleet.AuditEntry) (fleet.AuditSegment, []byte, error) {
	return SealSlowly(cluster, entries, func() {})
}

// restEvery is after how many entries, half a millisecond's work, SealSlowly rests.
const restEvery = 32

// SealSlowly is Seal for members, which all seal at the same moment, and serve requests meanwhile: rest is called now and
// then.
func SealSlowly(cluster fleet.ClusterID, entries []fleet.AuditEntry, rest func()) (fleet.AuditSegment, []byte, error) {
	var body bytes.Buffer
	for i, e := range entries {
		if i%restEvery == restEvery-1 {
			rest()
		}
		b, err := Line(e)
		if err != nil {
			return fleet.AuditSegment{}, nil, err
		}
		body.Write(b)
	}
	first, last := entries[0], entries[len(entries)-1]
	s := fleet.AuditSegment{
		From: first.Seq, To: last.Seq, Prev: first.Prev, Hash: last.Hash, Bytes: int64(body.Len()), Digest: fleet.DigestOf(body.Bytes()),
		Checkpoint: fleet.AuditCheckpoint{Cluster: cluster, From: first.Seq, Seq: last.Seq, Hash: last.Hash, Root: Root(Hashes(entries))},
	}
	head, err := headerOf(s)
	return s, append(head, body.Bytes()...), err
}

func headerOf(s fleet.AuditSegment) ([]byte, error) {
	b, err := json.Marshal(header{
		Segment: segmentFormat, Cluster: s.Checkpoint.Cluster, From: s.From, To: s.To, Prev: s.Prev, Hash: s.Hash, Count: s.To - s.From + 1, Digest: s.Digest,
	})
	if err != nil {
		return nil, fmt.Errorf("encode audit segment %d: %w", s.From, err)
	}
	return append(b, '\n'), nil
}

// CheckSegment compares a file with its row: ErrCorrupt unless it is, byte for byte, the file that was sealed.
func CheckSegment(s fleet.AuditSegment, file []byte) error {
	head, err := headerOf(s)
	if err != nil {
		return err
	}
	body, ok := bytes.CutPrefix(file, head)
	if !ok || fleet.DigestOf(body) != s.Digest {
		return fleet.NewError(fleet.ErrCorrupt, "segment", "the file of the audit entries %d to %d is damaged: its digest is not %s", s.From, s.To, s.Digest)
	}
	return nil
}

// ReadSegment checks a file against its row and returns its entries.
func ReadSegment(s fleet.AuditSegment, file []byte) ([]fleet.AuditEntry, error) {
	if err := CheckSegment(s, file); err != nil {
		return nil, err
	}
	_, body, _ := bytes.Cut(file, []byte("\n"))
	var entries []fleet.AuditEntry
	for line := range bytes.Lines(body) {
		var e fleet.AuditEntry
		if err := fleet.DecodeStrict(line, &e); err != nil {
			return nil, fmt.Errorf("%w: audit segment from %d, entry %d: %w", fleet.ErrCorrupt, s.From, len(entries)+1, err)
		}
		entries = append(entries, e)
	}
	if uint64(len(entries)) != s.To-s.From+1 || entries[0].Seq != s.From || entries[0].Prev != s.Prev || entries[len(entries)-1].Hash != s.Hash {
		return nil, fleet.NewError(fleet.ErrCorrupt, "segment", "the audit segment from %d to %d does not hold these entries", s.From, s.To)
	}
	return entries, nil
}

// OpenSegment is ReadSegment, and checks the chain and the root of the checkpoint too.
func OpenSegment(s fleet.AuditSegment, file []byte) ([]fleet.AuditEntry, error) {
	entries, err := ReadSegment(s, file)
	if err != nil {
		return nil, err
	}
	if err := fleet.VerifyAudit(entries); err != nil {
		return nil, err
	}
	if Root(Hashes(entries)) != s.Checkpoint.Root {
		return nil, fleet.NewError(fleet.ErrCorrupt, "segment", "the audit entries %d to %d are not those under the signed root", s.From, s.To)
	}
	return entries, nil
}
