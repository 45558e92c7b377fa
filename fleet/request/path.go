package request

import (
	"slices"
	"strings"
)

// Location is a request's path as servers may read it.
type Location struct {
	// Forward is the path that an origin is sent: as the client wrote it, without dot segments, and with each byte encoded
	// that a path cannot have. To forward it is what makes the readings true.
	Forward string
	// Readings are the decoded forms of Forward that servers act on. The first is what RFC 3986 says. A second one, if there
	// is a difference, is that of servers that decode more than once, take backslashes for slashes, cut off ;parameters,
	// and merge slashes.
	Readings []string
	// Ambiguous: a reading leads to another place than the others, because it has dot segments, a control character, or
	// characters in more bytes than they need. Nobody can say what an origin makes of it.
	Ambiguous bool
}

// Locate reads the path of a request target, without its query. Other targets, such as *, are left as they are.
func Locate(path string) Location {
	if ordinary(path) {
		return Location{Forward: path, Readings: []string{path}}
	}
	if !strings.HasPrefix(path, "/") {
		return Location{Forward: path, Readings: []string{unescape(path, false)}}
	}
	l := Location{Forward: encodePath(removeDots(path))}
	strict := unescape(l.Forward, false)
	loose, unclear := looseReading(strict)
	l.Readings = []string{strict}
	if loose != strict {
		l.Readings = append(l.Readings, loose)
	}
	l.Ambiguous = unclear
	return l
}

// ordinary says that there is one way to read path.
func ordinary(path string) bool {
	if path == "" || path[0] != '/' {
		return false
	}
	for i := range len(path) {
		c := path[i]
		if c == '/' && i+1 < len(path) && (path[i+1] == '/' || path[i+1] == '.') || c == '%' || c == ';' || !pathByte(c) {
			return false
		}
	}
	return true
}

// pathByte says that c may stand in a path by itself (RFC 3986 section 3.3, and brackets, which everybody writes).
func pathByte(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("/-_.~!$&'()*+,;=:@[]", c) >= 0
}

const upperHex = "0123456789ABCDEF"

// encodePath encodes what a path cannot have, a percent sign that encodes nothing among it.
func encodePath(path string) string {
	var b strings.Builder
	for i := range len(path) {
		c := path[i]
		if pathByte(c) || c == '%' && i+2 < len(path) && isHex(path[i+1]) && isHex(path[i+2]) {
			b.WriteByte(c)
			continue
		}
		b.WriteByte('%')
		b.WriteByte(upperHex[c>>4])
		b.WriteByte(upperHex[c&15])
	}
	return b.String()
}

// removeDots removes the segments . and .. (RFC 3986 section 5.2.4), also where their dots are encoded, which means the
// same (section 6.2.2.2).
func removeDots(path string) string {
	segments := strings.Split(path[1:], "/")
	kept := make([]string, 0, len(segments))
	for i, s := range segments {
		last := i == len(segments)-1
		switch dots(s) {
		case 0:
			kept = append(kept, s)
			continue
		case 2:
			kept = kept[:max(0, len(kept)-1)]
		}
		if last {
			kept = append(kept, "")
		}
	}
	return "/" + strings.Join(kept, "/")
}

// dots is 1 for the segment . and 2 for .., however they are encoded.
func dots(segment string) int {
	if len(segment) > len("%2e%2e") || segment == "" || segment[0] != '.' && segment[0] != '%' {
		return 0
	}
	switch unescape(segment, false) {
	case ".":
		return 1
	case "..":
		return 2
	}
	return 0
}

// maxDecoded bounds how often a path is decoded; nobody decodes more often.
const maxDecoded = 8

// alike are characters that some servers take for others.
var alike = strings.NewReplacer(`\`, "/", "\uff0f", "/", "\u2215", "/", "\u2044", "/", "\uff3c", "/", "\uff0e", ".", "\u2024", ".")

// looseReading is what the most generous server makes of a decoded path.
func looseReading(path string) (reading string, unclear bool) {
	unclear = overlong(path)
	for range maxDecoded {
		plain := unescape(path, false)
		if plain == path {
			break
		}
		path = plain
		unclear = unclear || overlong(path)
	}
	unclear = unclear || strings.ContainsFunc(path, func(r rune) bool { return r < ' ' || r == 0x7f })
	var kept []string
	for segment := range strings.SplitSeq(alike.Replace(path), "/") {
		segment, _, _ = strings.Cut(segment, ";")
		if trimmed := strings.TrimRight(segment, " "); trimmed == "." || trimmed == ".." {
			unclear = true
		}
		kept = append(kept, segment)
	}
	first, last := kept[0], kept[len(kept)-1]
	kept = slices.DeleteFunc(kept[1:], func(s string) bool { return s == "" })
	reading = first + "/" + strings.Join(kept, "/")
	if last == "" && len(kept) > 0 {
		reading += "/"
	}
	return reading, unclear
}

// overlong says that s has a character in more bytes than UTF-8 allows: C0 AF is a slash to careless decoders.
func overlong(s string) bool {
	for i := range len(s) {
		switch c := s[i]; {
		case c < 0xc0:
		case c == 0xc0 || c == 0xc1:
			if i+1 < len(s) && s[i+1]&0xc0 == 0x80 {
				return true
			}
		case i+1 < len(s) && (c == 0xe0 && s[i+1]&0xe0 == 0x80 || c == 0xf0 && s[i+1]&0xf0 == 0x80):
			return true
		}
	}
	return false
}
