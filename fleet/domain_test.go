package fleet_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/edgefleet/edgefleet/fleet"
)

func TestErrorsKeepTheirKindAcrossTheWire(t *testing.T) {
	for _, tc := range []struct {
		err    error
		name   string
		status int
		exit   int
	}{
		{fleet.ErrInvalid, "invalid", 422, 1},
		{fleet.ErrUnauthenticated, "unauthenticated", 401, 4},
		{fleet.ErrDenied, "denied", 403, 4},
		{fleet.ErrNotFound, "not_found", 404, 3},
		{fleet.ErrConflict, "conflict", 409, 6},
		{fleet.ErrTooLarge, "too_large", 413, 1},
		{fleet.ErrRateLimited, "rate_limited", 429, 1},
		{fleet.ErrUnavailable, "unavailable", 503, 1},
		{fleet.ErrSealed, "sealed", 503, 1},
		{fleet.ErrCorrupt, "corrupt", 500, 1},
		{fleet.ErrStale, "stale", 409, 6},
		{fleet.ErrTimeout, "timeout", 504, 5},
		{errors.New("anything else"), "internal", 500, 1},
	} {
		k := fleet.KindOf(fmt.Errorf("around: %w", tc.err))
		if k.Name != tc.name || k.Status != tc.status || k.Exit != tc.exit {
			t.Errorf("%v is %+v", tc.err, k)
		}
		if fleet.KindNamed(tc.name) != k {
			t.Errorf("the row of %s is not found by name", tc.name)
		}
		b, err := json.Marshal(fleet.AsError(fmt.Errorf("apply: %w", fleet.NewError(tc.err, "host", "why %d", 7))))
		if err != nil {
			t.Fatal(err)
		}
		var back fleet.Error
		if err := fleet.DecodeStrict(b, &back); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(fleet.Error{Kind: tc.name, Field: "host", Message: "apply: why 7"}, back); diff != "" {
			t.Error(diff)
		}
		if tc.name != "internal" && !errors.Is(&back, tc.err) {
			t.Errorf("%s is not %v on the other side", b, tc.err)
		}
	}
	if fleet.AsError(nil) != nil {
		t.Error("no error became one")
	}
	if e := fleet.AsError(errors.New("x")); e.Kind != "internal" || e.Message != "x" {
		t.Errorf("%+v", e)
	}
	if k := fleet.KindNamed("from a newer version"); k.Status != 500 {
		t.Errorf("an unknown kind is %+v", k)
	}
}

// duties is the shared-responsibility table as it stands in the contract: V vendor, C client, - nobody, * either.
const duties = `
D1  * * *
D2  V V C
D3  V V V
D4  V C C
D5  V V C
D6  V V C
D7  V V C
D8  V V C
D9  V V C
D10 V C C
D11 V C C
D12 V V -
D13 V C C
D14 C C C
D15 C C C
D16 C C -
D17 V C C
D18 - C C
D19 V C C
D20 V C C
D21 * * *
D22 * * *
D23 * * *
D24 * * *
D25 * * *`

func TestWhoMayActInWhichForm(t *testing.T) {
	rows := strings.Split(strings.TrimSpace(duties), "\n")
	if len(rows) != len(fleet.Duties) {
		t.Fatalf("%d duties, the contract has %d", len(fleet.Duties), len(rows))
	}
	for i, row := range rows {
		cells := strings.Fields(row)
		if d := fleet.Duties[i]; string(d.ID) != cells[0] || d.Title == "" || len(d.Owner) != len(fleet.Forms) {
			t.Errorf("row %d is %+v", i, d)
		}
		for j, form := range fleet.Forms {
			for _, party := range []fleet.Party{fleet.Vendor, fleet.Client} {
				allowed := cells[j+1] == "*" || (cells[j+1] == "V" && party == fleet.Vendor) || (cells[j+1] == "C" && party == fleet.Client)
				err := fleet.Authorize(fleet.DutyID(cells[0]), form, party)
				if allowed != (err == nil) || (err != nil && !errors.Is(err, fleet.ErrDenied)) {
					t.Errorf("%s in %s by the %s: %v", cells[0], form, party, err)
				}
			}
			for _, party := range []fleet.Party{fleet.Nobody, fleet.Either, "", "operator"} {
				if err := fleet.Authorize(fleet.DutyID(cells[0]), form, party); !errors.Is(err, fleet.ErrDenied) {
					t.Errorf("%s in %s by %q: %v", cells[0], form, party, err)
				}
			}
		}
	}
}

