// Package hostname turns what people type into canonical host names, and refuses names that nobody may protect:
// addresses, public suffixes and the edge's own names. It is pure: no lookups, no clock. The tables of public suffixes
// and of international characters are compiled in, so that every member of one version decides alike; the state
// machine itself holds only the syntax (fleet.ParseHostName) as its invariant.
package hostname

import (
	"net/netip"
	"strings"

	"golang.org/x/net/idna"
	"golang.org/x/net/publicsuffix"

	"github.com/edgefleet/edgefleet/fleet"
)

// maxInput bounds what is looked at: the longest name is 253 bytes as A-labels and at most four times that in UTF-8.
const maxInput = 1024

// profile is UTS 46 non-transitional processing for names that are looked up: maps to lower case and NFC, checks
// bidirectional text and joiners, and decodes A-labels to see that they are the canonical ones.
var profile = idna.New(idna.MapForLookup(), idna.BidiRule(), idna.CheckJoiners(true), idna.StrictDomainName(true), idna.Transitional(false))

// Canonical returns the canonical form of s: lower-case A-labels without a trailing dot. Errors are fleet.ErrInvalid
// and say what to give instead.
func Canonical(s string) (fleet.HostName, error) {
	if len(s) > maxInput {
		return "", fleet.Invalid("host", "host name of %d bytes; the limit is 253", len(s))
	}
	s = strings.TrimSpace(s)
	if rest, ok := strings.CutPrefix(s, "*."); ok && !strings.Contains(rest, "*") {
		base, err := Canonical(rest)
		if err != nil {
			return "", err
		}
		return fleet.ParseHost("*." + string(base))
	}
	if err := looksLikeHost(s); err != nil {
		return "", err
	}
	ascii, err := toASCII(strings.TrimSuffix(s, "."))
	if err != nil {
		return "", err
	}
	if isNumeric(ascii[strings.LastIndexByte(ascii, '.')+1:]) {
		return "", fleet.Invalid("host", "%q ends in a number: protect a DNS name and give the address as its --origin", s)
	}
	h, err := fleet.ParseHostName(ascii)
	if err != nil {
		return "", err
	}
	if suffix, _ := publicsuffix.PublicSuffix(string(h)); suffix == string(h) {
		return "", fleet.Invalid("host", "%q is a public suffix, below which many parties have names: give a name of your own such as www.%s", s, h)
	}
	return h, nil
}

// looksLikeHost explains the common mistakes, for which "not a host name" would help nobody.
func looksLikeHost(s string) error {
	switch {
	case s == "":
		return fleet.Invalid("host", "the host name is empty: give a full name such as api.example.com")
	case strings.Contains(s, "://"), strings.Contains(s, "/"):
		return fleet.Invalid("host", "%q is a URL: give the host name only, such as api.example.com", s)
	case strings.Contains(s, "*"):
		return fleet.Invalid("host", "%q has a wildcard that is not the whole first label: give a name such as *.example.com", s)
	}
	bare := strings.Trim(s, "[]")
	if _, err := netip.ParseAddr(bare); err == nil {
		return fleet.Invalid("host", "%q is an IP address: protect a DNS name and give the address as its --origin", s)
	}
	if _, err := netip.ParseAddrPort(s); err == nil {
		return fleet.Invalid("host", "%q is an IP address with a port: protect a DNS name and give the address as its --origin", s)
	}
	if strings.Contains(s, ":") {
		return fleet.Invalid("host", "%q has a port: a host is protected on all its ports, give its name only", s)
	}
	return nil
}

// toASCII converts to lower-case A-labels. Plain names skip the international rules, which would refuse
// names that DNS allows and that are in use, such as r3---sn.example.com.
func toASCII(s string) (string, error) {
	lower := strings.ToLower(s)
	if isASCII(lower) && !strings.HasPrefix(lower, "xn--") && !strings.Contains(lower, ".xn--") {
		return lower, nil
	}
	a, err := profile.ToASCII(s)
	if err != nil {
		return "", fleet.Invalid("host", "%q is not a valid international host name: %v", s, err)
	}
	// The package lets some input through (broken UTF-8, for one) whose result it would itself refuse.
	if again, err := profile.ToASCII(a); err != nil || again != a {
		return "", fleet.Invalid("host", "%q is not a valid international host name", s)
	}
	return a, nil
}

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= 0x80 {
			return false
		}
	}
	return true
}

// isNumeric reports whether resolvers and browsers would read a last label as part of an IPv4 address: decimal, octal
// or hexadecimal.
func isNumeric(label string) bool {
	if hex, ok := strings.CutPrefix(label, "0x"); ok {
		return strings.Trim(hex, "0123456789abcdef") == ""
	}
	return label != "" && strings.Trim(label, "0123456789") == ""
}

// Reserved refuses names that belong to the edge: the edge zone, everything below it and what is above it, and the
// vendor's own names with everything below them.
func Reserved(h, zone fleet.HostName, own []fleet.HostName) error {
	base, _ := h.Wildcard()
	if base == "" {
		base = h
	}
	if zone != "" && (base.Within(zone) || zone.Within(base)) {
		return fleet.Invalid("host", "%s belongs to the edge zone %s: add the name that your clients use, and point it at the edge by CNAME", h, zone)
	}
	for _, o := range own {
		if o != "" && base.Within(o) {
			return fleet.Invalid("host", "%s belongs to the operator of this edge: add a name of your own", h)
		}
	}
	return nil
}
