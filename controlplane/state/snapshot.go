package state

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"slices"

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
	decode func(t *Tx, row []byte) error
}

func rowsOf[T any](table Table) codec {
	return codec{table, func(t *Tx, row []byte) error {
		var v T
		if err := fleet.DecodeStrict(row, &v); err != nil {
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
	rowsOf[fleet.Entry](Entries), rowsOf[fleet.AuditEntry](Audit),
	rowsOf[fleet.HostOrigins](Origins),
	rowsOf[fleet.AuditSegment](AuditSegments), rowsOf[fleet.AuditCheckpoint](AuditCheckpoints),
}

// WriteTo writes a snapshot of the view.
func (v *View) WriteTo(w io.Writer) (int64, error) {
	out := &digester{w: bufio.NewWriterSize(w, 1<<16), sum: sha256.New()}
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
			b, err := json.Marshal(raw)
			if err != nil {
				return out.n, fmt.Errorf("write snapshot: table %s: %w", c.table, err)
			}
			if err := out.line(line{Table: c.table, Row: b}); err != nil {
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
}

func (d *digester) line(l line) error {
	b, err := json.Marshal(l)
	if err != nil {
		return fmt.Errorf("write snapshot: %w", err)
	}
	b = append(b, '\n')
	d.sum.Write(b)
	n, err := d.w.Write(b)
	d.n += int64(n)
	if err != nil {
		return fmt.Errorf("write snapshot: %w", err)
	}
	return nil
}

// Restore replaces the whole state by a snapshot, all or nothing. A damaged snapshot is ErrCorrupt.
func (s *Store) Restore(r io.Reader) error {
	fresh := New()
	tx := fresh.Write()
	if err := read(tx, bufio.NewReaderSize(r, 1<<16)); err != nil {
		tx.Abort()
		return err
	}
	tx.Commit()
	return s.replace(fresh)
}

func read(tx *Tx, r *bufio.Reader) error {
	sum, count := sha256.New(), 0
	for n := 1; ; n++ {
		raw, err := r.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			return fleet.NewError(fleet.ErrCorrupt, "snapshot", "snapshot ends after %d lines without its trailer", n-1)
		}
		if err != nil {
			return fmt.Errorf("read snapshot: %w", err)
		}
		var l line
		if err := fleet.DecodeStrict(raw, &l); err != nil {
			return fmt.Errorf("%w: snapshot line %d: %w", fleet.ErrCorrupt, n, err)
		}
		switch {
		case n == 1 && l.Format != snapshotFormat:
			return fleet.NewError(fleet.ErrCorrupt, "snapshot", "snapshot has format %d; this version reads %d", l.Format, snapshotFormat)
		case l.SHA256 != "":
			if got := hex.EncodeToString(sum.Sum(nil)); got != l.SHA256 || count != l.Rows {
				return fleet.NewError(fleet.ErrCorrupt, "snapshot", "snapshot has %d rows with checksum %s; its trailer says %d and %s", count, got, l.Rows, l.SHA256)
			}
			if _, err := r.ReadByte(); !errors.Is(err, io.EOF) {
				return fleet.NewError(fleet.ErrCorrupt, "snapshot", "snapshot goes on after its trailer in line %d", n)
			}
			return nil
		case l.Table != "":
			i := slices.IndexFunc(codecs, func(c codec) bool { return c.table == l.Table })
			if i < 0 {
				return fleet.NewError(fleet.ErrCorrupt, "snapshot", "snapshot line %d has the unknown table %q; this member is older than the cluster: upgrade it", n, l.Table)
			}
			if err := codecs[i].decode(tx, l.Row); err != nil {
				return fmt.Errorf("%w: snapshot line %d: %w", fleet.ErrCorrupt, n, err)
			}
			count++
		}
		sum.Write(raw)
	}
}

// replace copies fresh over s in one transaction, so that watchers of s wake up.
func (s *Store) replace(fresh *Store) error {
	tx, from := s.Write(), fresh.Read()
	defer tx.Abort()
	for _, c := range codecs {
		if _, err := tx.txn.DeleteAll(string(c.table), indexID); err != nil {
			return fmt.Errorf("restore table %s: %w", c.table, err)
		}
		it, err := from.txn.Get(string(c.table), indexID)
		if err != nil {
			return fmt.Errorf("restore table %s: %w", c.table, err)
		}
		for raw := it.Next(); raw != nil; raw = it.Next() {
			if err := tx.txn.Insert(string(c.table), raw); err != nil {
				return fmt.Errorf("restore table %s: %w", c.table, err)
			}
		}
	}
	tx.Commit()
	return nil
}