func TestRefusalsPointToTheOwner(t *testing.T) {
	for _, tc := range []struct {
		duty  fleet.DutyID
		form  fleet.Form
		party fleet.Party
		says  string
	}{
		{fleet.DutyPatching, fleet.Hybrid, fleet.Vendor, "belongs to the client in the form hybrid"},
		{fleet.DutyPatching, fleet.SecurityEdge, fleet.Client, "belongs to the vendor in the form security_edge"},
		{fleet.DutyAttestation, fleet.OnPremise, fleet.Client, "is not provided in the form on_premise"},
		{"D99", fleet.Hybrid, fleet.Vendor, "no known duty"},
	} {
		if err := fleet.Authorize(tc.duty, tc.form, tc.party); !errors.Is(err, fleet.ErrDenied) || !strings.Contains(err.Error(), tc.says) {
			t.Errorf("%v, want %q", err, tc.says)
		}
	}
	if err := fleet.Authorize(fleet.DutyPatching, "cloud", fleet.Vendor); !errors.Is(err, fleet.ErrInvalid) {
		t.Errorf("an unknown form: %v", err)
	}
}

func TestIdentifiersAreLabels(t *testing.T) {
	for _, s := range []string{"a", "0", "a-b", "n1", strings.Repeat("a", 63)} {
		if err := fleet.ValidateID("node", fleet.NodeID(s)); err != nil {
			t.Error(err)
		}
	}
	for _, s := range []string{"", "-a", "a-", "A", "a.b", "a_b", "a b", "a/b", "*", ">", "ä", "a\x00", strings.Repeat("a", 64)} {
		err := fleet.ValidateID("node", fleet.NodeID(s))
		var e *fleet.Error
		if !errors.As(err, &e) || e.Field != "node" || !errors.Is(err, fleet.ErrInvalid) {
			t.Errorf("%q: %v", s, err)
		}
	}
}

func TestSPIFFEIdentities(t *testing.T) {
	for uri, want := range map[string]fleet.Identity{
		fleet.MemberSPIFFE("c1", "m1"): {Cluster: "c1", Member: "m1"},
		fleet.NodeSPIFFE("c1", "n1"):   {Cluster: "c1", Node: "n1"},
	} {
		if got, err := fleet.ParseSPIFFE(uri); err != nil || got != want {
			t.Errorf("%s: %+v, %v", uri, got, err)
		}
	}
	for _, uri := range []string{
		"", "spiffe://c1", "spiffe://c1/node", "spiffe://c1/node/", "spiffe://c1/node/n1/x", "spiffe://c1/admin/n1", "spiffe:///node/n1",
		"https://c1/node/n1", "spiffe://c1/node/n.1", "spiffe://c1/node/*", "spiffe://C1/node/n1", "spiffe://c1/NODE/n1", "SPIFFE://c1/node/n1", "spiffe://c1/node/n1?x",
	} {
		if got, err := fleet.ParseSPIFFE(uri); !errors.Is(err, fleet.ErrDenied) || got != (fleet.Identity{}) {
			t.Errorf("%q: %+v, %v", uri, got, err)
		}
	}
}

func FuzzParseSPIFFE(f *testing.F) {
	f.Add("spiffe://c1/node/n1")
	f.Add("spiffe://c1/member/m1")
	f.Fuzz(func(t *testing.T, uri string) {
		id, err := fleet.ParseSPIFFE(uri)
		if err != nil {
			return
		}
		back := fleet.NodeSPIFFE(id.Cluster, id.Node)
		if id.Member != "" {
			back = fleet.MemberSPIFFE(id.Cluster, id.Member)
		}
		if back != uri || (id.Node == "") == (id.Member == "") {
			t.Errorf("%q reads as %+v", uri, id)
		}
	})
}

