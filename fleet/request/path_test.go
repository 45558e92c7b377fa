package request_test

import (
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/fleet/request"
)

func TestAPathIsForwardedInOneFormAndReadInEach(t *testing.T) {
	for path, want := range map[string]request.Location{
		"/a/b.php":          {Forward: "/a/b.php", Readings: []string{"/a/b.php"}},
		"/":                 {Forward: "/", Readings: []string{"/"}},
		"*":                 {Forward: "*", Readings: []string{"*"}},
		"":                  {Forward: "", Readings: []string{""}},
		"/a/./b/../c":       {Forward: "/a/c", Readings: []string{"/a/c"}},
		"/a/%2e%2E/c":       {Forward: "/c", Readings: []string{"/c"}},
		"/a/.%2e":           {Forward: "/", Readings: []string{"/"}},
		"/../../etc/passwd": {Forward: "/etc/passwd", Readings: []string{"/etc/passwd"}},
		"/a/.":              {Forward: "/a/", Readings: []string{"/a/"}},
		"/.well-known/x":    {Forward: "/.well-known/x", Readings: []string{"/.well-known/x"}},
		"/a/...":            {Forward: "/a/...", Readings: []string{"/a/..."}},
		"/a%20b":            {Forward: "/a%20b", Readings: []string{"/a b"}},
		"/100%25":           {Forward: "/100%25", Readings: []string{"/100%"}},
		"/100%":             {Forward: "/100%25", Readings: []string{"/100%"}},
		"/a|b\xe9":          {Forward: "/a%7Cb%E9", Readings: []string{"/a|b\xe9"}},
		"/%D0%B6/\u00e9":    {Forward: "/%D0%B6/%C3%A9", Readings: []string{"/\u0436/\u00e9"}},
		"//a///b":           {Forward: "//a///b", Readings: []string{"//a///b", "/a/b"}},
		"/a//":              {Forward: "/a//", Readings: []string{"/a//", "/a/"}},
		"/group%2fproject":  {Forward: "/group%2fproject", Readings: []string{"/group/project"}},
		"/%2561dmin":        {Forward: "/%2561dmin", Readings: []string{"/%61dmin", "/admin"}},
		"/admin;x=1/y":      {Forward: "/admin;x=1/y", Readings: []string{"/admin;x=1/y", "/admin/y"}},
		`/a\b`:              {Forward: "/a%5Cb", Readings: []string{`/a\b`, "/a/b"}},
		"/x%2f..%2fadmin|":  {Forward: "/x%2f..%2fadmin%7C", Readings: []string{"/x/../admin|"}, Ambiguous: true},
		"/..;/admin":        {Forward: "/..;/admin", Readings: []string{"/..;/admin", "/../admin"}, Ambiguous: true},
		"/a%00.php":         {Forward: "/a%00.php", Readings: []string{"/a\x00.php"}, Ambiguous: true},
	} {
		if diff := cmp.Diff(want, request.Locate(path)); diff != "" {
			t.Errorf("%q (-want +got):\n%s", path, diff)
		}
	}
}

func TestPathsThatLeadElsewhereForSomeServersAreAmbiguous(t *testing.T) {
	for _, path := range []string{
		"/..%2fadmin", "/a/..%5cadmin", `/a/..\admin`, "/%252e%252e/admin", "/%252e%252e%252fadmin", "/a/%2e%2e%2fadmin", "/..;a=b/admin",
		"/a/.;x/b", "/a/..%3b/admin", "/%c0%ae%c0%ae/admin", "/a%c0%afadmin", "/%e0%80%af", "/%f0%80%80%af", "/a%00", "/a%2500", "/a%0d%0aX:y",
		"/a/%ef%bc%8e%ef%bc%8e/admin", "/a/..%ef%bc%8fadmin", "/a/..%20/admin", "/%25252525252e%25252525252e/admin", "/%7f",
	} {
		if l := request.Locate(path); !l.Ambiguous {
			t.Errorf("%s is not ambiguous: %+v", path, l)
		}
	}
}

func TestConditionsSeeEachReadingOfAPath(t *testing.T) {
	r := request.Parse(input("//%2561dmin;x/list.php?q=1", "", ""), request.Limits{})
	for attribute, want := range map[string][]string{
		"uri":         {"//%61dmin;x/list.php?q=1", "//%61dmin;x/list.php", "/admin/list.php?q=1", "/admin/list.php"},
		"path[0]":     {"", "admin"},
		"path[1]":     {"%61dmin;x"},
		"action_name": {"list"},
		"action_ext":  {"php"},
	} {
		got, err := r.Attributes(attribute)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", attribute, diff)
		}
	}
	if p := r.Problems(); len(p) > 0 {
		t.Errorf("problems %v", p)
	}
	want := []request.Problem{{Point: fleet.Point{{"path"}}, Reason: request.ReasonAmbiguousPath}}
	if diff := cmp.Diff(want, request.Parse(input("/..%2f", "", ""), request.Limits{}).Problems()); diff != "" {
		t.Error(diff)
	}
}

// What is forwarded has one form, and says to net/url what the first reading says.
func FuzzLocate(f *testing.F) {
	for _, s := range []string{"/", "/a/../b", "/%2e%2e/%252e", "//x;y/..;/z", `/\..\`, "/%c0%ae", "/%", "/a%2fb|", "*", "/.", "/\x00\xff"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, path string) {
		l := request.Locate(path)
		if !strings.HasPrefix(path, "/") {
			return
		}
		again := request.Locate(l.Forward)
		if diff := cmp.Diff(l, again); diff != "" {
			t.Fatalf("%q: what is forwarded is read differently: %s", path, diff)
		}
		u, err := url.ParseRequestURI(l.Forward)
		if strings.ContainsAny(l.Forward, "?#") || err != nil {
			t.Fatalf("%q is forwarded as %q: %v", path, l.Forward, err)
		}
		if u.Path != l.Readings[0] || (&url.URL{Path: l.Readings[0], RawPath: l.Forward}).EscapedPath() != l.Forward {
			t.Fatalf("%q: net/url reads %q of %q, want %q", path, u.Path, l.Forward, l.Readings[0])
		}
		for s := range strings.SplitSeq(l.Forward, "/") {
			if plain, err := url.PathUnescape(s); err != nil || plain == "." || plain == ".." {
				t.Fatalf("%q is forwarded with the segment %q", path, s)
			}
		}
		if !l.Ambiguous && slices.ContainsFunc(l.Readings, func(r string) bool { return strings.Contains(r+"/", "/../") }) {
			t.Fatalf("%q has dot segments: %+v", path, l)
		}
		if len(l.Forward) > 3*len(path)+1 || len(l.Readings) > 2 {
			t.Fatalf("%q became %+v", path, l)
		}
	})
}
