package proxy

import (
	"net/http"
	"net/url"
	"strings"

	"github.com/edgefleet/edgefleet/fleet/request"
)

// onePath refuses a path that origins read differently from each other, and so from the rules. It comes behind the Judge,
// so that an attempt is an event; in mode off nothing is judged, and the path is the origin's business.
func (x *exchange) onePath(l request.Location) bool {
	if l.Ambiguous {
		x.refuse("ambiguous_path", http.StatusBadRequest)
	}
	return !l.Ambiguous
}

// located makes out the address of the path that the rules have judged: of in's path without dot segments. Without it,
// net/url would write a path anew that has a byte which it does not expect, and an encoded slash become a slash.
func located(in *http.Request, out *url.URL) {
	path, _, _ := strings.Cut(target(in), "?")
	if !strings.HasPrefix(path, "/") {
		return
	}
	l := request.Locate(path)
	out.Path, out.RawPath = l.Readings[0], l.Forward
}
