package proxy

import (
	"strconv"
	"strings"

	"github.com/edgefleet/edgefleet/fleet"
)

// maxHostHeader is the longest name with its trailing dot, a colon and a port.
const maxHostHeader = 253 + 1 + 1 + 5

// canonicalHost turns what a client sent as Host, :authority or SNI into the form in which hosts are stored: without
// port and trailing dot, in lower case. What is not a host name (addresses, user info, spaces) is not ok.
func canonicalHost(s string) (_ fleet.HostName, ok bool) {
	if len(s) > maxHostHeader {
		return "", false
	}
	name, port, found := strings.Cut(s, ":")
	if found && port != "" {
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 || port[0] == '+' {
			return "", false
		}
	}
	lower := strings.Map(asciiLower, strings.TrimSuffix(name, "."))
	h, err := fleet.ParseHostName(lower)
	return h, err == nil
}

// asciiLower folds A to Z only: strings.ToLower also folds letters beyond ASCII onto them, such as the Kelvin sign.
func asciiLower(r rune) rune {
	if 'A' <= r && r <= 'Z' {
		return r + ('a' - 'A')
	}
	return r
}
