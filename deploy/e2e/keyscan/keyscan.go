// Package keyscan looks for secrets where none may be: in files, logs, captured messages and answers.
//
// It owns two searches. One is for secrets that the caller knows (private keys, symmetric keys, tokens), each in every form
// in which it could be written: as it is, hex, base64 (both alphabets, all three alignments, so within larger values too),
// the decimal bytes that formatting prints, quoted text, and all of those of its DER, PEM and JWK encodings. The other is for
// anything that parses as a private key, known or not. Both look through line breaks, spaces, escaped line breaks
// and base64 and
// gzip, which is the only compression that Edgefleet's files and streams have. It does not know which secrets there are,
// nor where one is allowed but for the table that it is given. It is for tests; it reads whole files.
package keyscan

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
)

// Secret is a value that may be found nowhere but where a table allows its class.
type Secret struct {
	// Class is the kind of secret, Name tells those of one class apart; both are shown in findings.
	Class, Name string
	// Value is at least MinValue bytes.
	Value []byte
}

// Finding says that a secret was found. It never holds the secret.
type Finding struct {
	// Where is what the caller named it: the path of a file, relative to the directory that was scanned.
	Where string
	// Class and Name are those of the secret; a private key that nobody named is of the class Unnamed.
	Class, Name string
	// Form is how it was written.
	Form string
}

func (f Finding) String() string {
	return fmt.Sprintf("%s: %s %s (%s)", f.Where, f.Class, f.Name, f.Form)
}

const (
	// Unnamed is the class of private keys that no secret names.
	Unnamed = "unnamed private key"
	// MinValue is the least size of a secret: shorter ones are found by chance.
	MinValue = 16
	// maxFile bounds a file that is scanned; a larger one is an error, not skipped.
	maxFile = 1 << 30
	// maxUnpacked bounds what a gzip stream may become, maxDepth how deep they are nested.
	maxUnpacked, maxDepth = 256 << 20, 3
	// maxZeros is more zeros than a secret ends with.
	maxZeros = 64
)

// needle is one form of one secret.
type needle struct {
	bytes       []byte
	class, name string
	form        string
}

const (
	prefix   = 8
	hashBits = 20
)

// Scanner looks for the secrets that it was made with. It is safe for concurrent use.
type Scanner struct {
	needles []needle
	// maybe tells, by a hash of eight bytes, that a needle may begin so; starts has the needles by these bytes.
	maybe  []bool
	starts map[uint64][]int
	// known are the numbers of the private keys among the secrets.
	known map[string]bool
}

// New makes a scanner. A secret that is too short to look for is an error.
func New(secrets []Secret) (*Scanner, error) {
	s := &Scanner{maybe: make([]bool, 1<<hashBits), starts: map[uint64][]int{}, known: map[string]bool{}}
	seen := map[string]bool{}
	for _, secret := range secrets {
		if len(secret.Value) < MinValue || secret.Class == "" {
			return nil, fmt.Errorf("the secret %s %s has %d bytes, fewer than %d, or no class", secret.Class, secret.Name, len(secret.Value), MinValue)
		}
		for _, e := range encodings(secret.Value) {
			for _, form := range forms(e.bytes) {
				if seen[string(form.bytes)] {
					continue
				}
				seen[string(form.bytes)] = true
				name := form.name
				if e.name != "" {
					name = e.name + ", " + form.name
				}
				s.add(needle{form.bytes, secret.Class, secret.Name, name})
			}
		}
		if key := parse(secret.Value); key != nil {
			s.known[number(key)] = true
		}
	}
	return s, nil
}

func (s *Scanner) add(n needle) {
	start := binary.LittleEndian.Uint64(n.bytes)
	s.needles = append(s.needles, n)
	s.starts[start] = append(s.starts[start], len(s.needles)-1)
	s.maybe[hash(start)] = true
}

func hash(start uint64) uint64 { return start * 0x9e3779b97f4a7c15 >> (64 - hashBits) }

