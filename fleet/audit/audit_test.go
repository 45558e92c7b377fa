package audit_test

import (
	"bytes"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/fleet/audit"
)

var noon = time.Date(2026, 11, 5, 12, 0, 0, 0, time.UTC)

func key() ed25519.PrivateKey            { return ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize)) }
func public() ed25519.PublicKey          { return key().Public().(ed25519.PublicKey) } //nolint:forcetypeassert // it is
func sign(b []byte) ([]byte, error)      { return ed25519.Sign(key(), b), nil }
func otherSign(b []byte) ([]byte, error) { return ed25519.Sign(other(), b), nil }
func other() ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{9}, ed25519.SeedSize))
}

// chain is n entries, every third of them beta's, the others acme's.
func chain(t testing.TB, n int) []fleet.AuditEntry {
	t.Helper()
	prev := fleet.AuditGenesis
	var out []fleet.AuditEntry
	for i := range n {
		e, err := fleet.AuditEntry{
			Seq: uint64(i + 1), Time: noon, Actor: fleet.Actor{Name: "token/t", Party: fleet.Vendor, Source: "192.0.2.1"}, RequestID: fmt.Sprint("r", i),
			Operation: "host_put", Object: "host/a", Tenant: []fleet.TenantID{"acme", "acme", "beta"}[i%3], After: json.RawMessage(`{"a":"\u003cb\u003e"}`),
		}.Chain(prev)
		if err != nil {
			t.Fatal(err)
		}
		out, prev = append(out, e), e.Hash
	}
	return out
}

