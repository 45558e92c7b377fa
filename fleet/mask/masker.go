package mask

import (
	"regexp"
	"slices"
	"strings"

	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/fleet/request"
)

// Masker hides the sensitive values of one request in text about that request. It is immutable and safe for concurrent
// use. Mask first, shorten afterwards: a part of a secret is not recognised.
type Masker struct {
	set *Set
	// named and patterns are of the customer's rules that hold for the request: names in any place, and patterns that are
	// looked for in every text.
	named    []rule
	patterns []*regexp.Regexp
	// hidden are the points whose values are hidden, touched those with a part that is, broken the parents that were not
	// parsed.
	hidden, touched, broken []fleet.Point
	// by says what hides a point: the id of a rule, or the default pack.
	by map[string]string
	// secrets are the folded values, variants their folded encodings (themselves included), whole the values that are
	// too short to be looked for inside others.
	secrets, variants []string
	whole             map[string]bool
	// overflow: there are too many secrets to look for.
	overflow bool
	// files: the raw body holds files, which no parser looks at.
	files bool
}

// opaque says that nothing of the request may leave.
func (m *Masker) opaque() bool { return m.set == nil || m.overflow }

// sensitive says whether a name is one whose values are hidden, by the default pack or by a rule. It may be followed by
// what assigns a value to it.
func (m *Masker) sensitive(name string) bool {
	if m.set.sensitive(name) {
		return true
	}
	if len(m.named) == 0 {
		return false
	}
	name = strings.TrimRight(fold(name), " \t\r\n")
	for _, end := range []string{"%3d", "%3a"} {
		name = strings.TrimSuffix(name, end)
	}
	name = strings.Trim(name, " \t\r\n\"'\\=:@")
	return slices.ContainsFunc(m.named, func(r rule) bool { return r.name == name })
}

// at returns the shortest prefix of p whose last name is sensitive, and what says so; nil if there is none.
func (m *Masker) at(p fleet.Point) (fleet.Point, string) {
	if at := m.set.at(p); at != nil {
		return at, ByDefault
	}
	for _, r := range m.named {
		if at := r.named(p); at != nil {
			return at, string(r.id)
		}
	}
	return nil, ""
}

// String masks text that is not known to belong to a point. A text in which the search would take too long is hidden.
func (m *Masker) String(v string) string {
	if v == "" {
		return ""
	}
	if m.opaque() || m.whole[fold(v)] || len(v)*len(m.secrets) > maxWork {
		return Hidden
	}
	out := replaceRanges(v, m.occurrences(v))
	out = m.hideAssigned(out)
	out = hideEmails(out)
	out = hideCards(out)
	out = m.hidePatterns(out)
	if m.leaks(out) {
		return Hidden
	}
	return out
}

// Excerpt masks v, which is the value at p or a part of it.
func (m *Masker) Excerpt(p fleet.Point, v string) string {
	switch {
	case v == "":
		return ""
	case m.opaque() || m.Hides(p):
		return Hidden
	case len(p) == 1 && p[0][0] == "uri":
		return m.URI(v)
	case len(p) == 1 && len(p[0]) == 1 && p[0][0] == "path":
		return m.path(v)
	}
	return m.String(v)
}

// Hides says that nothing of the value at p may be shown: its name is sensitive, a rule hides it, it holds a value that
// is hidden, or it is, or is part of, something that was not parsed.
func (m *Masker) Hides(p fleet.Point) bool {
	if m.opaque() {
		return true
	}
	if at, _ := m.at(p); at != nil {
		return true
	}
	for _, h := range m.hidden {
		if within(h, p) || within(p, h) {
			return true
		}
	}
	for _, b := range m.broken {
		if within(b, p) || within(p, b) {
			return true
		}
	}
	return m.files && len(p) == 1 && p[0][0] == "post"
}

// base says that a rule hides the whole of a point such as uri or path.
func (m *Masker) base(name string) bool {
	return slices.ContainsFunc(m.hidden, func(h fleet.Point) bool { return len(h) == 1 && len(h[0]) == 1 && h[0][0] == name })
}

// Path masks a path; a query is cut off.
func (m *Masker) Path(path string) string {
	path, _, _ = strings.Cut(path, "?")
	return m.path(path)
}

func (m *Masker) path(path string) string {
	if path == "" {
		return ""
	}
	if m.opaque() || m.base("path") || m.base("uri") {
		return Hidden
	}
	// A segment that is too short to be looked for everywhere is looked for as a segment, and as what is beside its dot.
	segments := strings.Split(path, "/")
	for i, s := range segments {
		parts := strings.Split(s, ".")
		for j, part := range parts {
			if m.whole[fold(decode(part))] {
				parts[j] = Hidden
			}
		}
		if segments[i] = strings.Join(parts, "."); m.whole[fold(decode(s))] {
			segments[i] = Hidden
		}
	}
	return m.String(strings.Join(segments, "/"))
}

// URI masks a request target: secrets in its path, and in its query the values of sensitive names.
func (m *Masker) URI(uri string) string {
	if uri == "" {
		return ""
	}
	if m.opaque() || m.base("uri") {
		return Hidden
	}
	if user := userinfo(uri); user != "" {
		uri = strings.Replace(uri, user+"@", Hidden+"@", 1)
	}
	path, query, found := strings.Cut(uri, "?")
	out := m.Path(path)
	if !found {
		return out
	}
	if slices.ContainsFunc(m.broken, func(p fleet.Point) bool { return p[0][0] == "get" }) {
		return out + "?" + Hidden
	}
	pairs := strings.Split(query, "&")
	for i, pair := range pairs {
		name, value, assigned := strings.Cut(pair, "=")
		switch {
		case assigned && m.hidesArgument(name):
			pairs[i] = m.String(name) + "=" + Hidden
		case assigned:
			pairs[i] = m.String(name) + "=" + m.String(value)
		default:
			pairs[i] = m.String(name)
		}
	}
	out += "?" + strings.Join(pairs, "&")
	if m.leaks(out) {
		return Hidden
	}
	return out
}

func (m *Masker) hidesArgument(name string) bool {
	name = decode(plusToSpace(name))
	return m.sensitive(name) || m.Hides(fleet.Point{{"get", name}})
}

// Points returns the names of the points with masked values, sorted, such as get.password or header.COOKIE, and post
// for a body that was not parsed.
func (m *Masker) Points() []string {
	if m.set == nil {
		return []string{Hidden}
	}
	var names []string
	for _, p := range slices.Concat(m.hidden, m.touched, m.broken) {
		name := m.String(request.PointString(p))
		names = append(names, name[:min(len(name), maxPointName)])
	}
	slices.Sort(names)
	names = slices.Compact(names)
	return names[:min(len(names), maxPoints)]
}

// within reports whether p is at or below parent. A base without its name, such as get, is above all of its values.
func within(p, parent fleet.Point) bool {
	if len(parent) > len(p) {
		return false
	}
	for i, e := range parent {
		if e[0] != p[i][0] || len(e) > len(p[i]) || len(e) == 2 && e[1] != p[i][1] {
			return false
		}
	}
	return true
}