func TestHostNames(t *testing.T) {
	for _, s := range []string{"a.b", "api.example.com", "xn--bcher-kva.example", "1.example", strings.Repeat(strings.Repeat("a", 49)+".", 5) + "bcd"} {
		if n, err := fleet.ParseHostName(s); err != nil || string(n) != s {
			t.Errorf("%q: %q, %v", s, n, err)
		}
	}
	for _, s := range []string{
		"", "localhost", "a.b.", ".a.b", "a..b", "A.b", "*.example.com", "_acme.example.com", "a b.c", "-a.b", "a-.b", "192.0.2.1", "1.2.3", "[2001:db8::1]", "2001:db8::1",
		"ä.example", "a.b\n", strings.Repeat("a", 64) + ".example", strings.Repeat("a.", 127),
	} {
		if n, err := fleet.ParseHostName(s); !errors.Is(err, fleet.ErrInvalid) {
			t.Errorf("%q: %q, %v", s, n, err)
		}
	}
	for _, tc := range []struct {
		h, zone fleet.HostName
		want    bool
	}{
		{"a.example.com", "example.com", true},
		{"example.com", "example.com", true},
		{"b.a.example.com", "example.com", true},
		{"aexample.com", "example.com", false},
		{"example.com", "a.example.com", false},
		{"example.com.evil.net", "example.com", false},
	} {
		if got := tc.h.Within(tc.zone); got != tc.want {
			t.Errorf("%s within %s is %v", tc.h, tc.zone, got)
		}
	}
}

func FuzzParseHostName(f *testing.F) {
	f.Add("api.example.com")
	f.Add("xn--bcher-kva.example.")
	f.Fuzz(func(t *testing.T, s string) {
		n, err := fleet.ParseHostName(s)
		if err != nil {
			return
		}
		if _, ip := netip.ParseAddr(s); ip == nil || string(n) != s || len(s) > 253 || strings.ToLower(s) != s {
			t.Errorf("%q is a host name", s)
		}
	})
}

