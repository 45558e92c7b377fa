package api_test

import (
	"bytes"
	"encoding/json"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/edgefleet/edgefleet/controlplane/api"
	"github.com/edgefleet/edgefleet/controlplane/command"
	"github.com/edgefleet/edgefleet/fleet"
)

type document struct {
	Paths      map[string]map[string]described `json:"paths"`
	Components struct {
		Schemas map[string]schema `json:"schemas"`
	} `json:"components"`
}

type described struct {
	ID          string                `json:"operationId"`
	Summary     string                `json:"summary"`
	Duty        string                `json:"x-duty"`
	Scope       string                `json:"x-scope"`
	FourEyes    bool                  `json:"x-four-eyes"`
	Permission  string                `json:"x-permission"`
	Audit       string                `json:"x-audit"`
	Security    []map[string][]string `json:"security"`
	Parameters  []parameter           `json:"parameters"`
	RequestBody *struct {
		Content map[string]struct {
			Schema schema `json:"schema"`
		} `json:"content"`
	} `json:"requestBody"`
	Responses map[string]struct {
		Headers map[string]any `json:"headers"`
		Content map[string]struct {
			Schema schema `json:"schema"`
		} `json:"content"`
	} `json:"responses"`
}

func (d described) takes(header string) bool {
	return slices.ContainsFunc(d.Parameters, func(p parameter) bool { return p.In == "header" && p.Name == header })
}

type parameter struct {
	Name     string `json:"name"`
	In       string `json:"in"`
	Required bool   `json:"required"`
}

type schema struct {
	Ref                  string            `json:"$ref"`
	Type                 any               `json:"type"`
	Format               string            `json:"format"`
	ContentEncoding      string            `json:"contentEncoding"`
	AdditionalProperties any               `json:"additionalProperties"`
	Properties           map[string]schema `json:"properties"`
	Items                *schema           `json:"items"`
	Required             []string          `json:"required"`
}

func spec(t *testing.T) (raw []byte, d document) {
	t.Helper()
	raw, err := api.OpenAPI()
	must(t, err)
	must(t, json.Unmarshal(raw, &d))
	return raw, d
}

func TestTheCommittedDescriptionIsTheOneOfTheCode(t *testing.T) {
	raw, _ := spec(t)
	committed, err := os.ReadFile("../../docs/openapi.json")
	must(t, err)
	if !bytes.Equal(append(raw, '\n'), committed) {
		t.Error("docs/openapi.json is not what the code says: run 'make generate'")
	}
	f := open(t, 1)
	served := f.at(0, "").call("GET", "/v1/openapi.json", nil).want(200)
	if diff := cmp.Diff(string(raw), string(served.body)); diff != "" {
		t.Error(diff)
	}
}

// changesNothing lists the operations other than GET that leave no audit entry; a drill names the members that it kills.
var changesNothing = []string{"host-check", "rule-test", "rule-explain", "rule-impact", "edge-poll", "cluster-settle", "cluster-token-uses", "member-crash"}

func TestEveryOperationSaysWhoMayCallItWithWhichPermissionAndWhichDutyItExercises(t *testing.T) {
	_, d := spec(t)
	var commands []string
	for _, c := range command.Types() {
		commands = append(commands, c.String())
	}
	kebab := regexp.MustCompile(`^[a-z]+(-[a-z]+)*$`)
	for path, methods := range d.Paths {
		for method, op := range methods {
			what := method + " " + path
			if !kebab.MatchString(op.ID) || op.Summary == "" {
				t.Errorf("%s: id %q, summary %q", what, op.ID, op.Summary)
			}
			if _, ok := fleet.DutyByID(fleet.DutyID(op.Duty)); !ok {
				t.Errorf("%s: unknown duty %q", what, op.Duty)
			}
			if special, ok := map[string]fleet.Permission{"a node's certificate": fleet.PermNode, "a member's certificate": fleet.PermMember, "nothing": fleet.PermPublic}[op.Scope]; ok {
				if fleet.Permission(op.Permission) != special {
					t.Errorf("%s: permission %q does not fit %s", what, op.Permission, op.Scope)
				}
			} else if p := fleet.Permission(op.Permission); p != fleet.PermSelf && p.Validate() != nil {
				t.Errorf("%s: permission %q is not one that a role can give", what, op.Permission)
			}
			security, known := map[string]string{
				"an operator token": "token", "an operator token or the tenant's API token": "token", "an API token": "token",
				"a node's certificate": "mtls", "a member's certificate": "mtls", "nothing": "",
			}[op.Scope]
			if !known || len(op.Security) != 1 || (security == "") != (len(op.Security[0]) == 0) {
				t.Errorf("%s: scope %q, security %v", what, op.Scope, op.Security)
			} else if _, ok := op.Security[0][security]; !ok && security != "" {
				t.Errorf("%s: scope %q, security %v", what, op.Scope, op.Security)
			}
			if strings.Contains(op.Scope, "tenant's") != strings.Contains(path, "{tenant}") && !slices.Contains([]string{"tenant-update", "tenant-delete"}, op.ID) {
				t.Errorf("%s: scope %q does not fit the path", what, op.Scope)
			}
			silent := method == "get" || slices.Contains(changesNothing, op.ID)
			if silent != (op.Audit == "") || !silent && !slices.Contains(commands, op.Audit) {
				t.Errorf("%s: audit %q is not a command", what, op.Audit)
			}
			checkResponses(t, what, op)
		}
	}
}

