package cli_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/fleet/audit"
)

var auditSeed = ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))

func signAudit(b []byte) ([]byte, error) { return ed25519.Sign(auditSeed, b), nil }

// entries makes a chain of n audit entries.
func entries(t *testing.T, n int) []fleet.AuditEntry {
	t.Helper()
	prev := fleet.AuditGenesis
	out := make([]fleet.AuditEntry, n)
	for i := range out {
		e, err := fleet.AuditEntry{
			Seq: uint64(i + 1), Time: noon(), Actor: fleet.Actor{Name: "token/tok-1", Party: fleet.Vendor},
			Operation: "tenant_put", Object: "tenant/acme", After: json.RawMessage(`{"name":"\u003cA\u003e"}`),
		}.Chain(prev)
		if err != nil {
			t.Fatal(err)
		}
		out[i], prev = e, e.Hash
	}
	return out
}

// part is the export of es[from-1:to] as one part of the export of all.
func part(t *testing.T, es []fleet.AuditEntry, from, to int) string {
	t.Helper()
	run := es[from-1 : to]
	w := audit.NewWriter(audit.Part{Cluster: "c1", From: uint64(from), Until: uint64(len(es)), Prev: run[0].Prev, Key: auditSeed.Public().(ed25519.PublicKey), Time: noon()}) //nolint:forcetypeassert // it is
	s, _, err := audit.Seal("c1", run)
	if err != nil {
		t.Fatal(err)
	}
	c, err := s.Checkpoint.Sign(signAudit)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Block(run, c); err != nil {
		t.Fatal(err)
	}
	b, err := w.Close(signAudit)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// keyFile holds the audit key, as fleetctl audit key writes it.
func keyFile(t *testing.T, key ed25519.PrivateKey) string {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	return file(t, "key.pem", string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})))
}