// Dir scans every regular file below root, and returns how many bytes it read. Files that disappear meanwhile are left out.
func (s *Scanner) Dir(root string) (found []Finding, read int64, err error) {
	err = filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		b, err := readFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		name, err := filepath.Rel(root, path)
		read += int64(len(b))
		// Logs are allocated ahead: what follows is zeros. No secret ends with that many.
		b = b[:min(len(b), len(bytes.TrimRight(b, "\x00"))+maxZeros)]
		found = append(found, s.Bytes(filepath.ToSlash(name), b)...)
		return err
	})
	if err != nil {
		return found, read, fmt.Errorf("scan %s: %w", root, err)
	}
	return found, read, nil
}

func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(b) > maxFile {
		err = fmt.Errorf("%s has more than %d bytes, which is more than one scan reads", path, maxFile)
	}
	return b, err
}

// Bytes scans b; where is what findings name it.
func (s *Scanner) Bytes(where string, b []byte) []Finding {
	set := map[Finding]bool{}
	s.scan(where, b, 0, set)
	out := make([]Finding, 0, len(set))
	for f := range set {
		out = append(out, f)
	}
	slices.SortFunc(out, func(a, b Finding) int { return cmp.Compare(a.String(), b.String()) })
	return out
}

func (s *Scanner) scan(where string, b []byte, depth int, found map[Finding]bool) {
	s.search(where, "", b, found)
	s.structures(where, b, found)
	if joined := join(b); len(joined) < len(b) {
		s.search(where, "over line breaks", joined, found)
		s.texts(where, joined, found)
	}
	if depth < maxDepth {
		s.within(where, b, depth, found)
	}
}

// within scans what is packed in b, or encoded.
func (s *Scanner) within(where string, b []byte, depth int, found map[Finding]bool) {
	deeper := func(how string, b []byte) {
		inner := map[Finding]bool{}
		s.scan(where, b, depth+1, inner)
		for f := range inner {
			f.Form += how
			found[f] = true
		}
	}
	joined := join(b)
	for _, text := range [][]byte{b, joined} {
		for decoded := range decodings(text) {
			deeper(", in base64", decoded)
		}
		if len(joined) == len(b) {
			break
		}
	}
	for at := 0; ; at++ {
		i := bytes.Index(b[at:], []byte{0x1f, 0x8b, 8})
		if i < 0 {
			return
		}
		at += i
		packed, err := gzip.NewReader(bytes.NewReader(b[at:]))
		if err != nil {
			continue // these three bytes by chance
		}
		unpacked, _ := io.ReadAll(io.LimitReader(packed, maxUnpacked)) // what is there of a stream that is cut off counts
		if len(unpacked) > 0 {
			deeper(", in gzip", unpacked)
		}
	}
}

// search looks for every needle at every byte.
func (s *Scanner) search(where, how string, b []byte, found map[Finding]bool) {
	for i := 0; i+prefix <= len(b); i++ {
		start := binary.LittleEndian.Uint64(b[i:])
		if !s.maybe[hash(start)] {
			continue
		}
		for _, n := range s.starts[start] {
			if n := s.needles[n]; bytes.HasPrefix(b[i:], n.bytes) {
				f := Finding{where, n.class, n.name, n.form}
				if how != "" {
					if found[f] {
						continue
					}
					f.Form += ", " + how
				}
				found[f] = true
			}
		}
	}
}

// join is b without spaces, line breaks and escaped line breaks: a secret that was broken into lines is whole in it.
func join(b []byte) []byte {
	out := make([]byte, 0, len(b))
	for i := 0; i < len(b); i++ {
		switch c := b[i]; {
		case c == '\n', c == '\r', c == ' ', c == '\t':
		case c == '\\' && i+1 < len(b) && (b[i+1] == 'n' || b[i+1] == 'r' || b[i+1] == 't'):
			i++
		default:
			out = append(out, c)
		}
	}
	return out
}
