package mask

import (
	"slices"
	"strings"

	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/fleet/request"
)

// Masker hides the sensitive values of one request in text about that request. It is immutable and safe for concurrent
// use. Mask first, shorten afterwards: a part of a secret is not recognised.
type Masker struct {
	set *Set
	// hidden are the points with a sensitive name, broken the parents that were not parsed.
	hidden, broken []fleet.Point
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

// String masks text that is not known to belong to a point. A text in which the search would take too long is hidden.
func (m *Masker) String(v string) string {
	if v == "" {
		return ""
	}
	if m.opaque() || m.whole[fold(v)] || len(v)*len(m.secrets) > maxWork {
		return Hidden
	}
	out := replaceRanges(v, m.occurrences(v))
	out = m.set.hideAssigned(out)
	out = hideEmails(out)
	out = hideCards(out)
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
	}
	return m.String(v)
}

// Hides says that nothing of the value at p may be shown: its name is sensitive, it holds a sensitive value, or it is,
// or is part of, something that was not parsed.
func (m *Masker) Hides(p fleet.Point) bool {
	if m.opaque() || m.set.at(p) != nil {
		return true
	}
	for _, h := range m.hidden {
		if within(h, p) {
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

// Path masks a path; a query is cut off.
func (m *Masker) Path(path string) string {
	path, _, _ = strings.Cut(path, "?")
	return m.String(path)
}

// URI masks a request target: secrets in its path, and in its query the values of sensitive names.
func (m *Masker) URI(uri string) string {
	if uri == "" {
		return ""
	}
	if m.opaque() {
		return Hidden
	}
	if user := userinfo(uri); user != "" {
		uri = strings.Replace(uri, user+"@", Hidden+"@", 1)
	}
	path, query, found := strings.Cut(uri, "?")
	out := m.String(path)
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
		case assigned && m.set.sensitive(decode(name)):
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

// Points returns the names of the points with masked values, sorted, such as get.password or header.COOKIE, and post
// for a body that was not parsed.
func (m *Masker) Points() []string {
	if m.set == nil {
		return []string{Hidden}
	}
	var names []string
	for _, p := range slices.Concat(m.hidden, m.broken) {
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
