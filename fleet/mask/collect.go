package mask

import (
	"encoding/base64"
	"regexp"
	"slices"
	"strings"

	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/fleet/request"
)

const (
	// minSecret is the length from which a value is looked for everywhere.
	minSecret = 4
	// maxSecrets bounds the values looked for; over it everything is hidden.
	maxSecrets = 256
	// maxWork bounds the search in one text: its bytes times the values looked for.
	maxWork = 2 << 20
	// maxPoints and maxPointName bound what Points returns.
	maxPoints    = 64
	maxPointName = 128
)

// Apply collects the sensitive values of r.
func (s *Set) Apply(r *request.Request) *Masker {
	m := &Masker{set: s, whole: map[string]bool{}, by: map[string]string{}}
	if s == nil {
		return m
	}
	for _, p := range r.Problems() {
		if p.Reason != request.ReasonAmbiguousPath { // it was parsed, in each of its readings
			m.broken = append(m.broken, p.Point)
		}
	}
	rules := s.active(r)
	for _, c := range rules {
		switch {
		case c.pattern == nil && c.name != "":
			m.named = append(m.named, c)
		case c.pattern != nil && c.name == "" && len(c.point) == 0:
			m.patterns = append(m.patterns, c.pattern)
		}
	}
	secrets := map[string]bool{}
	m.collectNamed(r, secrets)
	for _, c := range rules {
		m.collectRule(r, c, secrets)
	}
	if user := userinfo(r.Input().URI); user != "" {
		secrets[user] = true
		if _, password, ok := strings.Cut(user, ":"); ok {
			secrets[password] = true
		}
	}
	m.learn(secrets)
	return m
}

// collectNamed collects what has a sensitive name, at its point or in a text.
func (m *Masker) collectNamed(r *request.Request, secrets map[string]bool) {
	for _, v := range r.All() {
		m.files = m.files || len(v.Point) > 1 && slices.ContainsFunc(v.Point[1:], func(e []string) bool { return e[0] == "multipart" })
		if p, by := m.at(v.Point); p != nil {
			m.hide(p, by)
			collect(secrets, v)
			continue
		}
		// A referer holds a query, a text holds a form: what such names are given there is sensitive too.
		for _, found := range m.assigned(v.Raw) {
			secrets[found] = true
		}
	}
}

// collectRule collects what a customer's rule hides.
func (m *Masker) collectRule(r *request.Request, c rule, secrets map[string]bool) {
	for _, v := range c.values(r) {
		if c.pattern == nil {
			if c.name == "" { // otherwise it is hidden at its name already
				m.hide(v.Point, string(c.id))
				collect(secrets, v)
			}
			continue
		}
		for _, text := range []string{v.Value, v.Raw} {
			for _, found := range c.pattern.FindAllString(text, maxSecrets+1) {
				secrets[found] = true
				if len(found) < minSecret { // it is too short to be looked for
					m.hide(v.Point, string(c.id))
				} else {
					m.touch(v.Point, string(c.id))
				}
			}
		}
	}
}

func (m *Masker) hide(p fleet.Point, by string) {
	if key := "h" + request.PointString(p); m.by[key] == "" {
		m.by[key], m.by[request.PointString(p)] = by, by
		m.hidden = append(m.hidden, p)
	}
}

func (m *Masker) touch(p fleet.Point, by string) {
	if key := "t" + request.PointString(p); m.by[key] == "" {
		m.by[key] = by
		if m.by[request.PointString(p)] == "" {
			m.by[request.PointString(p)] = by
		}
		m.touched = append(m.touched, p)
	}
}

// collect adds what in v is secret: the value as sent and decoded, and the credentials of an Authorization header. The
// header of a token, and the words of JSON, are the same everywhere.
func collect(secrets map[string]bool, v request.Value) {
	if slices.ContainsFunc(v.Point, func(e []string) bool { return len(e) == 2 && e[1] == "jwt_header" }) || v.Raw == "true" || v.Raw == "false" || v.Raw == "null" {
		return
	}
	for _, s := range []string{v.Raw, v.Value} {
		secrets[s] = true
		secrets[strings.TrimSpace(s)] = true
		secrets[strings.Trim(s, `"`)] = true
	}
	scheme, credentials, ok := strings.Cut(strings.TrimSpace(v.Value), " ")
	if v.Point[0][0] != "header" || !ok {
		return
	}
	credentials = strings.TrimSpace(credentials)
	secrets[credentials] = true
	if !strings.EqualFold(scheme, "Basic") {
		return
	}
	if plain, err := base64.StdEncoding.DecodeString(credentials); err == nil {
		secrets[string(plain)] = true
		_, password, _ := strings.Cut(string(plain), ":")
		secrets[password] = true
	}
}

// learn prepares the search for secrets.
func (m *Masker) learn(secrets map[string]bool) {
	seen := map[string]bool{}
	for s := range secrets {
		s = fold(s)
		if s == "" || seen["="+s] {
			continue
		}
		seen["="+s] = true
		if len(s) < minSecret {
			m.whole[s] = true
			continue
		}
		m.secrets = append(m.secrets, s)
	}
	if len(m.secrets) > maxSecrets {
		m.overflow = true
		return
	}
	// Encodings are made of the value as it was sent: base64 has case.
	for s := range secrets {
		if len(s) < minSecret {
			continue
		}
		for _, v := range encodings(s) {
			if v = fold(v); len(v) >= minSecret && !seen[v] {
				seen[v] = true
				m.variants = append(m.variants, v)
			}
		}
	}
	slices.Sort(m.secrets)
	slices.Sort(m.variants)
}

// hidePatterns hides what the customer's patterns match anywhere.
func (m *Masker) hidePatterns(v string) string {
	for _, re := range m.patterns {
		v = hideMatches(re, v)
	}
	return v
}

func hideMatches(re *regexp.Regexp, v string) string {
	var spans []span
	for _, at := range re.FindAllStringIndex(v, -1) {
		if v[at[0]:at[1]] != Hidden && at[1] > at[0] {
			spans = append(spans, span{at[0], at[1]})
		}
	}
	return replaceRanges(v, spans)
}

// userinfo is user:password of an absolute request target.
func userinfo(uri string) string {
	_, rest, ok := strings.Cut(uri, "://")
	if !ok {
		return ""
	}
	if i := strings.IndexAny(rest, "/?#"); i >= 0 {
		rest = rest[:i]
	}
	if i := strings.LastIndexByte(rest, '@'); i >= 0 {
		return rest[:i]
	}
	return ""
}
