// Package snapshot is the file format of a backup of the control plane's state: an envelope that says what is in it, and
// the content, compressed.
//
// It owns the format, its checks and its limits; it knows nothing of the rows (package controlplane/state does) and
// stores nothing. A file can be written and read as a stream of any length. What it holds are secrets in sealed form
// only: without the key-encryption key of its cluster it restores nothing.
package snapshot

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"time"

	"github.com/edgefleet/edgefleet/fleet"
)

// Format is the version of the format: one line of JSON, the envelope, and behind it the content in gzip.
const Format = 1

const (
	// MaxBytes bounds a file, and what a member takes for a restore.
	MaxBytes = 1 << 30
	// MaxContent bounds the content: what a file may grow to when it is read.
	MaxContent = 8 << 30
	// maxEnvelope bounds the first line.
	maxEnvelope = 64 << 10
)

// MediaType is the media type of a file.
const MediaType = "application/vnd.edgefleet.snapshot"

// Envelope says what a snapshot is of.
type Envelope struct {
	Format int `json:"format"`
	// Cluster and Incarnation are the cluster's when the snapshot was taken.
	Cluster     fleet.ClusterID `json:"cluster"`
	Incarnation uint64          `json:"incarnation"`
	// Index and Term are where in the log the state stands: everything acknowledged before Time is in it.
	Index uint64    `json:"index"`
	Term  uint64    `json:"term"`
	Time  time.Time `json:"time"`
	// Member took it, with this version of the software.
	Member   fleet.MemberID `json:"member"`
	Software string         `json:"software"`
	// Bytes is the length of the content, Rows the number of rows by table.
	Bytes int64          `json:"bytes"`
	Rows  map[string]int `json:"rows"`
	// StateHash is the SHA-256 of the content: the digest of the state, as 'cluster status --hash' shows it.
	StateHash string `json:"state_hash"`
	// SHA256 is the digest of this envelope without SHA256 and Seal; through StateHash it is one of the whole file.
	SHA256 string `json:"sha256"`
	// Seal is SHA256 sealed by the key-encryption key: only a member of this cluster can have written the file.
	Seal fleet.Sealed `json:"seal"`
}

