package request_test

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/fleet/request"
)

func compressed(s string) []byte {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, _ = z.Write([]byte(s))
	_ = z.Close()
	return b.Bytes()
}

func b64(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }

// jwt makes a token whose signature is no text.
func jwt(payload string) string {
	e := base64.RawURLEncoding
	return e.EncodeToString([]byte(`{"alg":"HS256"}`)) + "." + e.EncodeToString([]byte(payload)) + "." + e.EncodeToString([]byte("\xff\x00\x01signature"))
}

func withHeader(in request.Input, name, value string) request.Input {
	in.Header.Set(name, value)
	return in
}

func TestFormatsThatAreReadWithoutBeingAskedFor(t *testing.T) {
	const soap = `<?xml version="1.0"?><s:Envelope xmlns:s="x"><s:Body id="7"><user>bob</user><item>a</item><item>b<i/></item><p>se<!-- c -->cret &amp; x</p><q><![CDATA[<b>]]></q></s:Body></s:Envelope>`
	const query = `query Q($id: [ID!]! = "d" @x, $n: Int) { user: account(id: "7", where: {name: "bob", tags: ["a", "b"]}) @include(if: $n) { posts(first: 5) { title } ...F ... on T { f(a: """block "q" """) } } } fragment F on T { g(enum: RED) }`
	for name, test := range map[string]struct {
		in    request.Input
		point string
		want  []string
	}{
		"an element of xml":                    {input("/", "text/xml", soap), `[["post"],["xml"],["hash","Envelope"],["hash","Body"],["hash","user"]]`, []string{"bob"}},
		"xml of another type":                  {input("/", "application/soap+xml; charset=utf-8", soap), `[["post"],["xml"],["hash","Envelope"],["hash","Body"],["hash","user"]]`, []string{"bob"}},
		"xml that calls itself text":           {input("/", "text/plain", soap), `[["post"],["xml"],["hash","Envelope"],["hash","Body"],["hash","user"]]`, []string{"bob"}},
		"an attribute":                         {input("/", "text/xml", soap), `[["post"],["xml"],["hash","Envelope"],["hash","Body"],["hash","@id"]]`, []string{"7"}},
		"every element of a name":              {input("/", "text/xml", soap), `[["post"],["xml"],["hash","Envelope"],["hash","Body"],["hash","item"]]`, []string{"a", "b"}},
		"the second element of a name":         {input("/", "text/xml", soap), `[["post"],["xml"],["hash","Envelope"],["hash","Body"],["hash","item"],["array","1"]]`, []string{"b"}},
		"a text around a comment, unescaped":   {input("/", "text/xml", soap), `[["post"],["xml"],["hash","Envelope"],["hash","Body"],["hash","p"]]`, []string{"secret & x"}},
		"a comment":                            {input("/", "text/xml", soap), `[["post"],["xml"],["hash","Envelope"],["hash","Body"],["hash","p"],["hash","#comment"]]`, []string{" c "}},
		"character data":                       {input("/", "text/xml", soap), `[["post"],["xml"],["hash","Envelope"],["hash","Body"],["hash","q"]]`, []string{"<b>"}},
		"base64 in an argument":                {input("/?q="+b64("' or 1=1 --"), "", ""), `[["get","q"],["base64"]]`, []string{"' or 1=1 --"}},
		"base64 for urls":                      {input("/?q="+base64.RawURLEncoding.EncodeToString([]byte("<script>~~~</script>")), "", ""), `[["get","q"],["base64"]]`, []string{"<script>~~~</script>"}},
		"base64 with spaces for plus signs":    {input("/?q="+b64("ab>~cd>~ef>~"), "", ""), `[["get","q"],["base64"]]`, []string{"ab>~cd>~ef>~"}},
		"json in base64":                       {input("/?q="+b64(`{"a":"b"}`), "", ""), `[["get","q"],["base64"],["json_doc"],["hash","a"]]`, []string{"b"}},
		"json in base64 in json":               {input("/", "application/json", `{"x":"`+b64(`{"a":"b"}`)+`"}`), `[["post"],["json_doc"],["hash","x"],["base64"],["json_doc"],["hash","a"]]`, []string{"b"}},
		"basic credentials":                    {withHeader(input("/", "", ""), "Authorization", "Basic "+b64("user:secret")), `[["header","AUTHORIZATION"],["base64"]]`, []string{"user:secret"}},
		"base64 in a cookie":                   {withHeader(input("/", "", ""), "Cookie", "a="+b64("some text")), `[["header","COOKIE"],["cookie","a"],["base64"]]`, []string{"some text"}},
		"gzip in base64":                       {input("/?q="+strings.ReplaceAll(base64.StdEncoding.EncodeToString(compressed(`{"a":"b"}`)), "+", "%2B"), "", ""), `[["get","q"],["base64"],["gzip"],["json_doc"],["hash","a"]]`, []string{"b"}},
		"a claim of a bearer token":            {withHeader(input("/", "", ""), "Authorization", "Bearer "+jwt(`{"name":"bob"}`)), `[["header","AUTHORIZATION"],["jwt","jwt_payload"],["base64"],["json_doc"],["hash","name"]]`, []string{"bob"}},
		"the algorithm of a token":             {input("/?t="+jwt(`{"name":"bob"}`), "", ""), `[["get","t"],["jwt","jwt_header"],["base64"],["json_doc"],["hash","alg"]]`, []string{"HS256"}},
		"a compressed form":                    {withHeader(input("/", form, string(compressed("a=1&b=2"))), "Content-Encoding", "gzip"), `[["post"],["gzip"],["form_urlencoded","b"]]`, []string{"2"}},
		"a compressed form, not named":         {withHeader(input("/", form, string(compressed("a=1&b=2"))), "Content-Encoding", "GZIP"), `[["post"],["form_urlencoded","b"]]`, []string{"2"}},
		"compressed json":                      {withHeader(input("/", "application/json", string(compressed(`{"a":"b"}`))), "Content-Encoding", "x-gzip"), `[["post"],["json_doc"],["hash","a"]]`, []string{"b"}},
		"an argument of graphql":               {input("/", "application/graphql", query), `[["post"],["gql"],["hash","account"],["hash","id"]]`, []string{"7"}},
		"an object in graphql":                 {input("/", "application/graphql", query), `[["post"],["gql"],["hash","account"],["hash","where"],["hash","name"]]`, []string{"bob"}},
		"a list in graphql":                    {input("/", "application/graphql", query), `[["post"],["gql"],["hash","account"],["hash","where"],["hash","tags"],["array","1"]]`, []string{"b"}},
		"an inner field of graphql":            {input("/", "application/graphql", query), `[["post"],["gql"],["hash","account"],["hash","posts"],["hash","first"]]`, []string{"5"}},
		"an inline fragment":                   {input("/", "application/graphql", query), `[["post"],["gql"],["hash","account"],["hash","f"],["hash","a"]]`, []string{`block "q" `}},
		"a fragment":                           {input("/", "application/graphql", query), `[["post"],["gql"],["hash","g"],["hash","enum"]]`, []string{"RED"}},
		"a variable's default":                 {input("/", "application/graphql", query), `[["post"],["gql"],["hash","$id"]]`, []string{"d"}},
		"graphql in json":                      {input("/", "application/json", `{"query":"mutation { login(password: \"x\\\"y\") { id } }"}`), `[["post"],["json_doc"],["hash","query"],["gql"],["hash","login"],["hash","password"]]`, []string{`x"y`}},
		"graphql in an argument":               {input("/?query=%7Ba(b:1)%7D", "", ""), `[["get","query"],["gql"],["hash","a"],["hash","b"]]`, []string{"1"}},
		"duplicates together":                  {input("/?a=1&b=x&a=2", "", ""), `[["get","a"],["pollution"]]`, []string{"1,2"}},
		"duplicates of a form together":        {input("/", form, "a=%31&a=2&a=3"), `[["post"],["form_urlencoded","a"],["pollution"]]`, []string{"1,2,3"}},
		"duplicates do not contain each other": {input("/?a=1&b=x&a=2", "", ""), `[["get","a"]]`, []string{"1", "2"}},
	} {
		t.Run(name, func(t *testing.T) {
			r := request.Parse(test.in, request.Limits{})
			var got []string
			for _, v := range r.At(point(t, test.point)) {
				got = append(got, v.Value)
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("values at %s (-want +got):\n%s", test.point, diff)
			}
			if p := r.Problems(); len(p) > 0 {
				t.Errorf("problems: %v", p)
			}
		})
	}
}

