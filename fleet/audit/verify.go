package audit

import (
	"bufio"
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"

	"github.com/edgefleet/edgefleet/fleet"
)

// Report says what was verified.
type Report struct {
	Cluster fleet.ClusterID `json:"cluster"`
	Tenant  fleet.TenantID  `json:"tenant,omitempty"`
	From    uint64          `json:"from"`
	To      uint64          `json:"to"`
	Entries int             `json:"entries"`
	Parts   int             `json:"parts"`
	// Hash is the chain's at entry To: two members, or two exports, that agree on it agree on everything before.
	Hash string `json:"hash"`
	// Key is the audit key that signed, in hex; Pinned: it is the one that the verifier was given.
	Key    string `json:"key"`
	Pinned bool   `json:"pinned"`
}

// Verifier checks an export line by line and keeps no more than the entries of one checkpoint.
type Verifier struct {
	pinned, key ed25519.PublicKey
	report      Report
	part        *Part
	last        *Part
	// seq and hash are where the chain is.
	seq  uint64
	hash string
	// pending are the entries since the last checkpoint.
	pending []pending
	covered uint64
	count   int
	sum     hash.Hash
}

type pending struct {
	seq   uint64
	hash  string
	proof []string
}

// NewVerifier checks against the audit key; nil takes the one that the export names, which proves no origin.
func NewVerifier(key ed25519.PublicKey) *Verifier {
	return &Verifier{pinned: key, report: Report{Pinned: key != nil}}
}

// Verify checks a whole export; the error names the line of the first bad place.
func Verify(r io.Reader, key ed25519.PublicKey) (Report, error) {
	v := NewVerifier(key)
	in := bufio.NewReaderSize(r, 1<<16)
	for n := 1; ; n++ {
		b, err := readLine(in)
		if err == io.EOF { //nolint:errorlint // readLine gives io.EOF as it is, and only when nothing is left
			return v.Finish()
		}
		if err == nil {
			err = v.Line(b)
		}
		if err != nil {
			return v.report, fmt.Errorf("line %d: %w", n, err)
		}
	}
}

// readLine reads one line with its end; io.EOF if nothing is left.
func readLine(in *bufio.Reader) ([]byte, error) {
	var out []byte
	for {
		b, err := in.ReadSlice('\n')
		out = append(out, b...)
		switch {
		case len(out) > MaxLine:
			return nil, corrupt("the line has more than %d bytes", MaxLine)
		case err == nil:
			return out, nil
		case errors.Is(err, bufio.ErrBufferFull):
		case errors.Is(err, io.EOF) && len(out) == 0:
			return nil, io.EOF
		case errors.Is(err, io.EOF):
			return nil, corrupt("the export breaks off within a line")
		default:
			return nil, fmt.Errorf("read export: %w", err)
		}
	}
}

// Line checks the next line, its line feed included.
func (v *Verifier) Line(b []byte) error {
	var l line
	if err := fleet.DecodeStrict(b, &l); err != nil {
		return corrupt("not a line of an export: %v", err)
	}
	// The same bytes as were written: what decodes alike may read otherwise to other programs.
	if again, err := json.Marshal(l); err != nil || !bytes.Equal(append(again, '\n'), b) {
		return corrupt("the line was changed after it was written")
	}
	if v.part == nil {
		if l.Export == nil || l.Entry != nil || l.Checkpoint != nil || l.End != nil || l.Proof != nil {
			return corrupt("an export, and each of its parts, begins with a line {\"export\":…}")
		}
		v.sum = sha256.New()
		v.sum.Write(b)
		return v.begin(*l.Export)
	}
	switch {
	case l.End != nil && l.Entry == nil && l.Export == nil && l.Checkpoint == nil && l.Proof == nil:
		return v.end(*l.End)
	case l.Entry != nil && l.Checkpoint == nil && l.Export == nil && l.End == nil:
		v.sum.Write(b)
		return v.entry(l.Entry, l.Proof)
	case l.Checkpoint != nil && l.Entry == nil && l.Export == nil && l.End == nil && l.Proof == nil:
		v.sum.Write(b)
		return v.checkpoint(*l.Checkpoint)
	}
	return corrupt("the line has no place within a part: entries, checkpoints and one end are expected")
}

func (v *Verifier) begin(p Part) error {
	switch {
	case p.Format != exportFormat:
		return corrupt("the export has format %d; this version reads %d", p.Format, exportFormat)
	case len(p.Key) != ed25519.PublicKeySize:
		return corrupt("the export names no audit key")
	case v.pinned != nil && !v.pinned.Equal(ed25519.PublicKey(p.Key)):
		return corrupt("the export is of another audit key (%s) than the one given (%s): it was forged, or is of another cluster", short(p.Key), short(v.pinned))
	case p.From == 0 || p.To+1 < p.From || p.Until < p.To || (p.From == 1) != (p.Prev == fleet.AuditGenesis):
		return corrupt("the part claims a wrong place in the chain")
	}
	if q := v.last; q != nil {
		switch {
		case q.To == q.Until:
			return corrupt("the export goes on after its end")
		case p.Cluster != q.Cluster || p.Tenant != q.Tenant || p.Until != q.Until || !bytes.Equal(p.Key, q.Key):
			return corrupt("the part is of another export than the one before")
		case p.From != v.seq+1 || p.Prev != v.hash:
			return corrupt("the part begins with entry %d, but the one before ended with %d: a part is missing, or parts were reordered", p.From, v.seq)
		}
	} else {
		v.key = ed25519.PublicKey(p.Key)
		v.report.Cluster, v.report.Tenant, v.report.From, v.report.Key = p.Cluster, p.Tenant, p.From, hex.EncodeToString(p.Key)
	}
	v.part, v.seq, v.hash, v.covered, v.count = &p, p.From-1, p.Prev, p.From-1, 0
	return nil
}

