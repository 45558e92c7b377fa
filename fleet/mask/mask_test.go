package mask_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/fleet/mask"
	"github.com/edgefleet/edgefleet/fleet/request"
)

const form = "application/x-www-form-urlencoded"

func parse(uri, contentType, body string, headers ...string) *request.Request {
	h := http.Header{}
	if contentType != "" {
		h.Set("Content-Type", contentType)
	}
	for i := 0; i+1 < len(headers); i += 2 {
		h.Add(headers[i], headers[i+1])
	}
	return request.Parse(request.Input{Method: "POST", Host: "shop.example.com", URI: uri, Header: h, Body: []byte(body)}, request.Limits{})
}

func TestSensitiveNamesInTheirUsualSpellings(t *testing.T) {
	for _, name := range []string{
		"token", "password", "passwd", "pwd", "secret", "api_key", "apikey", "api-key", "API_KEY", "access_token", "refreshToken",
		"client_secret", "email", "user_email", "cc_number", "card-number", "cvv", "SSN", "user[password]", "new.password", "csrf_token",
	} {
		r := parse("/?"+name+"=abcdefgh", "", "")
		m := mask.Default().Apply(r)
		if diff := cmp.Diff([]string{"get." + name}, m.Points()); diff != "" {
			t.Errorf("%s is not masked:\n%s", name, diff)
		}
	}
	for _, name := range []string{"q", "id", "lesson", "compass", "page", "user", "spinner", "assets"} {
		if p := mask.Default().Apply(parse("/?"+name+"=abcdefgh", "", "")).Points(); len(p) > 0 {
			t.Errorf("%s is masked: %v", name, p)
		}
	}
	for _, name := range []string{"Authorization", "proxy-authorization", "Cookie", "Set-Cookie", "X-Api-Key", "x-auth-token"} {
		if p := mask.Default().Apply(parse("/", "", "", name, "abcdefgh")).Points(); len(p) != 1 {
			t.Errorf("header %s is not masked: %v", name, p)
		}
	}
}

func TestTextIsMaskedWhereASecretOccursAgain(t *testing.T) {
	r := parse("/reset?password=S3cr%26t%2F%22x&q=1", form, "pin=42&a=1", "Authorization", "Basic dXNlcjpodW50ZXIy", "Referer", "https://x/?api_key=fromreferer")
	m := mask.Default().Apply(r)
	for in, want := range map[string]string{
		"":                                "",
		"nothing":                         "nothing",
		`see S3cr&t/"x here`:              "see * here",
		`s3CR&T/"X`:                       "*",
		"raw S3cr%26t%2F%22x.":            "raw *.",
		"low s3cr%26t%2f%22x.":            "low *.",
		`json {"a":"S3cr\u0026t/\"x"}`:    `json {"a":"*"}`,
		`slashes S3cr&t\/\"x`:             "*",
		"html S3cr&amp;t/&#34;x":          "html *",
		"base64 UzNjciZ0LyJ4":             "base64 *",
		"over-encoded %53%33cr%26t%2f%22": "over-encoded %53%33cr%26t%2f%22",
		"%53%33cr%26t%2f%22x":             "*",
		"basic hunter2":                   "basic *",
		"a fromreferer b":                 "a * b",
		"42":                              "*",
		"4242":                            "4242",
		"password=other&b=1":              "password=*&b=1",
		`{"password": "a b", "c": 1}`:     `{"password": *, "c": 1}`,
		"Authorization: Bearer a.b.c":     "Authorization: *",
		"mail bob@example.com now":        "mail * now",
		"mail bob%40example.com now":      "mail * now",
		"card 4111 1111-1111 1111 now":    "card * now",
		"not a card 4111111111112":        "not a card 4111111111112",
	} {
		if got := m.String(in); got != want {
			t.Errorf("%q is masked as %q, want %q", in, got, want)
		}
	}
}

