package request_test

import (
	"encoding/base64"
	"net/http"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/edgefleet/edgefleet/fleet/request"
)

func FuzzParse(f *testing.F) {
	for _, seed := range []struct{ uri, contentType, cookie, body string }{
		{"/blogs/123/index.php?q=aaa&q=%2527", form, "a=b; c=%41", "a=1&b=2&a=%257B%22a%22"},
		{"http://u:p@h/?x={\"a\":[1]}", "application/json", "=;=", `{"a":{"b":[1,{"c":"{\"d\":\"e\"}"}]},"a":null}`},
		{"*", "multipart/form-data; boundary=b", "", "--b\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\nx\r\n--b--\r\n"},
		{"", "text/xml", ";;", "<a/>"},
		{"/?a=b&a=Yz1kJmU9Zg==", "text/xml", "a=eyJhbGciOiJIUzI1NiJ9.eyJhIjoiYiJ9.c", `<?xml version="1.0"?><!DOCTYPE a [<!ENTITY e "x">]><a b="c">&e;<d/><d>t</d><!-- c --></a>`},
		{"/?query={a(b:1)}", "application/graphql", "", `mutation M($a:[I!]="x"){b:login(password:"p",c:{d:[1,"""e"""]})@f(g:$a){h...on I{j}...K}} # l`},
		{"/?query=%7Ba(b:1)%7D", "application/json", "", `{"query":"{a(b:\"c\")}","x":"` + base64.StdEncoding.EncodeToString(compressed("hello hello")) + `"}`},
		{"/%", "multipart/form-data; boundary=b", "", "--b\r\nContent-Disposition: form-data; name=\"a\"; filename=\"f\"\r\n\r\nx\r\n--b--\r\n"},
	} {
		f.Add(seed.uri, seed.contentType, seed.cookie, []byte(seed.body))
	}
	lim := request.Limits{Depth: 8, Values: 64, ValueBytes: 1 << 10, Inflated: 4 << 10}
	f.Fuzz(func(t *testing.T, uri, contentType, cookie string, body []byte) {
		in := request.Input{Method: "POST", URI: uri, Header: http.Header{"Content-Type": {contentType}, "Cookie": {cookie, cookie}}, Body: body, Host: "h"}
		r := request.Parse(in, lim)
		size := 0
		for _, v := range r.All() {
			if len(v.Point) == 0 || len(v.Point) > lim.Depth {
				t.Fatalf("point %v of %d elements", v.Point, len(v.Point))
			}
			if len(r.At(v.Point)) == 0 {
				t.Fatalf("nothing at %v", v.Point)
			}
			size += len(v.Raw) + len(v.Value)
		}
		// Each value is no longer than its parent (an invalid byte becomes the 3 of U+FFFD) or was inflated, and points are
		// bounded.
		if limit := 6*(lim.Depth+2)*lim.Inflated + 6*(lim.Depth+2)*(len(uri)+2*len(cookie)+len(body)+len(contentType)+2); len(r.All()) > lim.Values || size > limit {
			t.Fatalf("%d values of %d bytes; the limit is %d", len(r.All()), size, limit)
		}
		if len(r.Problems()) > lim.Values+16 {
			t.Fatalf("%d problems", len(r.Problems()))
		}
		if diff := cmp.Diff(r.All(), request.Parse(in, lim).All()); diff != "" {
			t.Fatalf("two parses differ: %s", diff)
		}
	})
}

func FuzzParsePoint(f *testing.F) {
	f.Add(`[["post"],["json_doc"],["hash","a"]]`)
	f.Add(`[["header","COOKIE"],["cookie","SID"]]`)
	f.Add(`[[]]`)
	f.Fuzz(func(t *testing.T, s string) {
		p, err := request.ParsePoint(s)
		if err != nil {
			return
		}
		if err := request.ValidatePoint(p); err != nil {
			t.Fatalf("the canonical form of %s is refused: %v", s, err)
		}
		request.Parse(request.Input{URI: "/?a=b"}, request.Limits{}).At(p)
	})
}
