package snapshot_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/fleet/snapshot"
)

const content = `{"format":1}
{"table":"nodes","row":{"id":"n1"}}
{"table":"nodes","row":{"id":"n2"}}
{"table":"tenants","row":{"id":"acme"}}
{"rows":3,"sha256":"x"}
`

func seal(digest string) (fleet.Sealed, error) {
	return fleet.Sealed{Key: "kek", Ciphertext: []byte(digest)}, nil
}

func written(t *testing.T) ([]byte, snapshot.Envelope) {
	t.Helper()
	var b bytes.Buffer
	e, err := snapshot.Write(&b, snapshot.Envelope{
		Cluster: "c1", Incarnation: 3, Index: 77, Term: 4, Time: time.Date(2026, 11, 5, 12, 0, 0, 0, time.UTC), Member: "m1", Software: "test",
	}, seal, func(w io.Writer) error {
		for line := range strings.Lines(content) { // in pieces, as a state writes them
			for part := range strings.SplitSeq(line, ":") {
				sep := ":"
				if strings.HasSuffix(part, "\n") {
					sep = ""
				}
				if _, err := io.WriteString(w, part+sep); err != nil {
					return err
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.Bytes(), e
}

func TestWhatWasWrittenIsRead(t *testing.T) {
	file, wrote := written(t)
	e, r, err := snapshot.Open(bytes.NewReader(file))
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(r)
	if err != nil || string(got) != content {
		t.Errorf("%q, %v", got, err)
	}
	if diff := cmp.Diff(wrote, e); diff != "" {
		t.Error(diff)
	}
	sum := sha256.Sum256([]byte(content))
	if e.StateHash != hex.EncodeToString(sum[:]) || e.Bytes != int64(len(content)) {
		t.Errorf("%+v", e)
	}
	if diff := cmp.Diff(map[string]int{"nodes": 2, "tenants": 1}, e.Rows); diff != "" {
		t.Error(diff)
	}
	if string(e.Seal.Ciphertext) != e.SHA256 || e.SHA256 != e.Digest() {
		t.Error("the digest is not what was sealed")
	}
}

func TestEveryChangeOfTheContentIsFound(t *testing.T) {
	file, wrote := written(t)
	for i := range file {
		changed := bytes.Clone(file)
		changed[i] ^= 0x20
		e, r, err := snapshot.Open(bytes.NewReader(changed))
		var got []byte
		if err == nil {
			got, err = io.ReadAll(r)
		}
		if err == nil {
			// The seal is for a member to open, and bits of gzip that pad or comment say nothing of the content.
			e.Seal = wrote.Seal
			if !cmp.Equal(e, wrote) || string(got) != content {
				t.Errorf("byte %d of %d was changed unseen", i, len(file))
			}
			continue
		}
		if !errors.Is(err, fleet.ErrCorrupt) && !errors.Is(err, fleet.ErrInvalid) && !errors.Is(err, fleet.ErrTooLarge) {
			t.Errorf("byte %d: %v", i, err)
		}
	}
	for i := range file {
		if _, err := snapshot.Verify(bytes.NewReader(file[:i])); !errors.Is(err, fleet.ErrCorrupt) {
			t.Fatalf("cut off after %d of %d bytes: %v", i, len(file), err)
		}
	}
}

func TestAContentThatIsLongerThanAnnouncedIsRefused(t *testing.T) {
	var b bytes.Buffer
	calls := 0
	_, err := snapshot.Write(&b, snapshot.Envelope{Cluster: "c1", Member: "m1"}, seal, func(w io.Writer) error {
		calls++
		_, err := io.WriteString(w, strings.Repeat(content, calls))
		return err
	})
	if !errors.Is(err, fleet.ErrCorrupt) {
		t.Fatalf("writing content that changes: %v", err)
	}
	if _, err := snapshot.Verify(&b); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("more than the %d bytes", len(content))) {
		t.Errorf("reading it: %v", err)
	}
}

func TestWhatIsNoSnapshotIsSaid(t *testing.T) {
	for _, in := range []string{"", "hello\n", "{}\n", `{"format":9}` + "\n", strings.Repeat("x", 1<<20)} {
		_, err := snapshot.Verify(strings.NewReader(in))
		if !errors.Is(err, fleet.ErrCorrupt) {
			t.Errorf("%.20q: %v", in, err)
		}
	}
}

func FuzzOpen(f *testing.F) {
	var b bytes.Buffer
	if _, err := snapshot.Write(&b, snapshot.Envelope{Cluster: "c1", Member: "m1"}, seal, func(w io.Writer) error {
		_, err := io.WriteString(w, content)
		return err
	}); err != nil {
		f.Fatal(err)
	}
	f.Add(b.Bytes())
	f.Add([]byte("{\"format\":1}\n"))
	f.Fuzz(func(t *testing.T, in []byte) {
		e, err := snapshot.Verify(bytes.NewReader(in))
		if err == nil && e.SHA256 != e.Digest() {
			t.Error("an envelope with a wrong checksum")
		}
	})
}
