package command_test

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/edgefleet/edgefleet/controlplane/command"
	"github.com/edgefleet/edgefleet/fleet"
)

var update = flag.Bool("update", false, "write the golden files anew; never after a release")

var equal = []cmp.Option{cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{}), cmpopts.EquateEmpty(), cmp.Comparer(func(a, b time.Time) bool { return a.Equal(b) })}

func header() command.Header {
	return command.Header{
		Time:      time.Date(2026, 11, 5, 1, 2, 3, 456, time.UTC),
		Actor:     fleet.Actor{Name: "tok-1", Party: fleet.Client, Source: "192.0.2.7"},
		RequestID: "req-1",
		Reason:    "because \"<it>\" is needed",
	}
}

// entry is a log entry with the given JSON.
func entry(t command.Type, payload string) []byte {
	return append(binary.AppendUvarint([]byte{1}, uint64(t)), payload...)
}

// empty is an empty body of the type.
func empty(t *testing.T, typ command.Type) command.Body {
	t.Helper()
	_, b, err := command.Decode(entry(typ, `{"header":{"time":"2026-01-01T00:00:00Z","name":"","party":""},"body":{}}`))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// versions counts the golden files of commands that got optional fields since; the older files stay, and are read and
// written as ever.
var versions = map[command.Type]int{
	command.TypeClusterInit: 5, command.TypeTokenPut: 2, command.TypeMemberPut: 4, command.TypeMemberJoin: 4, command.TypeIncarnationStart: 4,
	command.TypeTokenIssue: 2,
	command.TypeHostPut:    5, command.TypeHostPutConsul: 5, command.TypeOriginsResolve: 2,
	command.TypeOrderPut: 3, command.TypeCertificateCommit: 4, command.TypeOrderProgress: 2,
	command.TypeNodePut: 2, command.TypeNodeEnrol: 2,
	command.TypeChallengePut:  2,
	command.TypeSecretsReseal: 2,
	command.TypeRulePut:       2,
}

func golden(typ command.Type) string {
	return filepath.Join("testdata", fmt.Sprintf("%02d_%s.v%d.bin", typ, typ, max(1, versions[typ])))
}

// TestEncodingIsForEver compares the encoding of every command, each field of it filled, with what stands in logs.
func TestEncodingIsForEver(t *testing.T) {
	for _, typ := range command.Types() {
		t.Run(typ.String(), func(t *testing.T) {
			body := empty(t, typ)
			fill(t, body)
			got, err := command.Encode(header(), body)
			if err != nil {
				t.Fatal(err)
			}
			if *update {
				if err := os.WriteFile(golden(typ), got, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden(typ))
			if err != nil {
				t.Fatal(err, "(a new command: run the test with -update)")
			}
			if !bytes.Equal(want, got) {
				t.Errorf("the encoding changed: members would read logs and each other differently. Append a command instead.\n%s", cmp.Diff(string(want), string(got)))
			}
			h, back, err := command.Decode(want)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(body, back, equal...); diff != "" {
				t.Error(diff)
			}
			if diff := cmp.Diff(header(), h, equal...); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestEveryGoldenFileStillReadsAndWritesTheSame(t *testing.T) {
	files, err := filepath.Glob("testdata/*.bin")
	if err != nil || len(files) < len(command.Types()) {
		t.Fatal(len(files), err)
	}
	for _, f := range files {
		want, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		h, b, err := command.Decode(want)
		if err != nil {
			t.Errorf("%s: %v", f, err)
			continue
		}
		if name := fmt.Sprintf("%02d_%s.", b.Type(), b.Type()); !strings.HasPrefix(filepath.Base(f), name) {
			t.Errorf("%s holds the command %s", f, name)
		}
		if got, err := command.Encode(h, b); err != nil || !bytes.Equal(want, got) {
			t.Errorf("%s: %v\n%s", f, err, cmp.Diff(string(want), string(got)))
		}
	}
}

func TestTypesAreNumberedFromOneAndNamed(t *testing.T) {
	seen := map[string]bool{}
	for i, typ := range command.Types() {
		if int(typ) != i+1 {
			t.Errorf("command %s has the number %d, want %d", typ, typ, i+1)
		}
		if b := empty(t, typ); b.Type() != typ {
			t.Errorf("the body of command %d says %d", typ, b.Type())
		}
		if n := typ.String(); seen[n] || strings.HasPrefix(n, "command_") {
			t.Errorf("command %d has the name %q", typ, n)
		}
		seen[typ.String()] = true
	}
	// The last one that was released; numbers are never given out again.
	if command.TypeMemberJoin != 27 || command.TypeEntryDelete != 26 || command.TypeClusterInit != 1 {
		t.Error("released numbers moved")
	}
	if got := command.Type(999).String(); got != "command_999" {
		t.Errorf("an unknown command is called %q", got)
	}
}

func TestDecodeRefuses(t *testing.T) {
	const head = `"header":{"time":"2026-01-01T00:00:00Z","name":"a","party":"vendor"}`
	good := entry(command.TypeMemberRemove, `{`+head+`,"body":{"id":"m1"}}`)
	if _, _, err := command.Decode(good); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		in   []byte
		says string
	}{
		"nothing":                     {nil, "format"},
		"the format byte alone":       {[]byte{1}, "format"},
		"another format":              {append([]byte{2}, good[1:]...), "older than the cluster"},
		"command 0":                   {entry(0, `{`+head+`,"body":{}}`), "unknown command 0"},
		"an unknown command":          {entry(command.Type(len(command.Types())+1), `{`+head+`,"body":{}}`), "upgrade it"},
		"a number that wraps round":   {append(binary.AppendUvarint([]byte{1}, 1<<16+3), good[2:]...), "65539"},
		"a number that never ends":    {append([]byte{1}, bytes.Repeat([]byte{0xff}, 12)...), "unknown command"},
		"no payload":                  {good[:2], "decode"},
		"half a payload":              {good[:len(good)-3], "decode"},
		"trailing bytes":              {append(bytes.Clone(good), ' ', '0'), "after the value"},
		"a second value":              {append(bytes.Clone(good), '{', '}'), "after the value"},
		"an unknown field around":     {entry(command.TypeMemberRemove, `{`+head+`,"body":{"id":"m1"},"x":1}`), "unknown field"},
		"an unknown field in header":  {entry(command.TypeMemberRemove, `{"header":{"time":"2026-01-01T00:00:00Z","x":1},"body":{}}`), "unknown field"},
		"an unknown field in body":    {entry(command.TypeMemberRemove, `{`+head+`,"body":{"id":"m1","force":true}}`), "unknown field"},
		"another command's body":      {entry(command.TypeNodesReport, `{`+head+`,"body":{"id":"m1"}}`), "unknown field"},
		"a value of the wrong type":   {entry(command.TypeMemberRemove, `{`+head+`,"body":{"id":7}}`), "decode member_remove"},
		"no body":                     {entry(command.TypeMemberRemove, `{`+head+`}`), "decode member_remove"},
		"a time that is none":         {entry(command.TypeMemberRemove, `{"header":{"time":"yesterday"},"body":{}}`), "decode"},
		"a payload that is no object": {entry(command.TypeMemberRemove, `[]`), "decode"},
	} {
		t.Run(name, func(t *testing.T) {
			_, b, err := command.Decode(tc.in)
			if !errors.Is(err, fleet.ErrCorrupt) || b != nil {
				t.Fatalf("got %v, %v", b, err)
			}
			if !strings.Contains(err.Error(), tc.says) {
				t.Errorf("%q does not say %q", err, tc.says)
			}
		})
	}
}

func TestEncodeRefusesWhatIsTooLarge(t *testing.T) {
	fits := command.EntryPut{Key: "k", Value: make([]byte, command.MaxBytes*3/4-1024)}
	if b, err := command.Encode(header(), fits); err != nil || len(b) > command.MaxBytes {
		t.Fatal(len(b), err)
	}
	_, err := command.Encode(header(), command.EntryPut{Key: "k", Value: make([]byte, command.MaxBytes)})
	if !errors.Is(err, fleet.ErrTooLarge) || !strings.Contains(err.Error(), "entry_put") {
		t.Errorf("got %v", err)
	}
}

func TestEncodeTellsWhatCannotBeEncoded(t *testing.T) {
	h := header()
	h.Time = time.Date(10_000, 1, 1, 0, 0, 0, 0, time.UTC)
	if _, err := command.Encode(h, command.MemberRemove{ID: "m1"}); err == nil || !strings.Contains(err.Error(), "encode member_remove") {
		t.Errorf("got %v", err)
	}
}

func TestTextThatIsNoUTF8IsTheSameOnEveryMember(t *testing.T) {
	b, err := command.Encode(header(), command.EntryDelete{Key: "a\xff\x00b"})
	if err != nil {
		t.Fatal(err)
	}
	h, body, err := command.Decode(b)
	if err != nil {
		t.Fatal(err)
	}
	if got := body.(*command.EntryDelete).Key; got != "a\ufffd\x00b" {
		t.Errorf("the key is %q", got)
	}
	again, err := command.Encode(h, body)
	if err != nil {
		t.Fatal(err)
	}
	if _, same, err := command.Decode(again); err != nil || !cmp.Equal(body, same) {
		t.Errorf("%v: %v then %v", err, body, same)
	}
}

func FuzzDecode(f *testing.F) {
	files, _ := filepath.Glob("testdata/*.bin")
	for _, name := range files {
		if b, err := os.ReadFile(name); err == nil {
			f.Add(b)
		}
	}
	f.Add(entry(command.TypeMemberRemove, `{"header":{"time":"2026-01-01T00:00:00+02:00"},"body":null}`))
	f.Fuzz(func(t *testing.T, in []byte) {
		h, b, err := command.Decode(in)
		if err != nil {
			if !errors.Is(err, fleet.ErrCorrupt) {
				t.Fatalf("refused with %v", err)
			}
			return
		}
		once, err := command.Encode(h, b)
		if err != nil {
			if errors.Is(err, fleet.ErrTooLarge) || json.Valid(in) {
				return
			}
			t.Fatalf("decoded and cannot be encoded: %v", err)
		}
		h2, b2, err := command.Decode(once)
		if err != nil {
			t.Fatalf("encoded and cannot be decoded: %v\n%s", err, once)
		}
		twice, err := command.Encode(h2, b2)
		if err != nil || !bytes.Equal(once, twice) {
			t.Fatalf("not stable: %v\n%s\n%s", err, once, twice)
		}
	})
}

func TestAnIdempotencyKeyIsInTheHeaderAndOnlyThen(t *testing.T) {
	h := header()
	plain, err := command.Encode(h, command.MemberRemove{ID: "m1"})
	if err != nil || bytes.Contains(plain, []byte("once")) {
		t.Fatalf("%v: %s", err, plain)
	}
	h.Once = &command.Once{Caller: "token/tok-1", Key: "k", Request: "sum", Expires: time.Date(2026, 11, 6, 1, 2, 3, 0, time.UTC)}
	got, err := command.Encode(h, command.MemberRemove{ID: "m1"})
	if err != nil {
		t.Fatal(err)
	}
	const want = `"once":{"caller":"token/tok-1","key":"k","request":"sum","expires":"2026-11-06T01:02:03Z"}}`
	if !bytes.Contains(got, []byte(want)) {
		t.Errorf("the encoding changed: %s", got)
	}
	if back, _, err := command.Decode(got); err != nil || !cmp.Equal(h, back, equal...) {
		t.Errorf("%v: %+v", err, back)
	}
}
