package proxy_test

import (
	"strings"
	"testing"

	"github.com/edgefleet/edgefleet/edgenode/proxy"
	"github.com/edgefleet/edgefleet/fleet"
)

func TestCanonicalHost(t *testing.T) {
	for name, tc := range map[string]struct {
		in   string
		want fleet.HostName
	}{
		"a canonical name stays":             {"api.example.com", "api.example.com"},
		"case is folded":                     {"API.Example.COM", "api.example.com"},
		"a trailing dot is dropped":          {"api.example.com.", "api.example.com"},
		"a port is dropped":                  {"api.example.com:8443", "api.example.com"},
		"a port after a dot is dropped":      {"Api.example.com.:443", "api.example.com"},
		"an empty port is dropped":           {"api.example.com:", "api.example.com"},
		"A-labels stay":                      {"xn--bcher-kva.example", "xn--bcher-kva.example"},
		"empty is refused":                   {"", ""},
		"a lone port is refused":             {":443", ""},
		"two trailing dots are refused":      {"api.example.com..", ""},
		"two ports are refused":              {"api.example.com:80:443", ""},
		"a port of letters is refused":       {"api.example.com:http", ""},
		"a signed port is refused":           {"api.example.com:+443", ""},
		"a port out of range is refused":     {"api.example.com:65536", ""},
		"an IPv4 address is refused":         {"192.0.2.1", ""},
		"an IPv4 address, port, is refused":  {"192.0.2.1:443", ""},
		"a decimal address is refused":       {"a.3221225985", ""},
		"an IPv6 literal is refused":         {"[2001:db8::1]", ""},
		"an IPv6 literal, port, is refused":  {"[2001:db8::1]:443", ""},
		"a bare IPv6 address is refused":     {"2001:db8::1", ""},
		"user info is refused":               {"api.example.com@evil.example", ""},
		"user info with port is refused":     {"api.example.com:80@evil.example", ""},
		"a path is refused":                  {"api.example.com/x", ""},
		"a space is refused":                 {"api.example.com ", ""},
		"a list is refused":                  {"api.example.com,evil.example", ""},
		"a NUL is refused":                   {"api.example.com\x00.evil.example", ""},
		"U-labels are refused":               {"bücher.example", ""},
		"the Kelvin sign is not a k":         {"\u212aube.example", ""},
		"one label is refused":               {"localhost", ""},
		"an underscore is refused":           {"a_b.example.com", ""},
		"a percent escape is refused":        {"api%2eexample.com", ""},
		"a name over the limit is refused":   {strings.Repeat("a.", 127) + "com", ""},
		"a header over the limit is refused": {strings.Repeat("a", 300), ""},
	} {
		t.Run(name, func(t *testing.T) {
			got, ok := proxy.CanonicalHost(tc.in)
			if ok != (tc.want != "") || (ok && got != tc.want) {
				t.Errorf("canonicalHost(%q) = %q, %v; want %q", tc.in, got, ok, tc.want)
			}
		})
	}
}

func FuzzCanonicalHost(f *testing.F) {
	for _, s := range []string{"api.example.com", "API.example.com.:443", "[::1]:1", "a@b.c", "\u212a.example", ":", "1.2.3.4"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		h, ok := proxy.CanonicalHost(s)
		if !ok {
			return
		}
		if again, ok := proxy.CanonicalHost(string(h)); !ok || again != h {
			t.Errorf("canonicalHost(%q) = %q is not stable: %q, %v", s, h, again, ok)
		}
		if _, err := fleet.ParseHostName(string(h)); err != nil {
			t.Errorf("canonicalHost(%q) = %q: %v", s, h, err)
		}
		if !strings.HasPrefix(strings.ToLower(s), string(h)) {
			t.Errorf("canonicalHost(%q) = %q names something else", s, h)
		}
	})
}