func TestFormatsThatAreReadWhereARuleNamesThem(t *testing.T) {
	for name, test := range map[string]struct {
		in    request.Input
		point string
		want  []string
	}{
		"base64 that is no text":        {input("/?q=AAECAw==", "", ""), `[["get","q"],["base64"]]`, []string{"\x00\x01\x02\x03"}},
		"short base64":                  {input("/?q=YQ", "", ""), `[["get","q"],["base64"]]`, []string{"a"}},
		"json in short base64":          {input("/?q=WzFd", "", ""), `[["get","q"],["base64"],["json_doc"],["array","0"]]`, []string{"1"}},
		"only one of two is text":       {input("/?q=AAECAw==&q="+b64("some text"), "", ""), `[["get","q"],["base64"]]`, []string{"some text", "\x00\x01\x02\x03"}},
		"percent in a header":           {withHeader(input("/", "", ""), "X-A", "%41"), `[["header","X-A"],["percent"]]`, []string{"A"}},
		"a form in a header":            {withHeader(input("/", "", ""), "X-A", "a=%41&b=c"), `[["header","X-A"],["form_urlencoded","a"]]`, []string{"A"}},
		"xml in an argument":            {input("/?q=%3Ca%3Eb%3C/a%3E", "", ""), `[["get","q"],["xml"],["hash","a"]]`, []string{"b"}},
		"graphql under another name":    {input("/?q=%7Ba(b:1)%7D", "", ""), `[["get","q"],["gql"],["hash","a"],["hash","b"]]`, []string{"1"}},
		"json in the path":              {input("/x/%7B%22a%22:1%7D/y", "", ""), `[["path","1"],["json_doc"],["hash","a"]]`, []string{"1"}},
		"a token of an unknown kind":    {input("/?t=e30.e30.x", "", ""), `[["get","t"],["jwt","jwt_payload"]]`, []string{"e30"}},
		"what is not in the format":     {input("/?q=%7B", "", ""), `[["get","q"],["json_doc"],["hash","a"]]`, nil},
		"the names below a named one":   {input("/?q=WzFd", "", ""), `[["get","q"],["base64"],["json_doc"],["array_name"]]`, []string{"0"}},
		"a duplicate in another format": {input("/?q=1&q=%2541", "", ""), `[["get","q"],["array","1"],["percent"]]`, []string{"A"}},
	} {
		t.Run(name, func(t *testing.T) {
			r := request.Parse(test.in, request.Limits{})
			before := len(r.All())
			var got []string
			for _, v := range r.At(point(t, test.point)) {
				got = append(got, v.Value)
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("values at %s (-want +got):\n%s", test.point, diff)
			}
			if len(r.All()) != before {
				t.Error("the request has changed")
			}
		})
	}
}

