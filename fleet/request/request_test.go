package request_test

import (
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/fleet/request"
)

func input(uri, contentType, body string) request.Input {
	h := http.Header{"User-Agent": {"test"}}
	if contentType != "" {
		h.Set("Content-Type", contentType)
	}
	return request.Input{Method: "POST", Scheme: "https", Proto: "HTTP/1.1", Host: "Shop.Example.com:8443", URI: uri, Header: h, Body: []byte(body), Instance: "shop"}
}

const form = "application/x-www-form-urlencoded"

func point(t *testing.T, s string) fleet.Point {
	t.Helper()
	p, err := request.ParsePoint(s)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestValuesAreFoundAtTheirPoints(t *testing.T) {
	multipart := strings.ReplaceAll(`--b
Content-Disposition: form-data; name="note"

hello
--b
Content-Disposition: form-data; name="doc"; filename="../x.php"
Content-Type: text/plain

content
--b--
`, "\n", "\r\n")
	for name, test := range map[string]struct {
		in    request.Input
		point string
		want  []string
	}{
		"a path segment":                          {input("/blogs/123/index.php?q=aaa", "", ""), `[["path","1"]]`, []string{"123"}},
		"the whole path, decoded":                 {input("/a%2fb/c", "", ""), `[["path"]]`, []string{"/a/b/c"}},
		"every path segment":                      {input("/a/b/c", "", ""), `[["path_all"]]`, []string{"a", "b"}},
		"the action's name":                       {input("/blogs/123/index.php?q=aaa", "", ""), `[["action_name"]]`, []string{"index"}},
		"the action's extension":                  {input("/blogs/123/index.php?q=aaa", "", ""), `[["action_ext"]]`, []string{"php"}},
		"no extension":                            {input("/blogs/", "", ""), `[["action_ext"]]`, nil},
		"an absolute target":                      {input("http://u:p@host/a/b.c?q=1", "", ""), `[["path"]]`, []string{"/a/b.c"}},
		"a decoded argument":                      {input("/?q=a+b%27", "", ""), `[["get","q"]]`, []string{"a b'"}},
		"query as a spelling of get":              {input("/?q=1", "", ""), `[["query","q"]]`, []string{"1"}},
		"both values of a duplicate":              {input("/?q=1&q=2", "", ""), `[["get","q"]]`, []string{"1", "2"}},
		"one value of a duplicate":                {input("/?q=1&q=2", "", ""), `[["get","q"],["array","1"]]`, []string{"2"}},
		"every argument":                          {input("/?a=1&b=2", "", ""), `[["get_all"]]`, []string{"1", "2"}},
		"the names of arguments":                  {input("/?a=1&b=2&a=3", "", ""), `[["get_name"]]`, []string{"a", "b"}},
		"a doubly encoded argument":               {input("/?q=%2527", "", ""), `[["get","q"],["percent"]]`, []string{"'"}},
		"json in an argument":                     {input("/?q=%7B%22a%22:%22b%22%7D", "", ""), `[["get","q"],["json_doc"],["hash","a"]]`, []string{"b"}},
		"a header in any case":                    {input("/", "", ""), `[["header","user-agent"]]`, []string{"test"}},
		"the host header":                         {input("/", "", ""), `[["header","HOST"]]`, []string{"Shop.Example.com:8443"}},
		"the raw body":                            {input("/", form, "a=1"), `[["post"]]`, []string{"a=1"}},
		"a form field":                            {input("/", form+"; charset=utf-8", "a=1&b=%32"), `[["post"],["form_urlencoded","b"]]`, []string{"2"}},
		"a form without a content type":           {input("/", "", "a=1"), `[["post"],["form_urlencoded","a"]]`, []string{"1"}},
		"a json field":                            {input("/", "application/json", `{"a":{"b":[1,"x\u0041",true]}}`), `[["post"],["json_doc"],["hash","a"],["hash","b"],["array","1"]]`, []string{"xA"}},
		"a json number":                           {input("/", "application/vnd.api+json", `{"n": 12345678901234567890}`), `[["post"],["json_doc"],["hash","n"]]`, []string{"12345678901234567890"}},
		"both values of a duplicate json key":     {input("/", "application/json", `{"a":1,"a":2}`), `[["post"],["json_doc"],["hash","a"]]`, []string{"1", "2"}},
		"json that calls itself text":             {input("/", "text/plain", `{"a":"b"}`), `[["post"],["json_doc"],["hash","a"]]`, []string{"b"}},
		"json inside a json string":               {input("/", "application/json", `{"a":"{\"b\":\"c\"}"}`), `[["post"],["json_doc"],["hash","a"],["json_doc"],["hash","b"]]`, []string{"c"}},
		"a multipart field":                       {input("/", "multipart/form-data; boundary=b", multipart), `[["post"],["multipart","note"]]`, []string{"hello"}},
		"the name of a multipart file, unchanged": {input("/", "multipart/form-data; boundary=b", multipart), `[["post"],["multipart","doc"],["file_name"]]`, []string{"../x.php"}},
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

func TestCookiesOfSeveralHeadersAreFound(t *testing.T) {
	in := input("/", "", "")
	in.Header["Cookie"] = []string{`SID=abc; theme="dark"`, "SID=def"}
	r := request.Parse(in, request.Limits{})
	var got []string
	for _, v := range r.At(point(t, `[["header","COOKIE"],["cookie","SID"]]`)) {
		got = append(got, request.PointString(v.Point)+"="+v.Value)
	}
	want := []string{"header.COOKIE.array.0.cookie.SID=abc", "header.COOKIE.array.1.cookie.SID=def"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestWhatIsNotParsedIsAProblem(t *testing.T) {
	deep := strings.Repeat("[", 100) + strings.Repeat("]", 100)
	truncated := input("/", form, "a=1")
	truncated.Truncated = true
	gzipped := input("/", form, "a=1")
	gzipped.Header.Set("Content-Encoding", "gzip")
	brotli := input("/", form, "a=1")
	brotli.Header.Set("Content-Encoding", "br")
	twoTypes := input("/", form, "a=1")
	twoTypes.Header.Add("Content-Type", "application/json")
	for name, test := range map[string]struct {
		in   request.Input
		lim  request.Limits
		want request.Problem
	}{
		"a truncated body":            {truncated, request.Limits{}, request.Problem{Point: fleet.Point{{"post"}}, Reason: request.ReasonTruncated}},
		"not compressed as it says":   {gzipped, request.Limits{}, request.Problem{Point: fleet.Point{{"post"}}, Reason: request.ReasonUnparsable}},
		"an encoding without parser":  {brotli, request.Limits{}, request.Problem{Point: fleet.Point{{"post"}}, Reason: request.ReasonNoParser}},
		"a body of two types":         {twoTypes, request.Limits{}, request.Problem{Point: fleet.Point{{"post"}}, Reason: request.ReasonNoParser}},
		"broken json":                 {input("/", "application/json", `{"a":`), request.Limits{}, request.Problem{Point: fleet.Point{{"post"}}, Reason: request.ReasonUnparsable}},
		"text":                        {input("/", "text/plain", `hello`), request.Limits{}, request.Problem{Point: fleet.Point{{"post"}}, Reason: request.ReasonNoParser}},
		"multipart sent as a form":    {input("/", form, "--b\r\nname=\"password\"\r\n\r\nx"), request.Limits{}, request.Problem{Point: fleet.Point{{"post"}}, Reason: request.ReasonUnparsable}},
		"multipart without a part":    {input("/", "multipart/form-data; boundary=b", "nothing"), request.Limits{}, request.Problem{Point: fleet.Point{{"post"}}, Reason: request.ReasonUnparsable}},
		"multipart without boundary":  {input("/", "multipart/form-data", "nothing"), request.Limits{}, request.Problem{Point: fleet.Point{{"post"}}, Reason: request.ReasonUnparsable}},
		"json over the depth":         {input("/", "application/json", deep), request.Limits{}, request.Problem{Point: fleet.Point{{"post"}}, Reason: request.ReasonTooDeep}},
		"more arguments than allowed": {input("/?"+strings.Repeat("a=1&", 50), "", ""), request.Limits{Values: 20}, request.Problem{Point: fleet.Point{{"get"}}, Reason: request.ReasonTooManyValues}},
		"a value over the limit":      {input("/?q="+strings.Repeat("a", 50), "", ""), request.Limits{ValueBytes: 20}, request.Problem{Point: fleet.Point{{"get", "q"}}, Reason: request.ReasonTooLong}},
	} {
		t.Run(name, func(t *testing.T) {
			problems := request.Parse(test.in, test.lim).Problems()
			if len(problems) == 0 {
				t.Fatal("no problem was recorded")
			}
			if diff := cmp.Diff(test.want, problems[0]); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestJSONIsReadUpToWhereItWasCutOff(t *testing.T) {
	for name, test := range map[string]struct {
		body string
		want []string
	}{
		"between two fields":         {`{"a":"x","b":[1,{"c":"y"}],`, []string{"x", "1", "y"}},
		"in a text":                  {`{"a":"x","b":"it\u0027s pa`, []string{"x", "it's pa"}},
		"in an escape":               {`{"a":"x","b":"two\u00`, []string{"x", "two"}},
		"in a name":                  {`{"a":"x","b`, []string{"x"}},
		"in a number":                {`{"a":"x","b":12`, []string{"x", "12"}},
		"behind what is not JSON":    {`{"a":"x" "b":"y",`, []string{"x"}},
		"at once":                    {`{`, nil},
		"in a text, after its quote": {`["`, []string{""}},
	} {
		t.Run(name, func(t *testing.T) {
			in := input("/", "application/json", test.body)
			in.Truncated = true
			r := request.Parse(in, request.Limits{})
			var got []string
			for _, v := range r.All() {
				if v.Point[0][0] == "post" && len(v.Point) > 1 {
					got = append(got, v.Value)
				}
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Error(diff)
			}
			if len(r.Problems()) != 2 {
				t.Errorf("problems %v, want truncated and unparsable", r.Problems())
			}
		})
	}
}

// Four texts inside each other, each percent-encoded eighteen times, have thousands of readings.
func TestASmallRequestDoesNotUnfoldIntoALargeOne(t *testing.T) {
	nested := strings.Repeat("a", 30<<10) + "%" + strings.Repeat("25", 18)
	for range 4 {
		b, err := json.Marshal([]string{nested})
		if err != nil {
			t.Fatal(err)
		}
		nested = string(b)
	}
	r := request.Parse(input("/", "application/json", nested), request.Limits{})
	total := 0
	for _, v := range r.All() {
		total += len(v.Value)
	}
	if limit := 8*len(nested) + 128<<10; total > limit {
		t.Errorf("a body of %d bytes became values of %d bytes, more than %d", len(nested), total, limit)
	}
	if len(r.At(point(t, `[["post"],["json_doc"],["array","0"],["json_doc"],["array","0"]]`))) != 1 {
		t.Error("the outer texts are not read any more")
	}
	want := request.Problem{Point: fleet.Point{{"post"}}, Reason: request.ReasonTooManyValues}
	if !slices.ContainsFunc(r.Problems(), func(p request.Problem) bool { return cmp.Equal(p, want) }) {
		t.Errorf("problems %v, want %v among them", r.Problems(), want)
	}
}

func TestAttributesOfConditions(t *testing.T) {
	r := request.Parse(input("/blogs/123/ind%65x.php?q=aaa", "", ""), request.Limits{})
	for attribute, want := range map[string]string{
		"host": "shop.example.com", "method": "POST", "scheme": "https", "proto": "HTTP/1.1", "instance": "shop",
		"uri": "/blogs/123/index.php?q=aaa", "path[0]": "blogs", "path[1]": "123", "action_name": "index", "action_ext": "php",
		"query[q]": "aaa", "get[q]": "aaa", "header[user-agent]": "test",
	} {
		got, present, err := r.Attribute(attribute)
		if err != nil || !present || got != want {
			t.Errorf("%s = %q, %v, %v; want %q", attribute, got, present, err, want)
		}
	}
	for _, absent := range []string{"path[2]", "query[x]", "header[X-None]"} {
		if got, present, err := r.Attribute(absent); err != nil || present {
			t.Errorf("%s = %q, %v, %v; want it absent", absent, got, present, err)
		}
	}
	for _, unknown := range []string{"", "cookie", "path", "path[-1]", "path[01]", "query", "query[", "query[]", "host[x]"} {
		if err := request.ValidateAttribute(unknown); !errors.Is(err, fleet.ErrInvalid) {
			t.Errorf("attribute %q: %v, want an invalid error", unknown, err)
		}
	}
}

func TestPointsThatMakeNoSenseAreRefused(t *testing.T) {
	for point, want := range map[string]string{
		`[]`:                                    "0 elements",
		`x`:                                     "is not a point",
		`[["get"]]`:                             "needs an argument",
		`[["get","a","b"]]`:                     "at most one argument",
		`[["body"]]`:                            "not an element of a point",
		`[["json_doc"]]`:                        "cannot start a point",
		`[["post"],["get","a"]]`:                "starts a point",
		`[["get","a"],["hash","b"]]`:            "cannot follow",
		`[["post"],["yaml"]]`:                   "not an element of a point",
		`[["get","a"],["jwt"]]`:                 "one of jwt_header",
		`[["get","a"],["jwt","payload"]]`:       "one of jwt_header",
		`[["post"],["pollution"]]`:              "cannot follow",
		`[["path","x"]]`:                        "a number from 0",
		`[["get_all","x"]]`:                     "takes no argument",
		`[["post_all"]]`:                        "takes no argument",
		`[["get_name"],["json_doc"]]`:           "last element",
		`[["post","x"]]`:                        "takes no argument",
		`[["post"],["json_doc"],["array","a"]]`: "a number from 0",
	} {
		_, err := request.ParsePoint(point)
		if !errors.Is(err, fleet.ErrInvalid) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want an error about %q", point, err, want)
		}
	}
}