func checkResponses(t *testing.T, what string, op described) {
	t.Helper()
	for code, r := range op.Responses {
		for ct, content := range r.Content {
			if (code >= "4") != (ct == "application/problem+json") || code >= "4" && content.Schema.Ref != "#/components/schemas/Problem" {
				t.Errorf("%s: %s is %s %s", what, code, ct, content.Schema.Ref)
			}
		}
	}
	for _, code := range []string{"401", "403", "404", "422", "429", "500", "503"} {
		if len(op.Responses[code].Content) != 1 {
			t.Errorf("%s: %s is not described", what, code)
		}
	}
	if op.RequestBody != nil {
		for _, code := range []string{"400", "408", "413", "415"} {
			if len(op.Responses[code].Content) != 1 {
				t.Errorf("%s: %s is not described", what, code)
			}
		}
	}
}

func TestTheSchemasSayWhatIsOnTheWire(t *testing.T) {
	_, d := spec(t)
	all := d.Components.Schemas
	for _, unwanted := range []string{"ErrorModel", "ErrorDetail", "Meta", "Actor"} {
		if _, ok := all[unwanted]; ok {
			t.Errorf("schema %s is there", unwanted)
		}
	}
	for name, s := range all {
		if s.Type == "object" && s.AdditionalProperties == nil {
			t.Errorf("%s takes any property", name)
		}
	}
	for path, methods := range d.Paths {
		for method, op := range methods {
			if op.RequestBody == nil || op.ID == "snapshot-restore" { // which takes a file
				continue
			}
			ref := strings.TrimPrefix(op.RequestBody.Content["application/json"].Schema.Ref, "#/components/schemas/")
			if all[ref].AdditionalProperties != false {
				t.Errorf("%s %s: the body %q takes unknown properties", method, path, ref)
			}
		}
	}
	for _, test := range []struct {
		of, property, is string
	}{
		{"NodeIdentity", "hpke", "string base64"},
		{"SignedHead", "signature", "string base64"},
		{"Cluster", "head_keys", "list of string base64"},
		{"EnrolRequest", "addresses", "list of string ip"},
		{"TenantSpec", "allowed_origins", "list of string"},
		{"AuditEntry", "time", "string date-time"},
		{"Event", "client_port", "integer int32"},
		{"HostView", "name", "string"}, // of the embedded host
		{"Host", "revision", "integer int64"},
		{"TokenCreated", "token", "string"},
		{"JoinTokenCreated", "expires_at", "string date-time"},
		{"Problem", "request_id", "string"},
		{"Problem", "kind", "string"},
		{"Problem", "field", "string"},
	} {
		p, ok := all[test.of].Properties[test.property]
		prefix := ""
		if p.Items != nil {
			prefix, p = "list of ", *p.Items
		}
		typ, _ := p.Type.(string)
		if got := strings.TrimSpace(prefix + typ + " " + p.Format + p.ContentEncoding); !ok || got != test.is {
			t.Errorf("%s.%s is %q, want %q", test.of, test.property, got, test.is)
		}
	}
}

func TestBodiesWithANameTwiceAreRefused(t *testing.T) {
	for in, ok := range map[string]bool{
		`{"a":1,"b":{"a":2},"c":[{"a":3},{"a":4}]}`: true,
		`["a","a",{"x":"a"},"a"]`:                   true,
		`"a"`:                                       true,
		`{"a":"b","b":"a"}`:                         true,
		`{"a":1,"a":1}`:                             false,
		`{"a":1,"A":1}`:                             false,
		`{"a":1,"\u0061":1}`:                        false,
		`{"x":{"a":[],"b":{},"a":[]}}`:              false,
		`[{"a":{"b":1},"a":2}]`:                     false,
		`{"a":1`:                                    false,
		`{"a":1}x`:                                  false,
		``:                                          false,
		strings.Repeat("[", 33):                     false,
		strings.Repeat("[", 32) + strings.Repeat("]", 32): true,
	} {
		var v any
		if err := api.Unmarshal([]byte(in), &v); (err == nil) != ok {
			t.Errorf("%s: %v", in, err)
		}
	}
}

// What is accepted reads the same for every reader of JSON: no name is there twice.
func FuzzUnmarshal(f *testing.F) {
	for _, seed := range []string{`{"a":1,"A":2}`, `[{"a":[{}]}]`, `{"a":{"a":"a"},"b":"a"}`, `{"a":1}{}`, `"\ud800"`, "{\"\xff\":1,\"\xfe\":2}"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		var v any
		if api.Unmarshal(in, &v) != nil {
			return
		}
		var want any
		if err := json.Unmarshal(in, &want); err != nil || !cmp.Equal(v, want) {
			t.Errorf("%q: %v, %v", in, v, want)
		}
		out, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Count(out, []byte(`":`)) < bytes.Count(compact(t, in), []byte(`":`)) {
			t.Errorf("%q lost a name: %s", in, out)
		}
	})
}

func compact(t *testing.T, in []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	must(t, json.Compact(&b, in))
	return b.Bytes()
}