func TestUnderAPointIsWhatItHolds(t *testing.T) {
	r := request.Parse(withHeader(input("/?card=1&card=2", "application/json", string(compressed(`{"card":{"no":"41","cvv":[1]},"cards":3}`))), "Content-Encoding", "gzip"), request.Limits{})
	for p, want := range map[string][]string{
		`[["post"],["json_doc"],["hash","card"]]`: {"41", "1"},
		`[["get","card"]]`:                        {"1", "2", "1,2"},
	} {
		var got []string
		for _, v := range r.Under(point(t, p)) {
			got = append(got, v.Value)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: %s", p, diff)
		}
	}
}

func TestOrdinaryWordsAreNotTakenForOtherFormats(t *testing.T) {
	for _, v := range []string{
		"password", "12345678", "8f14e45fceea167a5a36dedd4bea2543", "checkout", "deadbeefdeadbeef", "hello+world+again", "aaaaaaaa", "/blogs/123/index", "a.b.c",
		"www.example.com", "2026-11-22", "550e8400-e29b-41d4-a716-446655440000", "query", "<b>bold</b>", "100%25+sure",
	} {
		r := request.Parse(input("/?query="+v, "", ""), request.Limits{})
		for _, found := range r.All() {
			if found.Point[0][0] == "get" && len(found.Point) > 1 {
				t.Errorf("%s holds %q at %s", v, found.Value, request.PointString(found.Point))
			}
		}
	}
}

