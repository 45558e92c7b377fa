package fleet

import (
	"net/netip"
	"strings"
)

// HostName is a protected host name in canonical form: lower case, A-labels, no trailing dot.
type HostName string

// ParseHostName checks the syntax of a canonical host name (RFC 1123, RFC 5890 A-labels). It is pure, so that the
// state machine can hold it as an invariant; package hostname turns what people type into this form and knows
// public suffixes.
func ParseHostName(s string) (HostName, error) {
	if s == "" {
		return "", Invalid("host", "the host name is empty")
	}
	if len(s) > 253 {
		return "", Invalid("host", "host name of %d bytes; the limit is 253", len(s))
	}
	if _, err := netip.ParseAddr(strings.Trim(s, "[]")); err == nil {
		return "", Invalid("host", "%q is an IP address: protect a DNS name and give the address as its --origin", s)
	}
	labels := strings.Split(s, ".")
	if len(labels) < 2 {
		return "", Invalid("host", "%q has one label: give a full name such as api.example.com", s)
	}
	for _, l := range labels {
		if !validID(l) {
			return "", Invalid("host", "%q is not a host name: label %q must be 1 to 63 of a-z, 0-9 and '-'", s, l)
		}
	}
	if strings.Trim(labels[len(labels)-1], "0123456789") == "" {
		return "", Invalid("host", "%q ends in a number: protect a DNS name, not an address", s)
	}
	return HostName(s), nil
}

// Within reports whether h is zone or a name below it.
func (h HostName) Within(zone HostName) bool {
	return h == zone || strings.HasSuffix(string(h), "."+string(zone))
}

// Wildcard reports whether h is a wildcard such as *.example.com, and the name below which it stands for every name of
// one more label.
func (h HostName) Wildcard() (base HostName, ok bool) {
	rest, ok := strings.CutPrefix(string(h), "*.")
	return HostName(rest), ok
}

// Sibling is the other host name with h's ChallengeName: the wildcard over h, or what h is the wildcard over.
func (h HostName) Sibling() HostName {
	if base, ok := h.Wildcard(); ok {
		return base
	}
	return "*." + h
}

// Probe is a name that h stands for: itself, or one below a wildcard's base that is asked for to see whether it works.
func (h HostName) Probe() HostName {
	if base, ok := h.Wildcard(); ok {
		return "edgefleet-check." + base
	}
	return h
}

// ParseHost checks the syntax of a name that can be protected: a host name, or a wildcard over one.
func ParseHost(s string) (HostName, error) {
	base, wildcard := HostName(s).Wildcard()
	if !wildcard {
		return ParseHostName(s)
	}
	if _, err := ParseHostName(string(base)); err != nil {
		return "", err
	}
	if len(s) > 253 {
		return "", Invalid("host", "host name of %d bytes; the limit is 253", len(s))
	}
	return HostName(s), nil
}

// ChallengeName is where a certificate authority looks for the answer to a DNS-01 challenge for h.
func (h HostName) ChallengeName() string {
	return "_acme-challenge." + strings.TrimPrefix(string(h), "*.")
}