func TestAuditChainShowsEveryChange(t *testing.T) {
	chain := func() []fleet.AuditEntry {
		prev, out := fleet.AuditGenesis, []fleet.AuditEntry{}
		for i := range uint64(5) {
			e, err := fleet.AuditEntry{
				Seq: i + 1, Time: time.Unix(int64(i), 0).UTC(), Actor: fleet.Actor{Name: "t", Party: fleet.Vendor}, Operation: "host_put",
				Object: "host/a.example.com", Before: json.RawMessage(`{"a":"\u003c"}`), After: json.RawMessage(`{"b":1}`),
			}.Chain(prev)
			if err != nil {
				t.Fatal(err)
			}
			prev, out = e.Hash, append(out, e)
		}
		return out
	}
	if err := fleet.VerifyAudit(chain()); err != nil {
		t.Fatal(err)
	}
	if err := fleet.VerifyAudit(chain()[2:]); err != nil {
		t.Fatal("a later part:", err)
	}
	if err := fleet.VerifyAudit(nil); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func([]fleet.AuditEntry) []fleet.AuditEntry{
		"the reason changed":    func(es []fleet.AuditEntry) []fleet.AuditEntry { es[2].Reason = "x"; return es },
		"the time changed":      func(es []fleet.AuditEntry) []fleet.AuditEntry { es[2].Time = es[2].Time.Add(1); return es },
		"the actor changed":     func(es []fleet.AuditEntry) []fleet.AuditEntry { es[2].Name = "x"; return es },
		"what was before":       func(es []fleet.AuditEntry) []fleet.AuditEntry { es[2].Before = nil; return es },
		"what was after":        func(es []fleet.AuditEntry) []fleet.AuditEntry { es[2].After = json.RawMessage(`{}`); return es },
		"the tenant changed":    func(es []fleet.AuditEntry) []fleet.AuditEntry { es[2].Tenant = "x"; return es },
		"an entry removed":      func(es []fleet.AuditEntry) []fleet.AuditEntry { return append(es[:2], es[3:]...) },
		"an entry added":        func(es []fleet.AuditEntry) []fleet.AuditEntry { return append(es, es[4]) },
		"two entries swapped":   func(es []fleet.AuditEntry) []fleet.AuditEntry { es[2], es[3] = es[3], es[2]; return es },
		"the hash changed":      func(es []fleet.AuditEntry) []fleet.AuditEntry { es[4].Hash = es[3].Hash; return es },
		"renumbered and rehung": func(es []fleet.AuditEntry) []fleet.AuditEntry { return rehang(t, es[1:]) },
		"an entry rehashed": func(es []fleet.AuditEntry) []fleet.AuditEntry {
			es[2].Reason = "x"
			es[2], _ = es[2].Chain(es[2].Prev)
			return es
		},
		"the start cut off and another made": func(es []fleet.AuditEntry) []fleet.AuditEntry {
			es[1], _ = es[1].Chain(fleet.AuditGenesis)
			return es[1:2]
		},
	} {
		if err := fleet.VerifyAudit(change(chain())); !errors.Is(err, fleet.ErrCorrupt) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// rehang gives the entries new numbers from 1 and new hashes, with the old predecessor of the first.
func rehang(t *testing.T, es []fleet.AuditEntry) []fleet.AuditEntry {
	t.Helper()
	prev := es[0].Prev
	for i := range es {
		es[i].Seq = uint64(i + 1)
		e, err := es[i].Chain(prev)
		if err != nil {
			t.Fatal(err)
		}
		es[i], prev = e, e.Hash
	}
	return es
}

func TestVersionsCompareByIncarnationThenGeneration(t *testing.T) {
	ordered := []fleet.Version{{}, {Incarnation: 1, Generation: 1}, {Incarnation: 1, Generation: 2}, {Incarnation: 1, Generation: 1 << 63}, {Incarnation: 2}, {Incarnation: 2, Generation: 1}}
	for i, v := range ordered {
		for j, w := range ordered {
			if got := v.Compare(w); (got < 0) != (i < j) || (got > 0) != (i > j) {
				t.Errorf("%v against %v is %d", v, w, got)
			}
		}
	}
	r := fleet.HeadReport{Version: fleet.Version{Incarnation: 1, Generation: 5}}
	if !r.Applied(fleet.Version{Incarnation: 1, Generation: 5}) || !r.Applied(fleet.Version{Incarnation: 1, Generation: 4}) || r.Applied(fleet.Version{Incarnation: 2, Generation: 1}) {
		t.Error("an ACK covers its version and those before it")
	}
	r.Reason = "no"
	if r.Applied(fleet.Version{}) {
		t.Error("a NACK is no ACK")
	}
}

func TestReportsAreBounded(t *testing.T) {
	good := fleet.Report{Node: "n1", Boot: "b1", Heads: []fleet.HeadReport{{Kind: fleet.HeadConfig, Root: "garbage of a refused head", Reason: "no"}, {Kind: fleet.HeadCerts}}}
	if err := good.Validate(); err != nil {
		t.Fatal(err)
	}
	long := strings.Repeat("x", 5000)
	for name, change := range map[string]func(*fleet.Report){
		"no node":            func(r *fleet.Report) { r.Node = "" },
		"a long boot":        func(r *fleet.Report) { r.Boot = long },
		"a long version":     func(r *fleet.Report) { r.Software = long },
		"too many heads":     func(r *fleet.Report) { r.Heads = make([]fleet.HeadReport, 4) },
		"an unknown kind":    func(r *fleet.Report) { r.Heads = []fleet.HeadReport{{Kind: "x"}} },
		"a kind twice":       func(r *fleet.Report) { r.Heads = []fleet.HeadReport{{Kind: "certs"}, {Kind: "certs"}} },
		"a long reason":      func(r *fleet.Report) { r.Heads = []fleet.HeadReport{{Kind: "certs", Reason: long}} },
		"a long root digest": func(r *fleet.Report) { r.Heads = []fleet.HeadReport{{Kind: "certs", Root: fleet.Digest(long)}} },
	} {
		r := good
		change(&r)
		if err := r.Validate(); err == nil {
			t.Errorf("%s is accepted", name)
		}
	}
}

func TestDecodeStrict(t *testing.T) {
	var v struct {
		A int `json:"a"`
	}
	if err := fleet.DecodeStrict([]byte(` {"a":1} `), &v); err != nil || v.A != 1 {
		t.Error(v, err)
	}
	for _, s := range []string{"", "{", `{"b":1}`, `{"a":1}{}`, `{"a":1} x`, `{"a":"1"}`, `[]`} {
		if err := fleet.DecodeStrict([]byte(s), &v); !errors.Is(err, fleet.ErrInvalid) {
			t.Errorf("%q: %v", s, err)
		}
	}
}