func TestWhatUnfoldsIsStopped(t *testing.T) {
	bomb := compressed(strings.Repeat("a=1&", 1<<20))
	ratio := compressed(`{"a":"` + strings.Repeat("x", 900<<10) + `"}`)
	laughs := `<?xml version="1.0"?><!DOCTYPE l [<!ENTITY a "lol"><!ENTITY b "&a;&a;&a;"><!ENTITY % c SYSTEM "file:///etc/passwd">]><l>&b;</l>`
	many := strings.Repeat("a=1&", 100_000)
	for name, test := range map[string]struct {
		in   request.Input
		want request.Problem
	}{
		"a gzip bomb":              {withHeader(input("/", form, string(bomb)), "Content-Encoding", "gzip"), request.Problem{Point: fleet.Point{{"post"}}, Reason: request.ReasonInflated}},
		"a ratio that no text has": {withHeader(input("/", "application/json", string(ratio)), "Content-Encoding", "gzip"), request.Problem{Point: fleet.Point{{"post"}}, Reason: request.ReasonInflated}},
		"broken gzip":              {withHeader(input("/", form, string(compressed("a=1")[:20])), "Content-Encoding", "gzip"), request.Problem{Point: fleet.Point{{"post"}}, Reason: request.ReasonUnparsable}},
		"entities of xml":          {input("/", "text/xml", laughs), request.Problem{Point: fleet.Point{{"post"}}, Reason: request.ReasonEntities}},
		"an entity not declared":   {input("/", "text/xml", `<a>&b;</a>`), request.Problem{Point: fleet.Point{{"post"}}, Reason: request.ReasonUnparsable}},
		"deep xml":                 {input("/", "text/xml", strings.Repeat("<a>", 10_000)+strings.Repeat("</a>", 10_000)), request.Problem{Point: fleet.Point{{"post"}}, Reason: request.ReasonTooDeep}},
		"xml of many elements":     {input("/", "text/xml", "<a>"+strings.Repeat("<b/>", 10_000)+"</a>"), request.Problem{Point: fleet.Point{{"post"}}, Reason: request.ReasonTooManyValues}},
		"xml without an end":       {input("/", "text/xml", "<a><b>"), request.Problem{Point: fleet.Point{{"post"}}, Reason: request.ReasonUnparsable}},
		"xml of another charset":   {input("/", "text/xml", `<?xml version="1.0" encoding="utf-16"?><a/>`), request.Problem{Point: fleet.Point{{"post"}}, Reason: request.ReasonUnparsable}},
		"broken graphql":           {input("/", "application/graphql", `{ a(b: }`), request.Problem{Point: fleet.Point{{"post"}}, Reason: request.ReasonUnparsable}},
		"deep graphql":             {input("/", "application/graphql", strings.Repeat("{a", 10_000)), request.Problem{Point: fleet.Point{{"post"}}, Reason: request.ReasonTooDeep}},
		"deep fragments":           {input("/", "application/graphql", strings.Repeat("{...", 10_000)), request.Problem{Point: fleet.Point{{"post"}}, Reason: request.ReasonTooDeep}},
		"a deep list":              {input("/", "application/graphql", "{a(b:"+strings.Repeat("[", 10_000)), request.Problem{Point: fleet.Point{{"post"}}, Reason: request.ReasonTooDeep}},
		"deep json":                {input("/", "application/json", strings.Repeat(`{"a":`, 5_000)+"1"+strings.Repeat("}", 5_000)), request.Problem{Point: fleet.Point{{"post"}}, Reason: request.ReasonTooDeep}},
		"too many arguments":       {input("/?"+many, "", ""), request.Problem{Point: fleet.Point{{"get"}}, Reason: request.ReasonTooManyValues}},
		"too many fields":          {input("/", form, many), request.Problem{Point: fleet.Point{{"post"}}, Reason: request.ReasonTooManyValues}},
	} {
		t.Run(name, func(t *testing.T) {
			r := request.Parse(test.in, request.Limits{})
			if !slices.ContainsFunc(r.Problems(), func(p request.Problem) bool { return cmp.Equal(p, test.want) }) {
				t.Errorf("problems %v, want %v among them", r.Problems(), test.want)
			}
			total := 0
			for _, v := range r.All() {
				total += len(v.Value)
			}
			if limit := 8*(len(test.in.Body)+len(test.in.URI)) + 4<<20; total > limit {
				t.Errorf("%d bytes of values of a request of %d", total, len(test.in.Body)+len(test.in.URI))
			}
			for _, p := range r.Problems() {
				if !slices.Contains(request.Reasons, p.Reason) {
					t.Errorf("the reason %q is not listed", p.Reason)
				}
			}
		})
	}
}