// Digest is what SHA256 has to be.
func (e Envelope) Digest() string {
	e.SHA256, e.Seal = "", fleet.Sealed{}
	b, err := json.Marshal(e)
	if err != nil {
		panic(fmt.Sprintf("snapshot: encode the envelope: %v", err)) // it has no field that cannot be encoded
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// check holds an envelope that was read against itself.
func (e Envelope) check() error {
	switch {
	case e.Format != Format:
		return fleet.NewError(fleet.ErrCorrupt, "snapshot", "the snapshot has the format %d; this version reads %d: use the version that wrote it, %.40q", e.Format, Format, e.Software)
	case e.SHA256 != e.Digest():
		return fleet.NewError(fleet.ErrCorrupt, "snapshot", "the snapshot's envelope was changed or damaged: its checksum does not match; use another snapshot")
	case e.Bytes < 0 || e.Bytes > MaxContent:
		return fleet.NewError(fleet.ErrTooLarge, "snapshot", "the snapshot says that it holds %d bytes; the limit is %d", e.Bytes, int64(MaxContent))
	}
	return errors.Join(fleet.ValidateID("cluster", e.Cluster), fleet.ValidateID("member", e.Member))
}

// Write writes a snapshot. content writes the same bytes each time: it is called once for the envelope, and once for the
// file. seal seals the digest; e says the rest.
func Write(w io.Writer, e Envelope, seal func(digest string) (fleet.Sealed, error), content func(io.Writer) error) (Envelope, error) {
	sum := newSummer(io.Discard)
	if err := content(sum); err != nil {
		return e, fmt.Errorf("write snapshot: %w", err)
	}
	e.Format, e.Bytes, e.Rows, e.StateHash = Format, sum.n, sum.rows, sum.digest()
	e.SHA256 = e.Digest()
	var err error
	if e.Seal, err = seal(e.SHA256); err != nil {
		return e, err
	}
	line, err := json.Marshal(e)
	if err != nil {
		return e, fmt.Errorf("write snapshot: %w", err)
	}
	if _, err := w.Write(append(line, '\n')); err != nil {
		return e, fmt.Errorf("write snapshot: %w", err)
	}
	packed, err := gzip.NewWriterLevel(w, gzip.BestSpeed)
	if err != nil {
		return e, fmt.Errorf("write snapshot: %w", err)
	}
	again := newSummer(packed)
	if err := errors.Join(content(again), packed.Close()); err != nil {
		return e, fmt.Errorf("write snapshot: %w", err)
	}
	if again.digest() != e.StateHash {
		return e, fleet.NewError(fleet.ErrCorrupt, "snapshot", "the content changed while it was written")
	}
	return e, nil
}

// Open reads the envelope and returns a reader of the content. The content is whole and right only if it was read to its
// end, io.EOF, without an error: anything else wraps fleet.ErrCorrupt or fleet.ErrTooLarge.
func Open(r io.Reader) (Envelope, io.Reader, error) {
	var e Envelope
	in := bufio.NewReaderSize(r, maxEnvelope)
	line, err := in.ReadSlice('\n')
	if err != nil {
		return e, nil, fleet.NewError(fleet.ErrCorrupt, "snapshot", "that is no snapshot: it does not begin with an envelope; 'fleetctl cluster snapshot save' makes one")
	}
	// Not strict: a later format says so in a field that this version knows.
	if err := json.Unmarshal(line, &e); err != nil || e.Format == 0 {
		return e, nil, fleet.NewError(fleet.ErrCorrupt, "snapshot", "that is no snapshot, or its envelope is damaged: 'fleetctl cluster snapshot save' makes one")
	}
	if err := e.check(); err != nil {
		return e, nil, err
	}
	packed, err := gzip.NewReader(in)
	if err != nil {
		return e, nil, damaged(err)
	}
	sum := newSummer(io.Discard)
	return e, &reader{envelope: e, r: packed, sum: sum}, nil
}

// Verify reads a whole snapshot and returns its envelope if every byte is as it was written.
func Verify(r io.Reader) (Envelope, error) {
	e, content, err := Open(r)
	if err != nil {
		return e, err
	}
	_, err = io.Copy(io.Discard, content)
	return e, err
}

func damaged(err error) error {
	return fleet.NewError(fleet.ErrCorrupt, "snapshot", "the snapshot is damaged or cut off (%v): use another one", err)
}

// reader holds what it reads against the envelope.
type reader struct {
	envelope Envelope
	r        io.Reader
	sum      *summer
}

// Read implements io.Reader.
func (r *reader) Read(p []byte) (int, error) {
	n, err := r.r.Read(p)
	if _, sumErr := r.sum.Write(p[:n]); sumErr != nil {
		return 0, sumErr
	}
	if r.sum.n > r.envelope.Bytes {
		return 0, fleet.NewError(fleet.ErrCorrupt, "snapshot", "the snapshot holds more than the %d bytes that its envelope says", r.envelope.Bytes)
	}
	switch {
	case errors.Is(err, io.EOF):
		if r.sum.digest() != r.envelope.StateHash {
			return 0, fleet.NewError(fleet.ErrCorrupt, "snapshot", "the content of the snapshot does not have the hash that its envelope says: use another one")
		}
		return n, io.EOF
	case err != nil:
		return 0, damaged(err)
	}
	return n, nil
}

// summer passes on what is written, and counts bytes and rows on the way.
type summer struct {
	w    io.Writer
	hash hash.Hash
	n    int64
	rows map[string]int
	// start is what is known of the line under way, as far as it may name the table.
	start []byte
}

func newSummer(w io.Writer) *summer {
	return &summer{w: w, hash: sha256.New(), rows: map[string]int{}}
}

func (s *summer) digest() string { return hex.EncodeToString(s.hash.Sum(nil)) }

// maxTable bounds the start of a row: {"table":"NAME".
const maxTable = 80

var tablePrefix = []byte(`{"table":"`)

// Write implements io.Writer.
func (s *summer) Write(p []byte) (int, error) {
	s.hash.Write(p)
	s.n += int64(len(p))
	for rest := p; len(rest) > 0; {
		line, after, ended := bytes.Cut(rest, []byte{'\n'})
		if room := maxTable - len(s.start); room > 0 {
			s.start = append(s.start, line[:min(len(line), room)]...)
		}
		if ended {
			if name, ok := bytes.CutPrefix(s.start, tablePrefix); ok {
				if name, _, ok := bytes.Cut(name, []byte{'"'}); ok {
					s.rows[string(name)]++
				}
			}
			s.start = s.start[:0]
		}
		rest = after
	}
	return s.w.Write(p)
}
