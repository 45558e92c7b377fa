package cli_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/edgefleet/edgefleet/fleet"
)

// entries makes a chain of n audit entries.
func entries(t *testing.T, n int) []fleet.AuditEntry {
	t.Helper()
	prev := fleet.AuditGenesis
	out := make([]fleet.AuditEntry, n)
	for i := range out {
		e, err := fleet.AuditEntry{
			Seq: uint64(i + 1), Time: noon(), Actor: fleet.Actor{Name: "token/tok-1", Party: fleet.Vendor},
			Operation: "tenant_put", Object: "tenant/acme", After: json.RawMessage(`{"name":"<A & B>"}`),
		}.Chain(prev)
		if err != nil {
			t.Fatal(err)
		}
		out[i], prev = e, e.Hash
	}
	return out
}

// ndjson is entries as the API gives them, without escaping HTML.
func ndjson(t *testing.T, es []fleet.AuditEntry) string {
	t.Helper()
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	for _, e := range es {
		if err := enc.Encode(e); err != nil {
			t.Fatal(err)
		}
	}
	return b.String()
}

func auditRoutes(t *testing.T, role string, pages ...[]fleet.AuditEntry) string {
	t.Helper()
	var routes strings.Builder
	fmt.Fprintf(&routes, "> GET /v1/whoami\n< 200\n{\"token\":{\"role\":%q}}\n", role)
	request := "GET /v1/audit?limit=100"
	for i, page := range pages {
		next := ""
		items := strings.ReplaceAll(strings.TrimSpace(ndjson(t, page)), "\n", ",")
		if i+1 < len(pages) {
			next = fmt.Sprintf(`,"next":"p%d"`, i)
		}
		fmt.Fprintf(&routes, "> %s\n< 200\n{\"items\":[%s]%s}\n", request, items, next)
		request = fmt.Sprintf("GET /v1/audit?after=p%d&limit=100", i)
	}
	return routes.String()
}

func TestAuditVerifyFindsWhatWasChangedRemovedOrAdded(t *testing.T) {
	good := entries(t, 4)
	changed := append([]fleet.AuditEntry{}, good...)
	changed[2].Object = "tenant/evil"
	for name, test := range map[string]struct {
		role  string
		pages [][]fleet.AuditEntry
		code  int
		says  string
	}{
		"a good chain over two pages":        {"operator", [][]fleet.AuditEntry{good[:2], good[2:]}, 0, "4 audit entries are as they were written, 1 to 4; the last has the hash " + good[3].Hash},
		"no entries":                         {"operator", [][]fleet.AuditEntry{nil}, 0, "there are no audit entries"},
		"a changed entry":                    {"operator", [][]fleet.AuditEntry{changed}, 1, "audit entry 3 was changed after it was written"},
		"an entry missing between two pages": {"operator", [][]fleet.AuditEntry{good[:2], good[3:]}, 1, "audit entry 4 does not follow entry 2"},
		"the first entry missing":            {"operator", [][]fleet.AuditEntry{good[1:]}, 1, "the first audit entry is 2, not 1"},
		"a tenant's entries with gaps":       {"tenant", [][]fleet.AuditEntry{{good[0], good[3]}}, 0, "2 audit entries are as they were written; whether some are missing"},
		"a tenant's changed entry":           {"tenant", [][]fleet.AuditEntry{{good[0], changed[2]}}, 1, "audit entry 3 was changed"},
	} {
		t.Run(name, func(t *testing.T) {
			var out lines
			code, stderr := run(t.Context(), t, startAPI(t, auditRoutes(t, test.role, test.pages...)), &out, "audit", "verify")
			if code != test.code || !strings.Contains(out.String()+stderr, test.says) {
				t.Errorf("exit code %d, want %d; said %q and %q, want %q", code, test.code, out.String(), stderr, test.says)
			}
		})
	}
}

