package hostname_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/fleet/hostname"
)

func TestCanonical(t *testing.T) {
	long := strings.Repeat("a.", 126)
	for _, tc := range []struct{ name, in, want, wantErr string }{
		{name: "a plain name stays", in: "api.example.com", want: "api.example.com"},
		{name: "upper case becomes lower case", in: "API.Example.COM", want: "api.example.com"},
		{name: "one trailing dot is dropped", in: "api.example.com.", want: "api.example.com"},
		{name: "blanks around are dropped", in: " api.example.com\n", want: "api.example.com"},
		{name: "an apex is a host", in: "example.co.uk", want: "example.co.uk"},
		{name: "an international name becomes A-labels", in: "bücher.Example.com", want: "xn--bcher-kva.example.com"},
		{name: "decomposed characters are composed first", in: "bu\u0308cher.example.com", want: "xn--bcher-kva.example.com"},
		{name: "sharp s is kept, not made into ss", in: "straße.example.com", want: "xn--strae-oqa.example.com"},
		{name: "an ideographic full stop separates labels", in: "例え。example.com", want: "xn--r8jz45g.example.com"},
		{name: "a canonical A-label stays", in: "xn--bcher-kva.example.com", want: "xn--bcher-kva.example.com"},
		{name: "hyphens inside a plain label are allowed", in: "r3---sn.example.com", want: "r3---sn.example.com"},
		{name: "a wildcard", in: "*.Shop.example.com.", want: "*.shop.example.com"},
		{name: "an international wildcard", in: "*.bücher.example.com", want: "*.xn--bcher-kva.example.com"},
		{name: "253 bytes are the longest", in: long + "a", want: long + "a"},

		{name: "empty", in: "", wantErr: "empty"},
		{name: "two trailing dots", in: "example.com..", wantErr: "not a host name"},
		{name: "an empty label", in: "a..example.com", wantErr: "not a host name"},
		{name: "254 bytes", in: long + "aa", wantErr: "limit is 253"},
		{name: "very long input", in: strings.Repeat("x", 5000), wantErr: "limit is 253"},
		{name: "one label", in: "localhost", wantErr: "one label"},
		{name: "an underscore", in: "_x.example.com", wantErr: "not a host name"},
		{name: "a URL", in: "https://api.example.com/", wantErr: "is a URL"},
		{name: "a port", in: "api.example.com:8443", wantErr: "has a port"},
		{name: "a wildcard of a public suffix", in: "*.co.uk", wantErr: "public suffix"},
		{name: "a wildcard of wildcards", in: "*.*.example.com", wantErr: "wildcard"},
		{name: "a wildcard inside", in: "a.*.example.com", wantErr: "wildcard"},
		{name: "a part of a label as a wildcard", in: "*a.example.com", wantErr: "wildcard"},
		{name: "a wildcard of an address", in: "*.192.0.2.1", wantErr: "IP address"},
		{name: "a wildcard alone", in: "*", wantErr: "wildcard"},
		{name: "a wildcard of 254 bytes", in: "*." + long + "a", wantErr: "limit is 253"},
		{name: "an IPv4 address", in: "192.0.2.1", wantErr: "IP address"},
		{name: "an IPv4 address with a port", in: "192.0.2.1:80", wantErr: "IP address"},
		{name: "an IPv6 address", in: "2001:db8::1", wantErr: "IP address"},
		{name: "an IPv6 address in brackets", in: "[::1]", wantErr: "IP address"},
		{name: "a mapped address", in: "::ffff:192.0.2.1", wantErr: "IP address"},
		{name: "a short IPv4 address", in: "127.1", wantErr: "ends in a number"},
		{name: "an octal IPv4 address", in: "0177.0.0.01", wantErr: "ends in a number"},
		{name: "a hexadecimal IPv4 address", in: "0x7f.0.0.0x1", wantErr: "ends in a number"},
		{name: "full-width digits", in: "１２７.0.0.１", wantErr: "ends in a number"},
		{name: "a public suffix", in: "co.uk", wantErr: "public suffix"},
		{name: "a private public suffix", in: "github.io", wantErr: "public suffix"},
		{name: "a broken A-label", in: "xn--a-ecp.ru-xn--.example.com", wantErr: "host name"},
		{name: "an A-label of plain text", in: "xn--example-.com", wantErr: "host name"},
		{name: "a NUL byte", in: "a\x00.example.com", wantErr: "not a host name"},
		{name: "broken UTF-8", in: "\xff.example.com", wantErr: "host name"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := hostname.Canonical(tc.in)
			if tc.wantErr == "" {
				if err != nil || string(got) != tc.want {
					t.Fatalf("Canonical(%q) = %q, %v; want %q", tc.in, got, err, tc.want)
				}
				return
			}
			if !errors.Is(err, fleet.ErrInvalid) || !strings.Contains(err.Error(), tc.wantErr) {
				t.Fatalf("Canonical(%q) = %q, %v; want an error with %q", tc.in, got, err, tc.wantErr)
			}
		})
	}
}

func TestReserved(t *testing.T) {
	own := []fleet.HostName{"vendor.example"}
	got := map[fleet.HostName]bool{}
	for _, h := range []fleet.HostName{"edge.example.net", "x.edge.example.net", "example.net", "myedge.example.net", "vendor.example", "www.vendor.example", "notvendor.example", "api.example.com", "*.example.net", "*.edge.example.net", "*.vendor.example"} {
		got[h] = hostname.Reserved(h, "edge.example.net", own) != nil
	}
	want := map[fleet.HostName]bool{
		"edge.example.net": true, "x.edge.example.net": true, "example.net": true, "myedge.example.net": false,
		"vendor.example": true, "www.vendor.example": true, "notvendor.example": false, "api.example.com": false, "*.example.net": true, "*.edge.example.net": true, "*.vendor.example": true,
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

// FuzzCanonical holds that what comes out is canonical: it parses, and going through again changes nothing.
func FuzzCanonical(f *testing.F) {
	for _, s := range []string{"api.example.com", "BÜCHER.example.com.", "xn--bcher-kva.example.com", "1.2.3.4", "[::1]", "a。b.example.com", "*.x.com", "\xff.com"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		h, err := hostname.Canonical(s)
		if err != nil {
			if !errors.Is(err, fleet.ErrInvalid) {
				t.Fatalf("Canonical(%q): %v is not ErrInvalid", s, err)
			}
			return
		}
		if p, err := fleet.ParseHost(string(h)); err != nil || p != h {
			t.Fatalf("Canonical(%q) = %q, which does not parse: %v", s, h, err)
		}
		if again, err := hostname.Canonical(string(h)); err != nil || again != h {
			t.Fatalf("Canonical(%q) = %q, then %q, %v", s, h, again, err)
		}
	})
}