// export writes entries in blocks of size, in parts of two blocks, as the control plane does.
func export(t testing.TB, entries []fleet.AuditEntry, tenant fleet.TenantID, from, size int, signer fleet.AuditSigner, pub ed25519.PublicKey) [][]byte {
	t.Helper()
	var parts [][]byte
	prev := fleet.AuditGenesis
	if from > 1 {
		prev = entries[from-2].Hash
	}
	left := entries[from-1:]
	for {
		w := audit.NewWriter(audit.Part{Cluster: "c1", Tenant: tenant, From: uint64(len(entries) - len(left) + 1), Until: uint64(len(entries)), Prev: prev, Key: pub, Time: noon})
		for range 2 {
			b := left[:min(size, len(left))]
			if len(b) == 0 {
				break
			}
			left = left[len(b):]
			s, _, err := audit.Seal("c1", b)
			must(t, err)
			c, err := s.Checkpoint.Sign(signer)
			must(t, err)
			must(t, w.Block(b, c))
			prev = s.Hash
		}
		part, err := w.Close(signer)
		must(t, err)
		if parts = append(parts, part); len(left) == 0 {
			return parts
		}
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func whole(parts [][]byte) []byte { return slices.Concat(parts...) }

func TestAnExportIsVerifiedWithNothingButItself(t *testing.T) {
	es := chain(t, 23)
	for name, tc := range map[string]struct {
		file    []byte
		entries int
		from    uint64
	}{
		"whole":                     {whole(export(t, es, "", 1, 4, sign, public())), 23, 1},
		"from the middle":           {whole(export(t, es, "", 6, 4, sign, public())), 18, 6},
		"a tenant's":                {whole(export(t, es, "beta", 1, 4, sign, public())), 7, 1},
		"a tenant's without any":    {whole(export(t, es, "nobody", 1, 4, sign, public())), 0, 1},
		"empty":                     {whole(export(t, nil, "", 1, 4, sign, public())), 0, 1},
		"an entry in each block":    {whole(export(t, es, "", 1, 1, sign, public())), 23, 1},
		"a tenant's in large block": {whole(export(t, es, "acme", 1, 1000, sign, public())), 16, 1},
	} {
		t.Run(name, func(t *testing.T) {
			r, err := audit.Verify(bytes.NewReader(tc.file), public())
			must(t, err)
			if r.Entries != tc.entries || r.From != tc.from || !r.Pinned || r.Cluster != "c1" {
				t.Errorf("%+v", r)
			}
			if _, err := audit.Verify(bytes.NewReader(tc.file), other().Public().(ed25519.PublicKey)); !errors.Is(err, fleet.ErrCorrupt) { //nolint:forcetypeassert // it is
				t.Errorf("another key verifies it: %v", err)
			}
			if r, err := audit.Verify(bytes.NewReader(tc.file), nil); err != nil || r.Pinned {
				t.Errorf("without a key: %+v %v", r, err)
			}
		})
	}
}

// TestNoByteOfAnExportCanBeChanged flips bits in each byte, and drops, doubles and inserts each.
func TestNoByteOfAnExportCanBeChanged(t *testing.T) {
	es := chain(t, 3)
	for _, tenant := range []fleet.TenantID{"", "beta"} {
		file := whole(export(t, es, tenant, 1, 1, sign, public()))
		for i := range file {
			for what, bad := range map[string][]byte{
				"bit 0":    slices.Concat(file[:i], []byte{file[i] ^ 1}, file[i+1:]),
				"bit 5":    slices.Concat(file[:i], []byte{file[i] ^ 32}, file[i+1:]), // upper and lower case
				"dropped":  slices.Concat(file[:i], file[i+1:]),
				"inserted": slices.Concat(file[:i], []byte(" "), file[i:]),
				"cut off":  file[:i],
			} {
				if _, err := audit.Verify(bytes.NewReader(bad), public()); !errors.Is(err, fleet.ErrCorrupt) {
					t.Fatalf("tenant %q, byte %d of %d %s: %v\n%s", tenant, i, len(file), what, err, bad[max(0, i-40):min(len(bad), i+40)])
				}
			}
		}
	}
}

// TestNoLineOfAnExportCanBeMoved removes, doubles and swaps each line.
func TestNoLineOfAnExportCanBeMoved(t *testing.T) {
	for _, tenant := range []fleet.TenantID{"", "acme"} {
		lines := slices.Collect(bytes.Lines(whole(export(t, chain(t, 20), tenant, 1, 3, sign, public()))))
		for i := range lines {
			cases := map[string][][]byte{
				"removed": slices.Concat(lines[:i], lines[i+1:]),
				"doubled": slices.Concat(lines[:i+1], lines[i:]),
			}
			if i > 0 {
				cases["swapped"] = slices.Concat(lines[:i-1], [][]byte{lines[i], lines[i-1]}, lines[i+1:])
			}
			for what, bad := range cases {
				if _, err := audit.Verify(bytes.NewReader(slices.Concat(bad...)), public()); !errors.Is(err, fleet.ErrCorrupt) {
					t.Errorf("tenant %q: line %d %s: %v", tenant, i+1, what, err)
				}
			}
		}
	}
}

func TestWhatIsWrongIsNamed(t *testing.T) {
	es := chain(t, 9)
	parts := export(t, es, "", 1, 2, sign, public())
	good := string(whole(parts))
	forged := slices.Clone(es)
	forged[4].Object = "host/evil"
	for i := 4; i < len(forged); i++ { // with all hashes made anew
		var err error
		forged[i], err = forged[i].Chain(forged[i-1].Hash)
		must(t, err)
	}
	for name, tc := range map[string]struct{ file, says string }{
		"an edited entry":               {strings.Replace(good, `"seq":5,"time":"2026`, `"seq":5,"time":"2025`, 1), "line 10: audit entry 5 was changed after it was written"},
		"a chain forged with a new key": {string(whole(export(t, forged, "", 1, 2, otherSign, other().Public().(ed25519.PublicKey)))), "line 1: the export is of another audit key"}, //nolint:forcetypeassert // it is
		"a chain forged without a key":  {string(whole(export(t, forged, "", 1, 2, otherSign, public()))), "line 4: the audit checkpoint at entry 2 is not signed by this cluster's audit key"},
		"a missing part":                {string(whole([][]byte{parts[0], parts[2]})), "a part is missing"},
		"the last part missing":         {string(whole(parts[:2])), "breaks off after entry 8 of 9"},
		"two exports":                   {good + good, "goes on after its end"},
		"no export":                     {"{}\n", "begins with a line"},
		"text":                          {"hello\n", "not a line of an export"},
		"nothing":                       {"", "it is empty"},
		"a very long line":              {strings.Repeat("x", audit.MaxLine+9), "more than"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := audit.Verify(strings.NewReader(tc.file), public())
			if !errors.Is(err, fleet.ErrCorrupt) || !strings.Contains(err.Error(), tc.says) {
				t.Errorf("%v, want %q", err, tc.says)
			}
		})
	}
}

func TestProofs(t *testing.T) {
	for n := 1; n <= 33; n++ {
		hashes := audit.Hashes(chain(t, n))
		root := audit.Root(hashes)
		for i := range hashes {
			proof := audit.Prove(hashes, i)
			must(t, audit.CheckProof(hashes[i], i, n, proof, root))
			for _, bad := range []error{
				audit.CheckProof(hashes[(i+1)%n], i, n, proof, root), audit.CheckProof(hashes[i], (i+1)%n, n, proof, root),
				audit.CheckProof(hashes[i], i, n, append(slices.Clone(proof), root), root), audit.CheckProof(hashes[i], n, n, proof, root),
			} {
				if bad == nil && n > 1 {
					t.Fatalf("a wrong proof of %d of %d is good", i, n)
				}
			}
		}
	}
}

func TestASegmentIsExactlyWhatWasSealed(t *testing.T) {
	es := chain(t, 5)
	s, file, err := audit.Seal("c1", es)
	must(t, err)
	got, err := audit.OpenSegment(s, file)
	must(t, err)
	if diff := cmp.Diff(es, got); diff != "" {
		t.Error(diff)
	}
	for i := range file {
		bad := slices.Clone(file)
		bad[i] ^= 1
		if audit.CheckSegment(s, bad) == nil || audit.CheckSegment(s, file[:i]) == nil {
			t.Fatalf("byte %d", i)
		}
	}
}

func FuzzVerify(f *testing.F) {
	es := chain(f, 9)
	for _, tenant := range []fleet.TenantID{"", "beta"} {
		f.Add(whole(export(f, es, tenant, 1, 3, sign, public())))
	}
	good := map[string]bool{string(whole(export(f, es, "", 1, 3, sign, public()))): true, string(whole(export(f, es, "beta", 1, 3, sign, public()))): true}
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := audit.Verify(bytes.NewReader(b), public()); err == nil && !good[string(b)] {
			t.Errorf("accepted: %s", b)
		}
	})
}

func FuzzSegment(f *testing.F) {
	s, file, err := audit.Seal("c1", chain(f, 3))
	must(f, err)
	f.Add(file)
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := audit.OpenSegment(s, b); (err == nil) != bytes.Equal(b, file) {
			t.Errorf("%v for %q", err, b)
		}
		// A row that was made for the bytes, as an attacker with the state could, never crashes the reader.
		if _, body, ok := bytes.Cut(b, []byte("\n")); ok {
			forged := s
			forged.Digest = fleet.DigestOf(body)
			_, _ = audit.OpenSegment(forged, slices.Concat(bytes.Replace(file[:bytes.IndexByte(file, '\n')+1], []byte(s.Digest), []byte(forged.Digest), 1), body))
		}
	})
}