func TestEntitiesStayAsTheyAreWritten(t *testing.T) {
	r := request.Parse(input("/", "text/xml", `<!DOCTYPE l [<!ENTITY a SYSTEM "file:///etc/passwd">]><l>x&a;y</l>`), request.Limits{})
	for p, want := range map[string]string{
		`[["post"],["xml"],["hash","l"]]`:        "x&a;y",
		`[["post"],["xml"],["hash","#doctype"]]`: `DOCTYPE l [<!ENTITY a SYSTEM "file:///etc/passwd">]`,
	} {
		if got := r.At(point(t, p)); len(got) != 1 || got[0].Value != want {
			t.Errorf("%s: %v, want %q", p, got, want)
		}
	}
}

// What comes before the end of a body that was cut off is read in every format.
func TestABodyThatWasCutOffIsReadUpToThere(t *testing.T) {
	whole := compressed(`{"a":"x","b":"` + strings.Repeat(fmt.Sprint(1.0/3), 500) + `"}`)
	for name, test := range map[string]struct {
		in    request.Input
		point string
	}{
		"xml":             {input("/", "text/xml", `<r><a>x</a><b>y`), `[["post"],["xml"],["hash","r"],["hash","a"]]`},
		"graphql":         {input("/", "application/graphql", `{f(a:"x",b:"y`), `[["post"],["gql"],["hash","f"],["hash","a"]]`},
		"multipart":       {input("/", "multipart/form-data; boundary=b", "--b\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\nx\r\n--b\r\nContent-Dispo"), `[["post"],["multipart","a"]]`},
		"compressed json": {withHeader(input("/", "application/json", string(whole[:len(whole)-12])), "Content-Encoding", "gzip"), `[["post"],["json_doc"],["hash","a"]]`},
	} {
		t.Run(name, func(t *testing.T) {
			test.in.Truncated = true
			r := request.Parse(test.in, request.Limits{})
			if got := r.At(point(t, test.point)); len(got) != 1 || got[0].Value != "x" {
				t.Errorf("got %v, want x", got)
			}
			want := request.Problem{Point: fleet.Point{{"post"}}, Reason: request.ReasonTruncated}
			if !slices.ContainsFunc(r.Problems(), func(p request.Problem) bool { return cmp.Equal(p, want) }) {
				t.Errorf("problems %v, want %v among them", r.Problems(), want)
			}
		})
	}
}
