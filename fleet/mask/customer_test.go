package mask_test

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/fleet/mask"
	"github.com/edgefleet/edgefleet/fleet/request"
)

// sensitive makes a set of the default pack and one rule, r1.
func sensitive(t *testing.T, point, pattern string) *mask.Set {
	t.Helper()
	spec := fleet.RuleSpec{Kind: fleet.RuleSensitiveData, Pattern: pattern}
	if point != "" {
		if err := json.Unmarshal([]byte(point), &spec.Point); err != nil {
			t.Fatal(err)
		}
	}
	s, err := mask.Compile([]fleet.BundleRule{{ID: "r1", Spec: spec}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func gzipped(s string) string {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, _ = z.Write([]byte(s))
	_ = z.Close()
	return b.String()
}

func b64(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }

func TestRulesHideWhatTheySayWhereverItOccurs(t *testing.T) {
	const value = "K4711/x&y"
	quoted, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	multipart := "--b\r\nContent-Disposition: form-data; name=\"kunde\"\r\n\r\n" + value + "\r\n--b--\r\n"
	token := "eyJhbGciOiJIUzI1NiJ9." + base64.RawURLEncoding.EncodeToString([]byte(`{"kunde":`+string(quoted)+`}`)) + ".c2ln"
	for name, test := range map[string]struct {
		point, pattern string
		r              *request.Request
	}{
		"an argument":                  {`[["get","kunde"]]`, "", parse("/?kunde="+url.QueryEscape(value), "", "")},
		"an argument, called query":    {`[["query","kunde"]]`, "", parse("/?kunde="+url.QueryEscape(value), "", "")},
		"a duplicate":                  {`[["get","kunde"]]`, "", parse("/?kunde=other&kunde="+url.QueryEscape(value), "", "")},
		"a part of the path":           {`[["path","1"]]`, "", parse("/kunden/"+url.PathEscape(value)+"/x", "", "")},
		"a header in any case":         {`[["header","x-kunde"]]`, "", parse("/", "", "", "X-KUNDE", value)},
		"a field of json":              {`[["post"],["json_doc"],["hash","a"],["hash","kunde"]]`, "", parse("/", "application/json", `{"a":{"kunde":`+string(quoted)+`}}`)},
		"an object of json":            {`[["post"],["json_doc"],["hash","a"]]`, "", parse("/", "application/json", `{"a":{"kunde":[1,`+string(quoted)+`]}}`)},
		"every field of json":          {`[["post"],["json_doc"],["hash_all"]]`, "", parse("/", "application/json", `{"b":{"kunde":`+string(quoted)+`}}`)},
		"compressed json":              {`[["post"],["json_doc"],["hash","kunde"]]`, "", parse("/", "application/json", gzipped(`{"kunde":`+string(quoted)+`}`), "Content-Encoding", "gzip")},
		"a field of a form":            {`[["post"],["form_urlencoded","kunde"]]`, "", parse("/", form, "kunde="+url.QueryEscape(value))},
		"a part of a multipart form":   {`[["post"],["multipart","kunde"]]`, "", parse("/", "multipart/form-data; boundary=b", multipart)},
		"an element of xml":            {`[["post"],["xml"],["hash","r"],["hash","kunde"]]`, "", parse("/", "text/xml", "<r><kunde>"+html.EscapeString(value)+"</kunde></r>")},
		"an argument of graphql":       {`[["post"],["gql"],["hash","f"],["hash","kunde"]]`, "", parse("/", "application/graphql", "{f(kunde:"+string(quoted)+")}")},
		"a cookie":                     {`[["header","COOKIE"],["cookie","kunde"]]`, "", parse("/", "", "", "Cookie", "a=b; kunde="+value)},
		"a claim of a token":           {`[["header","X-T"],["jwt","jwt_payload"],["base64"],["json_doc"],["hash","kunde"]]`, "", parse("/", "", "", "X-T", token)},
		"base64 that a rule names":     {`[["get","q"],["base64"]]`, "", parse("/?q="+url.QueryEscape(b64(value)), "", "")},
		"the whole body":               {`[["post"]]`, "", parse("/", form, "a="+url.QueryEscape(value))},
		"the whole target":             {`[["uri"]]`, "", parse("/?a="+url.QueryEscape(value)+"&b", "", "")},
		"a name, in the query":         {`[["any","Kunde"]]`, "", parse("/?KUNDE="+url.QueryEscape(value), "", "")},
		"a name, in a header":          {`[["any","x-kunde"]]`, "", parse("/", "", "", "X-Kunde", value)},
		"a name, in json":              {`[["any","kunde"]]`, "", parse("/", "application/json", `[{"a":{"Kunde":`+string(quoted)+`}}]`)},
		"a name, in a cookie":          {`[["any","kunde"]]`, "", parse("/", "", "", "Cookie", "kunde="+value)},
		"a name, in an xml attribute":  {`[["any","kunde"]]`, "", parse("/", "text/xml", `<r kunde="`+html.EscapeString(value)+`"/>`)},
		"a name, in a referer":         {`[["any","kunde"]]`, "", parse("/", "", "", "Referer", "https://x/?kunde="+url.QueryEscape(value))},
		"a pattern":                    {"", `K\d+/x&y`, parse("/?q="+url.QueryEscape("my number is "+value+"!"), "", "")},
		"a pattern, in json":           {"", `K\d+/x&y`, parse("/", "application/json", `{"a":["x `+strings.Trim(string(quoted), `"`)+` y"]}`)},
		"a pattern at a point":         {`[["get","q"]]`, `K\d+/x&y`, parse("/?q="+url.QueryEscape("my number is "+value+"!"), "", "")},
		"a pattern at a name":          {`[["any","q"]]`, `K\d+/x&y`, parse("/?q="+url.QueryEscape("my number is "+value+"!"), "", "")},
		"a pattern in a nested format": {"", `K\d+/x&y`, parse("/?q="+url.QueryEscape(b64(`{"a":`+string(quoted)+`}`)), "", "")},
	} {
		t.Run(name, func(t *testing.T) {
			m := sensitive(t, test.point, test.pattern).Apply(test.r)
			if p := m.Points(); len(p) == 0 && name != "a name, in a referer" {
				t.Error("no point is named")
			}
			for _, text := range []string{
				value, strings.ToUpper(value), url.QueryEscape(value), url.QueryEscape(url.QueryEscape(value)), strings.Trim(string(quoted), `"`), html.EscapeString(value),
				`\u004b4711\/x\x26y`, "%u004b4711/x%26y", b64(value), b64("a" + value), b64("ab" + value + "z"), b64("x" + string(quoted)), b64(gzipped("see " + value)),
				url.QueryEscape(b64(url.QueryEscape("k=" + value))), "eyJhIjoiYiJ9." + base64.RawURLEncoding.EncodeToString([]byte(`{"n":`+string(quoted)+`}`)) + ".x",
				b64("--b\r\nContent-Disposition: form-data; name=\"f\"\r\n\r\n" + value + "\r\n--b--"),
			} {
				for _, out := range outputs(m, test.r, "before "+text+" after", "/a/"+text+"/b") {
					if strings.Contains(out, text) || strings.Contains(out, value) {
						t.Errorf("%q leaves as %q", text, out)
					}
				}
			}
			if got := m.String("nothing of the kind"); got != "nothing of the kind" {
				t.Errorf("what is not sensitive is hidden: %q", got)
			}
		})
	}
}

func TestAShortValueIsHiddenAtItsPointAndInTheTarget(t *testing.T) {
	r := parse("/users/42/x.7?k=42&n=43", form, "n=42")
	m := sensitive(t, `[["get","k"]]`, "").Apply(r)
	for got, want := range map[string]string{
		m.URI(r.Input().URI):                                         "/users/*/x.7?k=*&n=43",
		m.Path("/users/42/x.7"):                                      "/users/*/x.7",
		m.Excerpt(fleet.Point{{"get", "k"}}, "42"):                   "*",
		m.Excerpt(fleet.Point{{"get", "n"}}, "43"):                   "43",
		m.Excerpt(fleet.Point{{"get", "k"}, {"base64"}}, "whatever"): "*",
		m.String("4242"):                                             "4242",
	} {
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	short := sensitive(t, "", `\b\d{3}\b`).Apply(parse("/?k=a+123+b", "", ""))
	if got := short.Excerpt(fleet.Point{{"get", "k"}}, "a 123 b"); got != "*" {
		t.Errorf("a short match: %q", got)
	}
	if got := short.String("code 456 here"); got != "code * here" {
		t.Errorf("another match of the pattern: %q", got)
	}
}

func TestARuleHoldsWhereItsConditionsDo(t *testing.T) {
	rules := []fleet.BundleRule{{ID: "r1", Spec: fleet.RuleSpec{
		Kind: fleet.RuleSensitiveData, Point: fleet.Point{{"get", "q"}}, Conditions: []fleet.RuleCondition{{Type: "equal", Point: "uri", Value: "/a"}},
	}}, {ID: "other", Spec: fleet.RuleSpec{Kind: fleet.RuleRegex, Pattern: "("}}}
	conditions := func(c []fleet.RuleCondition) (func(*request.Request) bool, error) {
		return func(r *request.Request) bool { return r.Path() == c[0].Value }, nil
	}
	s, err := mask.Compile(rules, conditions)
	if err != nil {
		t.Fatal(err)
	}
	for uri, want := range map[string]string{"/a?q=abcdef": "*", "/b?q=abcdef": "abcdef"} {
		if got := s.Apply(parse(uri, "", "")).Excerpt(fleet.Point{{"get", "q"}}, "abcdef"); got != want {
			t.Errorf("%s: %q, want %q", uri, got, want)
		}
	}
	everywhere, err := mask.Compile(rules, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got := everywhere.Apply(parse("/b?q=abcdef", "", "")).Excerpt(fleet.Point{{"get", "q"}}, "abcdef"); got != "*" {
		t.Errorf("without conditions: %q", got)
	}
}

func TestRulesThatCannotHideAreRefused(t *testing.T) {
	for want, spec := range map[string]fleet.RuleSpec{
		"what should be masked":  {},
		"not an RE2":             {Pattern: "("},
		"matches the empty text": {Pattern: "a*"},
		"not an element":         {Point: fleet.Point{{"body"}}},
		"a name in any place":    {Point: fleet.Point{{"any", "a"}, {"base64"}}},
		"needs an argument":      {Point: fleet.Point{{"any"}}},
		`use "get_all"`:          {Point: fleet.Point{{"get_name"}}},
	} {
		spec.Kind = fleet.RuleSensitiveData
		_, err := mask.Compile([]fleet.BundleRule{{ID: "r7", Spec: spec}}, nil)
		if !errors.Is(err, fleet.ErrInvalid) || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), `"r7"`) {
			t.Errorf("%v, want an error about %q", err, want)
		}
	}
}

func TestASampleShowsWhatHidesEachValue(t *testing.T) {
	s := sensitive(t, `[["get","kunde"]]`, "")
	got := s.Test(parse("/a?kunde=K4711&q=see+K4711&n=1&password=hunter2", "application/json", `{"a":`))
	want := []mask.Sample{
		{Point: "uri", Before: "/a?kunde=K4711&q=see+K4711&n=1&password=hunter2", After: "*", By: mask.ByHolding},
		{Point: "path", Before: "/a", After: "/a"},
		{Point: "action_name", Before: "a", After: "a"},
		{Point: "get.kunde", Before: "K4711", After: "*", By: "r1"},
		{Point: "get.q", Before: "see K4711", After: "see *", By: mask.ByText},
		{Point: "get.n", Before: "1", After: "1"},
		{Point: "get.password", Before: "hunter2", After: "*", By: mask.ByDefault},
		{Point: "header.CONTENT-TYPE", Before: "application/json", After: "application/json"},
		{Point: "header.HOST", Before: "shop.example.com", After: "shop.example.com"},
		{Point: "post", Before: `{"a":`, After: "*", By: mask.ByUnparsed},
	}
	want[0].After, want[0].By = "/a?kunde=*&q=see+*&n=1&password=*", mask.ByText
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	var none *mask.Set
	if got := none.Test(parse("/a", "", "")); len(got) == 0 || slices.ContainsFunc(got, func(s mask.Sample) bool { return s.After != "*" || s.By != mask.ByMissing }) {
		t.Errorf("without masks: %+v", got)
	}
}

func TestGapsAreParametersThatLookLikeCredentials(t *testing.T) {
	s := sensitive(t, `[["post"],["json_doc"],["hash","mfaCode"]]`, "")
	field := func(name string) fleet.Point { return fleet.Point{{"post"}, {"json_doc"}, {"hash", name}} }
	got := s.Coverage([]mask.Endpoint{
		{Host: "shop.example.com", Method: "POST", Path: "/login", Parameters: []fleet.Point{field("user"), field("password"), field("mfaCode"), field("recoveryCode"), field("encoded")}},
		{Host: "shop.example.com", Method: "GET", Path: "/x", Parameters: []fleet.Point{{{"query", "mfaCode"}}, {{"get", "page"}}, {{"header", "x-license-key"}}}},
	})
	want := []mask.Gap{
		{Host: "shop.example.com", Method: "POST", Path: "/login", Point: "post.json_doc.hash.recoveryCode", Name: "recoveryCode", Word: "recovery"},
		{Host: "shop.example.com", Method: "GET", Path: "/x", Point: "get.mfaCode", Name: "mfaCode", Word: "mfa"},
		{Host: "shop.example.com", Method: "GET", Path: "/x", Point: "header.X-LICENSE-KEY", Name: "X-LICENSE-KEY", Word: "license"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if got := (*mask.Set)(nil).Coverage([]mask.Endpoint{{Parameters: []fleet.Point{{{"get", "pin"}}}}}); len(got) > 0 {
		t.Errorf("without masks: %v", got)
	}
}

// A text of many words that look like base64 costs no more than it may, and ordinary text stays.
func TestOrdinaryTextStaysReadable(t *testing.T) {
	m := mask.Default().Apply(parse("/?password=hunter2secret", "", ""))
	for _, text := range []string{
		"SELECT name FROM users WHERE id=1 UNION SELECT NULL,version()-- ", "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36", "/blogs/2026/11/an-article-about-shirts.html",
		"550e8400-e29b-41d4-a716-446655440000", strings.Repeat("lorem ipsum dolor sit amet ", 100), "100% sure &amp; more \\n", fmt.Sprint(1.0 / 3),
	} {
		if got := m.String(text); got != text {
			t.Errorf("%q became %q", text, got)
		}
	}
}