func TestURIKeepsWhatIsNotSensitive(t *testing.T) {
	for uri, want := range map[string]string{
		"/a/b?q=%27or&token=ab&x=1":   "/a/b?q=%27or&token=*&x=1",
		"/a/secret1?password=secret1": "/a/*?password=*",
		"/a?to%6ben=ab":               "/a?to%6ben=*",
		"http://u:pass1@h/a?b=pass1":  "http://*@h/a?b=*",
		"/a;jsessionid=12ab?x":        "/a;jsessionid=*?x",
	} {
		if got := mask.Default().Apply(parse(uri, "", "")).URI(uri); got != want {
			t.Errorf("%s is masked as %s, want %s", uri, got, want)
		}
	}
	if got := mask.Default().Apply(parse("/a?b=1", "", "")).Path("/a?b=1"); got != "/a" {
		t.Errorf("path %q, want /a", got)
	}
}

func TestExcerptsAreMaskedByTheirPoint(t *testing.T) {
	post := fleet.Point{{"post"}}
	field := fleet.Point{{"post"}, {"form_urlencoded", "note"}}
	multipart := "--b\r\nContent-Disposition: form-data; name=\"f\"; filename=\"x\"\r\n\r\nsome file\r\n--b--\r\n"
	truncated := request.Parse(request.Input{URI: "/", Header: http.Header{"Content-Type": {form}}, Body: []byte("note=hello"), Truncated: true}, request.Limits{})
	for name, test := range map[string]struct {
		r     *request.Request
		point fleet.Point
		want  string
	}{
		"a field beside a secret":      {parse("/", form, "note=hello&pin=1"), field, "hello"},
		"a secret of one byte":         {parse("/", form, "note=hello&pin=1"), fleet.Point{{"post"}, {"form_urlencoded", "pin"}}, "*"},
		"a raw body with a secret":     {parse("/", form, "note=hello&pin=1"), post, "*"},
		"a raw body without":           {parse("/", form, "note=hello"), post, "hello"},
		"a raw body with files":        {parse("/", "multipart/form-data; boundary=b", multipart), post, "*"},
		"a body of no known format":    {parse("/", "text/plain", "hello"), post, "*"},
		"broken json":                  {parse("/", "application/json", `{"a":`), post, "*"},
		"a field of a truncated body":  {truncated, field, "*"},
		"below a sensitive json key":   {parse("/", "application/json", `{"token":{"v":"ab"}}`), fleet.Point{{"post"}, {"json_doc"}, {"hash", "token"}, {"hash", "v"}}, "*"},
		"an argument with json inside": {parse(`/?q={"pwd":"ab"}`, "", ""), fleet.Point{{"get", "q"}}, "*"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := mask.Default().Apply(test.r).Excerpt(test.point, "hello"); got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

func TestWithoutASetOnlyMetadataLeaves(t *testing.T) {
	var s *mask.Set
	m := s.Apply(parse("/a?b=c", form, "d=e"))
	got := []string{m.String("x"), m.Path("/a"), m.URI("/a?b=c"), m.Excerpt(fleet.Point{{"get", "b"}}, "c")}
	got = append(got, m.Points()...)
	if i := slices.IndexFunc(got, func(s string) bool { return s != "*" }); i >= 0 {
		t.Errorf("output %d is %q, want *", i, got[i])
	}
}

func TestPointsAreNamedAndSorted(t *testing.T) {
	m := mask.Default().Apply(parse("/?password=abcd&token=abcd&token=efgh", "text/plain", "a text", "Cookie", "a=b"))
	want := []string{"get.password", "get.token", "header.COOKIE", "post"}
	if diff := cmp.Diff(want, m.Points()); diff != "" {
		t.Error(diff)
	}
}

func TestARequestWithTooManySecretsIsHiddenWhole(t *testing.T) {
	var body strings.Builder
	for i := range 1000 {
		fmt.Fprintf(&body, "&token=secret%d", i)
	}
	if got := mask.Default().Apply(parse("/", form, body.String())).String("anything"); got != "*" {
		t.Errorf("got %q, want *", got)
	}
}
