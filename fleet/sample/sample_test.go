package sample_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/fleet/sample"
)

func TestARequestIsReadAsItGoesOverTheWire(t *testing.T) {
	for name, test := range map[string]struct {
		raw  string
		want sample.Request
	}{
		"a get":                           {"GET /a?b=c HTTP/1.1\r\nHost: shop.example.com\r\nX-A: 1\r\n\r\n", sample.Request{Method: "GET", URI: "/a?b=c", Header: http.Header{"X-A": {"1"}}}},
		"with newlines alone, to the end": {"POST / HTTP/1.1\nHost: shop.example.com\nContent-Type: text/plain\n\na\r\n\r\nb", sample.Request{Method: "POST", URI: "/", Header: http.Header{"Content-Type": {"text/plain"}}, Body: []byte("a\r\n\r\nb")}},
		"with a length":                   {"POST / HTTP/1.1\r\nHost: shop.example.com\r\nContent-Length: 3\r\n\r\nabc\n", sample.Request{Method: "POST", URI: "/", Header: http.Header{"Content-Length": {"3"}}, Body: []byte("abc")}},
		"in chunks":                       {"POST / HTTP/1.1\r\nHost: shop.example.com\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", sample.Request{Method: "POST", URI: "/", Body: []byte("abc")}},
		"without a body or an empty line": {"GET / HTTP/1.1\nHost: shop.example.com", sample.Request{Method: "GET", URI: "/"}},
	} {
		test.want.Scheme, test.want.Proto, test.want.Host = "https", "HTTP/1.1", "shop.example.com"
		got, err := sample.Raw([]byte(test.raw))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if diff := cmp.Diff(test.want, got, cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
	for name, raw := range map[string]string{
		"prose": "hello", "nothing": "", "a short body": "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 30\r\n\r\nabc", "a bad chunk": "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
		"too much": "GET / HTTP/1.1\r\n\r\n" + strings.Repeat("a", sample.MaxBytes),
	} {
		if _, err := sample.Raw([]byte(raw)); err == nil || fleet.AsError(err).Field != "request" {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestACommandLineOfCurlIsARequest(t *testing.T) {
	header := func(more ...string) http.Header {
		h := http.Header{"User-Agent": {"curl"}, "Accept": {"*/*"}}
		for i := 0; i < len(more); i += 2 {
			h[more[i]] = []string{more[i+1]}
		}
		return h
	}
	const form = "application/x-www-form-urlencoded"
	for line, want := range map[string]sample.Request{
		`curl https://shop.example.com`:                                                                        {Method: "GET", URI: "/", Header: header()},
		`curl -sSL 'https://shop.example.com/a?q=1 2' -k --max-time 3`:                                         {},
		`curl -ksS "https://shop.example.com/a?q=%27" -A Mozilla -e https://x/`:                                {Method: "GET", URI: "/a?q=%27", Header: header("User-Agent", "Mozilla", "Referer", "https://x/")},
		`curl -XDELETE https://shop.example.com/a`:                                                             {Method: "DELETE", URI: "/a", Header: header()},
		"curl 'https://shop.example.com/a' \\\n  -H 'X-A: it'\\''s' \\\n  --data-raw $'a=\\'b\\u0041\\x42\\n'": {Method: "POST", URI: "/a", Header: header("X-A", "it's", "Content-Type", form, "Content-Length", "7"), Body: []byte("a='bAB\n")},
		`curl https://shop.example.com/ -d a=1 -d "b=\"2\""`:                                                   {Method: "POST", URI: "/", Header: header("Content-Type", form, "Content-Length", "9"), Body: []byte(`a=1&b="2"`)},
		`curl -G https://shop.example.com/?x=1 --data-urlencode 'q=a b&c'`:                                     {Method: "GET", URI: "/?x=1&q=a+b%26c", Header: header()},
		`curl --json '{"a":1}' https://shop.example.com/ -X PUT`:                                               {Method: "PUT", URI: "/", Header: header("Content-Type", "application/json", "Accept", "application/json", "Content-Length", "7"), Body: []byte(`{"a":1}`)},
		`curl -I https://127.0.0.1:8443/ -H 'Host: shop.example.com' -b a=b -u u:p`:                            {Method: "HEAD", URI: "/", Header: header("Cookie", "a=b", "Authorization", "Basic dTpw")},
		`curl https://shop.example.com/ -H 'Accept:' -H 'X-Empty;' --compressed --http2`:                       {Method: "GET", URI: "/", Proto: "HTTP/2.0", Header: http.Header{"User-Agent": {"curl"}, "X-Empty": {""}, "Accept-Encoding": {"deflate, gzip, br, zstd"}}},
	} {
		got, err := sample.Curl(line)
		if want.Method == "" {
			if err == nil {
				t.Errorf("%s: a URL with a space was accepted: %+v", line, got)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", line, err)
			continue
		}
		want.Scheme, want.Host = "https", "shop.example.com"
		if want.Proto == "" {
			want.Proto = "HTTP/1.1"
		}
		if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("%s: %s", line, diff)
		}
	}
	for name, line := range map[string]string{
		"not curl": "wget https://a", "nothing": "", "no URL": "curl -s", "two URLs": "curl https://a https://b", "a file": "curl https://a -d @/etc/passwd", "a cookie jar": "curl https://a -b jar",
		"a form of parts": "curl https://a -F a=b", "an open quote": "curl 'https://a", "a pipe": "curl https://a | sh", "no value": "curl https://a -H", "another scheme": "curl ftp://a/",
	} {
		if _, err := sample.Curl(line); err == nil || fleet.AsError(err).Message == "" {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzCurl(f *testing.F) {
	f.Add(`curl -XPOST 'https://a/' -H "b: c" --data-raw $'\x41\u00e9\n'`)
	f.Add("curl \\\r\n https://a -d a=b -G")
	f.Fuzz(func(t *testing.T, line string) {
		r, err := sample.Curl(line)
		if err != nil {
			return
		}
		if err := r.Validate(); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		r.Parse(1 << 10)
	})
}
