package api_test

import (
	"bytes"
	"html"
	"regexp"
	"strings"
	"testing"
)

func TestTheDocsPageNamesEveryOperationAndLoadsNothing(t *testing.T) {
	f := open(t, 2)
	f.lead("") // the page needs neither leader nor token
	got := f.at(1, "").call("GET", "/docs", nil).want(200)
	if ct := got.header.Get("Content-Type"); ct != "text/html; charset=utf-8" {
		t.Errorf("content type %q", ct)
	}
	if csp := got.header.Get("Content-Security-Policy"); !strings.HasPrefix(csp, "default-src 'none'; ") || strings.Contains(csp, "script-src") || strings.Contains(csp, "http") {
		t.Errorf("policy %q", csp)
	}
	text := html.UnescapeString(string(got.body))
	_, d := spec(t)
	for path, methods := range d.Paths {
		for method, op := range methods {
			for _, part := range []string{`id="` + op.ID + `"`, `<span class="method">` + strings.ToUpper(method) + "</span>" + path + "</code> " + op.Summary} {
				if !strings.Contains(text, part) {
					t.Errorf("%s %s: %q is not on the page", method, path, part)
				}
			}
			for _, p := range op.Parameters {
				if !strings.Contains(text, "<code>"+p.Name+"</code>") {
					t.Errorf("%s %s: parameter %s is not on the page", method, path, p.Name)
				}
			}
		}
	}
	for name := range d.Components.Schemas {
		if !strings.Contains(text, `id="schema-`+name+`"`) {
			t.Errorf("schema %s is not on the page", name)
		}
	}
	for _, link := range regexp.MustCompile(`(?:href|src|action|url)\s*[=(]\s*["']?([^"')> ]*)`).FindAllSubmatch(got.body, -1) {
		if to := link[1]; !bytes.HasPrefix(to, []byte("#")) && !bytes.Equal(to, []byte("/v1/openapi.json")) {
			t.Errorf("the page refers to %s", to)
		}
	}
	if bytes.Contains(got.body, []byte("<script")) || bytes.Contains(got.body, []byte("//cdn")) || bytes.Contains(got.body, []byte("@import")) {
		t.Error("the page has a script, or loads something")
	}
}
