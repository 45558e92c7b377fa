package state

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"hash"
	"io"

	"github.com/edgefleet/edgefleet/fleet"
)

// snapshotFormat is the version of the snapshot format: JSON lines; a header, one line an object in table and id
// order, and a trailer with the count and the SHA-256 of everything before it.
const snapshotFormat = 1

type line struct {
	Format int             `json:"format,omitempty"`
	Table  Table           `json:"table,omitempty"`
	Row    json.RawMessage `json:"row,omitempty"`
	Rows   int             `json:"rows,omitempty"`
	SHA256 string          `json:"sha256,omitempty"`
}

// codec decodes the rows of one table.
type codec struct {
	table  Table
	decode func(t *Tx, d *decoder, row []byte) error
}

func rowsOf[T any](table Table) codec {
	return codec{table, func(t *Tx, d *decoder, row []byte) error {
		var v T
		if err := d.decode(row, &v); err != nil {
			return err
		}
		// Not put: a damaged row without its id is an error of the snapshot, no reason to crash.
		return t.txn.Insert(string(table), &v)
	}}
}

// codecs lists every table in the order of the snapshot.
var codecs = []codec{
	rowsOf[applied](Applied), rowsOf[fleet.ClusterRecord](Clusters), rowsOf[fleet.Member](Members), rowsOf[fleet.Group](Groups),
	rowsOf[fleet.Tenant](Tenants), rowsOf[fleet.TokenRecord](Tokens), rowsOf[fleet.Host](Hosts), rowsOf[fleet.Label](Labels),
	rowsOf[fleet.Rule](Rules), rowsOf[fleet.JoinTokenRecord](JoinTokens), rowsOf[fleet.Node](Nodes), rowsOf[fleet.GroupHead](Heads),
	rowsOf[fleet.Challenge](Challenges), rowsOf[fleet.OrderRecord](Orders), rowsOf[fleet.CertificateRecord](Certificates),
	rowsOf[fleet.Entry](Entries), rowsOf[fleet.AuditEntry](Audit), rowsOf[fleet.Once](Keys),
	rowsOf[fleet.HostOrigins](Origins),
	rowsOf[fleet.AuditSegment](AuditSegments), rowsOf[fleet.AuditCheckpoint](AuditCheckpoints),
	rowsOf[fleet.User](Users), rowsOf[fleet.CustomRole](Roles), rowsOf[fleet.AccessPolicy](Access), rowsOf[fleet.Approval](Approvals),
	rowsOf[fleet.IncarnationRecord](Incarnations), rowsOf[StagedPart](Staged), rowsOf[fleet.Drill](Drills),
	rowsOf[fleet.RemovedMember](RemovedMembers), rowsOf[fleet.GroupEpoch](Epochs), rowsOf[fleet.StorageLock](StorageLocks),
	rowsOf[fleet.Region](Regions), rowsOf[fleet.DNSSet](DNSSets),
	rowsOf[fleet.Authority](Authorities), rowsOf[fleet.RevocationRecord](Revocations),
	rowsOf[fleet.OriginCertRecord](OriginCerts),
}

// tablesSince says from which format on there is a table; those that are not here, from the first. Rows of a newer one
// come from newer commands only, so that every member reads the snapshots of every other.
var tablesSince = map[Table]int{Keys: 2, Origins: 2, Epochs: 2, StorageLocks: 2, Regions: 2, DNSSets: 2, Authorities: 2, OriginCerts: 2, Revocations: 2}

// WriteTo writes a snapshot of the view.
func (v *View) WriteTo(w io.Writer) (int64, error) {
	out := &digester{w: bufio.NewWriterSize(w, 1<<16), sum: sha256.New()}
	out.rows = json.NewEncoder(&out.buf)
	if err := out.line(line{Format: snapshotFormat}); err != nil {
		return out.n, err
	}
	count := 0
	for _, c := range codecs {
		it, err := v.txn.Get(string(c.table), indexID)
		if err != nil {
			return out.n, fmt.Errorf("write snapshot: table %s: %w", c.table, err)
		}
		for raw := it.Next(); raw != nil; raw = it.Next() {
			if err := out.row(c.table, raw); err != nil {
				return out.n, err
			}
			count++
		}
	}
	if err := out.line(line{Rows: count, SHA256: hex.EncodeToString(out.sum.Sum(nil))}); err != nil {
		return out.n, err
	}
	return out.n, out.w.Flush()
}

// Hash is the SHA-256 of the view's snapshot: equal at equal index on all members.
func (v *View) Hash() (string, error) {
	sum := sha256.New()
	_, err := v.WriteTo(sum)
	return hex.EncodeToString(sum.Sum(nil)), err
}

type digester struct {
	w   *bufio.Writer
	sum hash.Hash
	n   int64
	// buf takes one row at a time, encoded by rows.
	buf  bytes.Buffer
	rows *json.Encoder
}

func (d *digester) line(l line) error {
	b, err := json.Marshal(l)
	if err != nil {
		return fmt.Errorf("write snapshot: %w", err)
	}
	return d.write(append(b, '\n'))
}

// The parts of a row's line, as line is encoded.
const (
	rowHead  = `{"table":"`
	rowInner = `","row":`
	rowTail  = "}\n"
)

// row writes the line of one row. It makes the bytes that line would, without encoding the row a second time.
func (d *digester) row(t Table, row any) error {
	d.buf.Reset()
	d.buf.WriteString(rowHead)
	d.buf.WriteString(string(t))
	d.buf.WriteString(rowInner)
	if err := d.rows.Encode(row); err != nil {
		return fmt.Errorf("write snapshot: table %s: %w", t, err)
	}
	d.buf.Truncate(d.buf.Len() - 1) // the encoder's newline
	d.buf.WriteString(rowTail)
	return d.write(d.buf.Bytes())
}

func (d *digester) write(b []byte) error {
	d.sum.Write(b)
	n, err := d.w.Write(b)
	d.n += int64(n)
	if err != nil {
		return fmt.Errorf("write snapshot: %w", err)
	}
	return nil
}
