package audit

import (
	"bytes"
	"crypto/ed25519"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/edgefleet/edgefleet/fleet"
)

// exportFormat is the version of the export format. An export is one or more parts, each of these lines:
//
//	{"export":Part}                      once, first
//	{"entry":AuditEntry}                 in order; with "proof" in a tenant's export
//	{"checkpoint":AuditCheckpoint}       signed, after the entries that it covers
//	{"end":End}                          once, last: count, digest of all lines above, signature
//
// A whole export proves that no entry was changed, removed, added or reordered. A tenant's export holds its own entries
// only, and proves of each that it stands in the signed chain as shown, and that the control plane exported exactly
// these: that there are no others of the tenant is the control plane's signed word, which the whole export proves.
const exportFormat = 1

type (
	// Part begins one part of an export.
	Part struct {
		Format  int             `json:"format"`
		Cluster fleet.ClusterID `json:"cluster"`
		// Tenant is set in an export of that tenant's entries only.
		Tenant fleet.TenantID `json:"tenant,omitempty"`
		// From and To are the entries that this part covers, Until where the whole export ends.
		From  uint64 `json:"from"`
		To    uint64 `json:"to"`
		Until uint64 `json:"until"`
		// Prev is the hash of the entry before From.
		Prev string `json:"prev"`
		// Key is the audit public key. An auditor compares it with the one that was given to them.
		Key  []byte    `json:"key"`
		Time time.Time `json:"time"`
	}
	// End ends one part.
	End struct {
		Entries int    `json:"entries"`
		Seq     uint64 `json:"seq"`
		// Hash is the chain's at Seq.
		Hash string `json:"hash"`
		// Digest is the SHA-256 of all lines of the part before this one.
		Digest    fleet.Digest `json:"digest"`
		Signature []byte       `json:"signature"`
	}
	line struct {
		Export     *Part                  `json:"export,omitempty"`
		Entry      json.RawMessage        `json:"entry,omitempty"`
		Proof      []string               `json:"proof,omitempty"`
		Checkpoint *fleet.AuditCheckpoint `json:"checkpoint,omitempty"`
		End        *End                   `json:"end,omitempty"`
	}
)

// endContext keeps the signature of an end from being shown as one of another statement.
const endContext = "edgefleet audit export 1\n"

func (e End) signed() ([]byte, error) {
	e.Signature = nil
	b, err := json.Marshal(e)
	if err != nil {
		return nil, fmt.Errorf("encode end of export: %w", err)
	}
	return append([]byte(endContext), b...), nil
}

// Writer writes one part of an export, in memory.
type Writer struct {
	part Part
	b    bytes.Buffer
	end  End
}

// NewWriter begins a part that covers the entries from p.From on.
func NewWriter(p Part) *Writer {
	p.Format = exportFormat
	return &Writer{part: p, end: End{Seq: p.From - 1, Hash: p.Prev}}
}

// Len is the size of what was written so far.
func (w *Writer) Len() int { return w.b.Len() }

func (w *Writer) line(l line) error {
	b, err := json.Marshal(l)
	if err != nil {
		return fmt.Errorf("encode line of export: %w", err)
	}
	w.b.Write(append(b, '\n'))
	return nil
}

// Skip goes on behind entries that hold none of the tenant's.
func (w *Writer) Skip(to uint64, hash string) { w.end.Seq, w.end.Hash = to, hash }

// Block writes the entries that c covers, of a tenant's export only its own.
func (w *Writer) Block(entries []fleet.AuditEntry, c fleet.AuditCheckpoint) error {
	hashes, wrote := Hashes(entries), false
	for i, e := range entries {
		l := line{}
		if w.part.Tenant != "" {
			if e.Tenant != w.part.Tenant {
				continue
			}
			l.Proof = Prove(hashes, i)
		}
		raw, err := json.Marshal(e)
		if err != nil {
			return fmt.Errorf("encode audit entry %d: %w", e.Seq, err)
		}
		l.Entry = raw
		if err := w.line(l); err != nil {
			return err
		}
		w.end.Entries++
		wrote = true
	}
	w.Skip(c.Seq, c.Hash)
	if !wrote {
		return nil
	}
	return w.line(line{Checkpoint: &c})
}

// Close ends the part and returns all of it.
func (w *Writer) Close(sign fleet.AuditSigner) ([]byte, error) {
	w.part.To = w.end.Seq
	head, err := json.Marshal(line{Export: &w.part})
	if err != nil {
		return nil, fmt.Errorf("encode export: %w", err)
	}
	out := slices.Concat(head, []byte("\n"), w.b.Bytes())
	w.end.Digest = fleet.DigestOf(out)
	msg, err := w.end.signed()
	if err != nil {
		return nil, err
	}
	if w.end.Signature, err = sign(msg); err != nil {
		return nil, err
	}
	tail, err := json.Marshal(line{End: &w.end})
	if err != nil {
		return nil, fmt.Errorf("encode end of export: %w", err)
	}
	return append(append(out, tail...), '\n'), nil
}

// verify refuses an end that the key did not sign.
func (e End) verify(key ed25519.PublicKey) error {
	msg, err := e.signed()
	if err != nil {
		return err
	}
	if len(key) != ed25519.PublicKeySize || !ed25519.Verify(key, msg, e.Signature) {
		return corrupt("the end of this part is not signed by the audit key: the export was changed or forged")
	}
	return nil
}

func corrupt(format string, args ...any) error {
	return fleet.NewError(fleet.ErrCorrupt, "audit", format, args...)
}
