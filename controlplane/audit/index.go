package audit

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"os"
	"path/filepath"
	"time"

	"github.com/edgefleet/edgefleet/fleet"
)

// index says of a segment what it certainly does not hold: a Bloom filter over the names in its entries, and the span
// of their times. A query reads only segments that may answer it; about one in a hundred is read in vain.
type index struct {
	digest      fleet.Digest
	first, last time.Time
	bits        []byte
}

const (
	bitsPerTerm = 10
	bloomHashes = 5
)

// Kinds of terms.
const (
	termTenant = iota
	termActor
	termOperation
	termObject
	termRequest
)

// term is two independent hashes of a name.
func term(kind byte, name string) (a, b uint64) {
	sum := sha256.Sum256(append([]byte{kind}, name...))
	return binary.LittleEndian.Uint64(sum[:8]), binary.LittleEndian.Uint64(sum[8:16]) | 1
}

func terms(e fleet.AuditEntry) map[byte]string {
	return map[byte]string{termTenant: string(e.Tenant), termActor: e.Name, termOperation: e.Operation, termObject: e.Object, termRequest: e.RequestID}
}

func newIndex(s fleet.AuditSegment, entries []fleet.AuditEntry) *index {
	type key struct {
		kind byte
		name string
	}
	distinct := map[key]bool{}
	x := &index{digest: s.Digest, first: entries[0].Time, last: entries[0].Time}
	for _, e := range entries {
		if e.Time.Before(x.first) {
			x.first = e.Time
		}
		if e.Time.After(x.last) {
			x.last = e.Time
		}
		for kind, name := range terms(e) {
			if name != "" {
				distinct[key{kind, name}] = true
			}
		}
	}
	x.bits = make([]byte, (len(distinct)*bitsPerTerm+7)/8+1)
	for k := range distinct {
		x.each(k.kind, k.name, func(i uint64) bool { x.bits[i/8] |= 1 << (i % 8); return true })
	}
	return x
}

func (x *index) each(kind byte, name string, fn func(bit uint64) bool) bool {
	a, b := term(kind, name)
	n := uint64(len(x.bits)) * 8
	for i := range uint64(bloomHashes) {
		if !fn((a + i*b) % n) {
			return false
		}
	}
	return true
}

// may reports whether the segment may hold an entry with that name; the empty name is in all.
func (x *index) may(kind byte, name string) bool {
	return name == "" || x.each(kind, name, func(i uint64) bool { return x.bits[i/8]&(1<<(i%8)) != 0 })
}

// stored is an index as a file beside the segment: it saves reading all segments at start.
type stored struct {
	Digest fleet.Digest `json:"digest"`
	First  time.Time    `json:"first"`
	Last   time.Time    `json:"last"`
	Bits   []byte       `json:"bits"`
	// Sum is over the rest: a damaged index would hide entries.
	Sum []byte `json:"sum,omitempty"`
}

func (s stored) sum() ([]byte, error) {
	s.Sum = nil
	b, err := json.Marshal(s)
	sum := sha256.Sum256(b)
	return sum[:], err
}

func (l *Log) indexPath(s fleet.AuditSegment) string {
	return filepath.Join(l.o.Dir, s.Digest.Hex()+".idx")
}

func (x *index) save(path string) error {
	s := stored{Digest: x.digest, First: x.first, Last: x.last, Bits: x.bits}
	var err error
	if s.Sum, err = s.sum(); err != nil {
		return err
	}
	b, err := json.Marshal(s)
	if err != nil {
		return err
	}
	return os.WriteFile(path, b, 0o600)
}

// loadIndex reads the index beside a segment's file; nil if it is not there, damaged, or the file has another length.
func (l *Log) loadIndex(s fleet.AuditSegment) *index {
	f, err := os.Stat(l.path(s))
	if err != nil || f.Size() <= s.Bytes { // a header stands before the entries
		return nil
	}
	b, err := os.ReadFile(l.indexPath(s))
	if err != nil {
		return nil
	}
	var st stored
	if fleet.DecodeStrict(b, &st) != nil || st.Digest != s.Digest || len(st.Bits) == 0 {
		return nil
	}
	if sum, err := st.sum(); err != nil || string(sum) != string(st.Sum) {
		return nil
	}
	return &index{digest: st.Digest, first: st.First, last: st.Last, bits: st.Bits}
}