func TestAuditExportIsWhatVerifyReads(t *testing.T) {
	good := entries(t, 3)
	file := filepath.Join(t.TempDir(), "audit.ndjson")
	f := startAPI(t, auditRoutes(t, "operator", good[:2], good[2:]))
	if code, stderr := run(t.Context(), t, f, &lines{}, "audit", "export", file); code != 0 || stderr != "3 audit entries are in "+file+"\n" {
		t.Fatalf("exit code %d: %s", code, stderr)
	}
	got, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(ndjson(t, good), string(got)); diff != "" {
		t.Error(diff)
	}
	var out lines
	if code, stderr := run(t.Context(), t, nil, &out, "audit", "verify", file); code != 0 || !strings.HasPrefix(out.String(), "3 audit entries") {
		t.Errorf("exit code %d: %s %s", code, out.String(), stderr)
	}
	text := string(got)
	for name, test := range map[string]struct{ content, says string }{
		"a changed value":    {strings.Replace(text, "A & B", "A & C", 1), ":1: audit entry 1 was changed"},
		"a removed line":     {strings.Join(strings.SplitAfter(text, "\n")[:1], "") + strings.SplitAfter(text, "\n")[2], ":2: audit entry 3 does not follow entry 1"},
		"an added field":     {strings.Replace(text, `{"seq":2`, `{"x":1,"seq":2`, 1), ":2: decode json"},
		"no JSON":            {text + "end\n", ":4: decode json"},
		"a new first entry":  {ndjson(t, forged(t)), ":1: audit entry 1 follows another"},
		"a very long line":   {strings.Repeat("x", 5<<20), "token too long"},
		"gaps of a tenant's": {ndjson(t, []fleet.AuditEntry{good[0], good[2]}), "does not follow"},
	} {
		t.Run(name, func(t *testing.T) {
			bad := filepath.Join(t.TempDir(), "bad.ndjson")
			if err := os.WriteFile(bad, []byte(test.content), 0o600); err != nil {
				t.Fatal(err)
			}
			if code, stderr := run(t.Context(), t, nil, &lines{}, "audit", "verify", bad); code != fleet.ExitFailure || !strings.Contains(stderr, test.says) {
				t.Errorf("exit code %d, stderr %q, want %q", code, stderr, test.says)
			}
		})
	}
	gaps := filepath.Join(t.TempDir(), "gaps.ndjson")
	if err := os.WriteFile(gaps, []byte(ndjson(t, []fleet.AuditEntry{good[0], good[2]})), 0o600); err != nil {
		t.Fatal(err)
	}
	if code, stderr := run(t.Context(), t, nil, &lines{}, "audit", "verify", "--each", gaps); code != 0 {
		t.Errorf("--each: exit code %d: %s", code, stderr)
	}
}

// forged is an entry 1 that pretends to follow another.
func forged(t *testing.T) []fleet.AuditEntry {
	t.Helper()
	e := entries(t, 1)[0]
	e, err := e.Chain(strings.Repeat("1", 64))
	if err != nil {
		t.Fatal(err)
	}
	return []fleet.AuditEntry{e}
}

func TestAnExportThatBreaksOffLeavesTheOldFile(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "audit.ndjson")
	if err := os.WriteFile(file, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	f := startAPI(t, `> GET /v1/audit?limit=100
< 200
{"items":[{"seq":1}],"next":"1"}
> GET /v1/audit?after=1&limit=100
< 503
{"status":503,"kind":"unavailable","detail":"no leader"}`)
	if code, _ := run(t.Context(), t, f, &lines{}, "audit", "export", file); code != fleet.ExitFailure {
		t.Errorf("exit code %d", code)
	}
	got, err := os.ReadFile(file)
	if err != nil || string(got) != "old" {
		t.Errorf("the file is %q (%v), want it as it was", got, err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 1 {
		t.Errorf("left behind: %v (%v)", left, err)
	}
}
