package state

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/edgefleet/edgefleet/controlplane/command"
	"github.com/edgefleet/edgefleet/fleet"
)

// Restore replaces the whole state by a snapshot, all or nothing, and wakes everyone who watches. A damaged snapshot is
// ErrCorrupt.
func (s *Store) Restore(r io.Reader) error {
	fresh := New().now.Load()
	tx := &Tx{View: *fresh.view(true)}
	if err := read(tx, bufio.NewReaderSize(r, 1<<16)); err != nil {
		tx.Abort()
		return err
	}
	tx.Commit()
	fresh.changes.base.Store(fresh.view(false).Index())
	before := s.now.Load()
	before.telling.Lock()
	defer before.telling.Unlock()
	s.now.Store(fresh)
	close(before.replaced)
	s.followers.tell(nil, true)
	return nil
}

func read(tx *Tx, r *bufio.Reader) error {
	sum, count, d := sha256.New(), 0, newDecoder()
	var buf []byte
	for n := 1; ; n++ {
		raw, err := readLine(r, &buf)
		if errors.Is(err, io.EOF) {
			return fleet.NewError(fleet.ErrCorrupt, "snapshot", "snapshot ends after %d lines without its trailer", n-1)
		}
		if err != nil {
			return fmt.Errorf("read snapshot: %w", err)
		}
		l, err := parse(raw)
		if err != nil {
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
			if i < 0 || tablesSince[l.Table] > command.Format {
				return fleet.NewError(fleet.ErrCorrupt, "snapshot", "snapshot line %d has the unknown table %q; this member is older than the cluster: upgrade it", n, l.Table)
			}
			if err := codecs[i].decode(tx, d, l.Row); err != nil {
				return fmt.Errorf("%w: snapshot line %d: %w", fleet.ErrCorrupt, n, err)
			}
			count++
		}
		sum.Write(raw)
	}
}

// readLine returns the next line with its end; it is good until the next call. buf is for lines that are longer than
// the reader's buffer.
func readLine(r *bufio.Reader, buf *[]byte) ([]byte, error) {
	b, err := r.ReadSlice('\n')
	if !errors.Is(err, bufio.ErrBufferFull) {
		return b, err
	}
	*buf = append((*buf)[:0], b...)
	for errors.Is(err, bufio.ErrBufferFull) {
		b, err = r.ReadSlice('\n')
		*buf = append(*buf, b...)
	}
	return *buf, err
}

// parse reads a line. The line of a row as this package writes it is cut up without decoding it: what is wrong with the
// row is found when that is decoded.
func parse(raw []byte) (l line, err error) {
	if rest, ok := bytes.CutPrefix(raw, []byte(rowHead)); ok {
		if rest, ok = bytes.CutSuffix(rest, []byte(rowTail)); ok {
			if table, row, ok := bytes.Cut(rest, []byte(rowInner)); ok {
				return line{Table: Table(table), Row: row}, nil
			}
		}
	}
	return l, fleet.DecodeStrict(raw, &l)
}

// decoder is fleet.DecodeStrict for many values, one after another, with one buffer.
type decoder struct {
	json *json.Decoder
	rest []byte
	end  int64
}

func newDecoder() *decoder {
	d := &decoder{}
	d.json = json.NewDecoder(d)
	d.json.DisallowUnknownFields()
	return d
}

// Read implements io.Reader for the JSON decoder: it gives one value and then its end.
func (d *decoder) Read(p []byte) (int, error) {
	if len(d.rest) == 0 {
		return 0, io.EOF
	}
	n := copy(p, d.rest)
	d.rest = d.rest[n:]
	return n, nil
}

// decode decodes b, which is one value without space around it. After an error, d is of no use.
func (d *decoder) decode(b []byte, v any) error {
	d.rest = b
	d.end += int64(len(b))
	if err := d.json.Decode(v); err != nil {
		return fleet.Invalid("json", "decode json: %v", err)
	}
	if at := d.json.InputOffset(); at != d.end {
		return fleet.Invalid("json", "decode json: unexpected bytes after the value")
	}
	return nil
}