func short(key []byte) string { return hex.EncodeToString(key[:min(len(key), 8)]) }

func (v *Verifier) entry(raw json.RawMessage, proof []string) error {
	var e fleet.AuditEntry
	if err := fleet.DecodeStrict(raw, &e); err != nil {
		return corrupt("not an audit entry: %v", err)
	}
	if again, err := json.Marshal(e); err != nil || !bytes.Equal(again, raw) {
		return corrupt("audit entry %d was changed after it was written", e.Seq)
	}
	want, err := e.Chain(e.Prev)
	if err != nil {
		return err
	}
	own := v.part.Tenant != ""
	switch {
	case e.Seq <= v.seq || e.Seq > v.part.To || !own && e.Seq != v.seq+1:
		return corrupt("audit entry %d follows entry %d: entries were removed, added or reordered", e.Seq, v.seq)
	case e.Seq == v.seq+1 && e.Prev != v.hash:
		return corrupt("audit entry %d does not follow entry %d: entries were removed, added or reordered", e.Seq, v.seq)
	case want.Hash != e.Hash:
		return corrupt("audit entry %d was changed after it was written", e.Seq)
	case own && e.Tenant != v.part.Tenant, !own && proof != nil:
		return corrupt("audit entry %d does not belong into this export", e.Seq)
	case len(v.pending) == fleet.MaxAuditSegment:
		return corrupt("more than %d entries without a checkpoint", fleet.MaxAuditSegment)
	}
	v.pending = append(v.pending, pending{e.Seq, e.Hash, proof})
	v.seq, v.hash = e.Seq, e.Hash
	v.count++
	return nil
}

func (v *Verifier) checkpoint(c fleet.AuditCheckpoint) error {
	n := c.Seq - c.From + 1
	switch {
	case c.Cluster != v.part.Cluster:
		return corrupt("the checkpoint at entry %d is of cluster %s, the export of %s", c.Seq, c.Cluster, v.part.Cluster)
	case c.From <= v.covered || c.Seq < c.From || c.Seq > v.part.To || n > fleet.MaxAuditSegment || len(v.pending) == 0:
		return corrupt("the checkpoint at entry %d is in the wrong place", c.Seq)
	}
	if err := c.Verify(v.key); err != nil {
		return err
	}
	if err := v.covers(c, int(n)); err != nil { //nolint:gosec // at most MaxAuditSegment
		return err
	}
	v.pending, v.covered, v.seq, v.hash = v.pending[:0], c.Seq, c.Seq, c.Hash
	return nil
}

// covers holds the entries since the last checkpoint against one.
func (v *Verifier) covers(c fleet.AuditCheckpoint, n int) error {
	if v.part.Tenant == "" {
		hashes := make([]string, len(v.pending))
		for i, p := range v.pending {
			hashes[i] = p.hash
		}
		if len(hashes) != n || v.pending[0].seq != c.From || c.Seq != v.seq || c.Hash != v.hash || c.Root != Root(hashes) {
			return corrupt("the entries before the checkpoint at entry %d are not those that were signed", c.Seq)
		}
		return nil
	}
	for _, p := range v.pending {
		if p.seq < c.From || p.seq > c.Seq {
			return corrupt("audit entry %d is not covered by the checkpoint at entry %d", p.seq, c.Seq)
		}
		if err := CheckProof(p.hash, int(p.seq-c.From), n, p.proof, c.Root); err != nil { //nolint:gosec // below n
			return corrupt("audit entry %d is not the one that was signed: %v", p.seq, err)
		}
	}
	return nil
}

func (v *Verifier) end(e End) error {
	whole := v.part.Tenant == ""
	switch {
	case len(v.pending) > 0:
		return corrupt("no checkpoint covers the entries up to %d", v.seq)
	case e.Seq != v.part.To || e.Entries != v.count || whole && (e.Seq != v.seq || e.Hash != v.hash):
		return corrupt("the part has %d entries up to %d, its end says %d up to %d: entries were removed or added", v.count, v.seq, e.Entries, e.Seq)
	case e.Digest != fleet.Digest("sha256:"+hex.EncodeToString(v.sum.Sum(nil))):
		return corrupt("the part was changed after it was written: its digest is not the one of its end")
	}
	if err := e.verify(v.key); err != nil {
		return err
	}
	v.report.Entries += v.count
	v.report.Parts++
	v.report.To, v.report.Hash = e.Seq, e.Hash
	v.last, v.part, v.seq, v.hash = v.part, nil, e.Seq, e.Hash
	return nil
}

// Next is the entry with which the part after this one begins, and until which entry the export goes; next is 0 at the
// beginning and within a part. It is how an interrupted export goes on.
func (v *Verifier) Next() (next, until uint64) {
	if v.part != nil || v.last == nil {
		return 0, 0
	}
	return v.last.To + 1, v.last.Until
}

// Finish says whether the export is complete.
func (v *Verifier) Finish() (Report, error) {
	switch {
	case v.part != nil:
		return v.report, corrupt("the export breaks off after entry %d: its end is missing", v.seq)
	case v.last == nil:
		return v.report, corrupt("this is no export: it is empty")
	case v.last.To != v.last.Until:
		return v.report, corrupt("the export breaks off after entry %d of %d: parts are missing", v.last.To, v.last.Until)
	}
	return v.report, nil
}