func file(t *testing.T, name, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestAuditExportIsWhatVerifyReads(t *testing.T) {
	es := entries(t, 5)
	out := filepath.Join(t.TempDir(), "audit.ndjson")
	routes := fmt.Sprintf("> GET /v1/audit/export?from=1\n< 200\n%s\n> GET /v1/audit/export?from=3&to=5\n< 200\n%s", part(t, es, 1, 2), part(t, es, 3, 5))
	if code, stderr := run(t.Context(), t, startAPI(t, routes), &lines{}, "audit", "export", out); code != 0 || stderr != "5 audit entries, 1 to 5, are in "+out+"\n" {
		t.Fatalf("exit code %d: %s", code, stderr)
	}
	got, err := os.ReadFile(out)
	if err != nil || string(got) != part(t, es, 1, 2)+part(t, es, 3, 5) {
		t.Fatalf("%v %s", err, got)
	}
	good := keyFile(t, auditSeed)
	for name, tc := range map[string]struct {
		args []string
		code int
		says string
	}{
		"with the key":                     {[]string{out, "--key", good}, 0, "5 audit entries of cluster c1 are as they were written, 1 to 5; the last has the hash " + es[4].Hash},
		"without a key":                    {[]string{out}, 0, "signed by the key that came along"},
		"with another key":                 {[]string{out, "--key", keyFile(t, ed25519.NewKeyFromSeed(bytes.Repeat([]byte{1}, 32)))}, 1, "line 1: the export is of another audit key"},
		"with no key":                      {[]string{out, "--key", out}, 1, "holds no Ed25519 public key"},
		"an edited entry":                  {[]string{file(t, "a", strings.Replace(string(got), "tenant/acme", "tenant/evil", 1)), "--key", good}, 1, "line 2: audit entry 1 was changed"},
		"cut off":                          {[]string{file(t, "a", part(t, es, 1, 2)), "--key", good}, 1, "breaks off after entry 2 of 5"},
		"a file that is not there":         {[]string{out + "x"}, 1, "no such file"},
		"entries without an export's form": {[]string{file(t, "a", `{"seq":1}`+"\n")}, 1, "line 1: not a line of an export"},
	} {
		t.Run(name, func(t *testing.T) {
			var stdout lines
			code, stderr := run(t.Context(), t, nil, &stdout, append([]string{"audit", "verify"}, tc.args...)...)
			if code != tc.code || !strings.Contains(stdout.String()+stderr, tc.says) {
				t.Errorf("exit code %d, want %d; said %q and %q, want %q", code, tc.code, stdout.String(), stderr, tc.says)
			}
		})
	}
}

func TestAnInterruptedExportGoesOn(t *testing.T) {
	es := entries(t, 6)
	for name, left := range map[string]string{
		"nothing was written":       "",
		"within the first part":     part(t, es, 1, 2)[:300],
		"after the first part":      part(t, es, 1, 2),
		"within a line of the next": part(t, es, 1, 2) + part(t, es, 3, 4)[:700],
		"all but the name":          part(t, es, 1, 2) + part(t, es, 3, 4) + part(t, es, 5, 6),
	} {
		t.Run(name, func(t *testing.T) {
			out := filepath.Join(t.TempDir(), "audit.ndjson")
			if err := os.WriteFile(out+".part", []byte(left), 0o600); err != nil {
				t.Fatal(err)
			}
			var routes strings.Builder
			for from, query := range map[int]string{1: "from=1", 3: "from=3&to=6", 5: "from=5&to=6"} {
				fmt.Fprintf(&routes, "\n> GET /v1/audit/export?%s\n< 200\n%s", query, part(t, es, from, from+1))
			}
			if code, stderr := run(t.Context(), t, startAPI(t, routes.String()), &lines{}, "audit", "export", out); code != 0 {
				t.Fatalf("exit code %d: %s", code, stderr)
			}
			if got, err := os.ReadFile(out); err != nil || string(got) != part(t, es, 1, 2)+part(t, es, 3, 4)+part(t, es, 5, 6) {
				t.Errorf("%v %s", err, got)
			}
		})
	}
	out := filepath.Join(t.TempDir(), "audit.ndjson")
	if err := os.WriteFile(out+".part", []byte(strings.Replace(part(t, es, 1, 2), "acme", "evil", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	if code, stderr := run(t.Context(), t, startAPI(t, ""), &lines{}, "audit", "export", out); code != fleet.ExitFailure || !strings.Contains(stderr, "is damaged: remove it") {
		t.Errorf("exit code %d: %s", code, stderr)
	}
}

func TestAnExportThatBreaksOffLeavesTheOldFile(t *testing.T) {
	es := entries(t, 4)
	out := file(t, "audit.ndjson", "old")
	routes := "> GET /v1/audit/export?from=1\n< 200\n" + part(t, es, 1, 2) + "\n> GET /v1/audit/export?from=3&to=4\n< 503\n" + `{"status":503,"kind":"unavailable","detail":"no leader"}`
	if code, _ := run(t.Context(), t, startAPI(t, routes), &lines{}, "audit", "export", out); code != fleet.ExitFailure {
		t.Errorf("exit code %d", code)
	}
	if got, err := os.ReadFile(out); err != nil || string(got) != "old" {
		t.Errorf("the file is %q (%v), want it as it was", got, err)
	}
	if got, err := os.ReadFile(out + ".part"); err != nil || string(got) != part(t, es, 1, 2) {
		t.Errorf("what was got is %q (%v)", got, err)
	}
}

func TestAuditVerifyAsksEveryMember(t *testing.T) {
	es := entries(t, 2)
	evil := entries(t, 2)
	evil[1].Object = "tenant/evil"
	evil[1], _ = evil[1].Chain(evil[0].Hash)
	for name, tc := range map[string]struct {
		second string
		code   int
		says   string
	}{
		"all have the same":       {"> GET /v1/audit/export?consistency=stale&from=1&to=2\n< 200\n" + part(t, es, 1, 2), 0, "m2      2        1     2   " + es[1].Hash[:12] + "  verified"},
		"one has another chain":   {"> GET /v1/audit/export?consistency=stale&from=1&to=2\n< 200\n" + part(t, evil, 1, 2), 1, "another chain than member m1"},
		"one is behind":           {"> GET /v1/audit/export?consistency=stale&from=1&to=2\n< 422\n" + `{"status":422,"kind":"invalid","detail":"the newest is 1"}`, 1, "the newest is 1"},
		"one answers half a part": {"> GET /v1/audit/export?consistency=stale&from=1&to=2\n< 200\n" + strings.SplitAfter(part(t, es, 1, 2), "\n")[0], 1, "breaks off"},
	} {
		t.Run(name, func(t *testing.T) {
			second := startAPI(t, tc.second)
			newest, err := json.Marshal(es[1])
			if err != nil {
				t.Fatal(err)
			}
			first := startAPI(t, fmt.Sprintf("> GET /v1/audit?limit=1&newest=true\n< 200\n{\"items\":[%s],\"next\":\"2\"}\n> GET /v1/audit/export?consistency=stale&from=1&to=2\n< 200\n%s", newest, part(t, es, 1, 2)))
			first.exchanges["GET /v1/cluster"] = []exchange{{status: 200, answer: fmt.Sprintf(`{"members":[{"id":"m1","api":%q},{"id":"m2","api":%q}]}`, first.Listener.Addr(), second.Listener.Addr())}}
			var out lines
			code, stderr := run(t.Context(), t, first, &out, "audit", "verify")
			if code != tc.code || !strings.Contains(out.String()+stderr, tc.says) {
				t.Errorf("exit code %d, want %d; said %q and %q, want %q", code, tc.code, out.String(), stderr, tc.says)
			}
		})
	}
}

func TestAuditListSelects(t *testing.T) {
	routes := `> GET /v1/audit?actor=token%2Ftok-1&limit=7&newest=true&object=host%2Fa&operation=host_put&request_id=r1&tenant=acme&until=2026-11-21T00%3A00%3A00Z
< 200
{"items":[{"seq":9,"time":"2026-11-20T00:00:00Z","name":"token/tok-1","party":"vendor","operation":"host_put","object":"host/a","prev":"p","hash":"h"}]}`
	var out lines
	code, stderr := run(t.Context(), t, startAPI(t, routes), &out, "--tenant", "acme", "audit", "list", "--newest", "-n", "7", "--actor", "token/tok-1", "--object", "host/a", "--operation", "host_put", "--request-id", "r1", "--until", "2026-11-21T00:00:00Z")
	if code != 0 || !strings.Contains(out.String(), "host/a") {
		t.Errorf("exit code %d: %s %s", code, out.String(), stderr)
	}
}

func TestAuditListFollowsFromTheNewestEntryUntilAnInterrupt(t *testing.T) {
	entry := func(seq int, object string) string {
		return fmt.Sprintf(`{"seq":%d,"time":"2026-11-21T11:00:00Z","name":"token/tok-1","party":"vendor","operation":"host_put","object":"host/%s"}`, seq, object)
	}
	routes := "> GET /v1/audit?limit=1&newest=true\n< 200\n{\"items\":[" + entry(3, "old") + "]}\n" +
		"> GET /v1/audit?cursor=3&limit=100\n< 200\n{\"items\":[" + entry(4, "a") + "],\"next\":\"4\"}\n" +
		"> GET /v1/audit?cursor=4&limit=100\n< 200\n{\"items\":[" + entry(5, "b") + "]}\n" +
		"> GET /v1/audit?cursor=5&limit=100\n< 200\n{\"items\":[" + entry(6, "c") + "]}\n"
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	out := &lines{want: 3, full: cancel}
	code, stderr := run(ctx, t, startAPI(t, routes), out, "audit", "list", "--follow", "-o", "json")
	if code != fleet.ExitInterrupted {
		t.Errorf("exit code %d, %s", code, stderr)
	}
	if diff := cmp.Diff(entry(4, "a")+"\n"+entry(5, "b")+"\n"+entry(6, "c")+"\n", out.String()); diff != "" {
		t.Error(diff)
	}
}

func TestAuditKeyIsWrittenForAuditors(t *testing.T) {
	der, err := os.ReadFile(keyFile(t, auditSeed))
	if err != nil {
		t.Fatal(err)
	}
	answer, err := json.Marshal(map[string]string{"cluster": "c1", "pem": string(der), "fingerprint": "f00"})
	if err != nil {
		t.Fatal(err)
	}
	f := startAPI(t, "> GET /v1/audit/key\n< 200\n"+string(answer))
	path := filepath.Join(t.TempDir(), "k.pem")
	if code, stderr := run(t.Context(), t, f, &lines{}, "audit", "key", path); code != 0 || !strings.Contains(stderr, "fingerprint is f00") {
		t.Fatal(code, stderr)
	}
	if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, der) {
		t.Errorf("%v %s", err, got)
	}
}
