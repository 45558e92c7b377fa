package mask

import (
	"encoding/base64"
	"slices"
	"strings"

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
	m := &Masker{set: s, whole: map[string]bool{}}
	if s == nil {
		return m
	}
	for _, p := range r.Problems() {
		if p.Reason != request.ReasonAmbiguousPath { // it was parsed, in each of its readings
			m.broken = append(m.broken, p.Point)
		}
	}
	secrets, hidden := map[string]bool{}, map[string]bool{}
	for _, v := range r.All() {
		m.files = m.files || len(v.Point) > 1 && v.Point[1][0] == "multipart"
		if p := s.at(v.Point); p != nil {
			if name := request.PointString(p); !hidden[name] {
				hidden[name] = true
				m.hidden = append(m.hidden, p)
			}
			collect(secrets, v)
			continue
		}
		// A referer holds a query, a text holds a form: what such names are given there is sensitive too.
		for _, found := range s.assigned(v.Raw) {
			secrets[found] = true
		}
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

// collect adds what in v is secret: the value as sent and decoded, and the credentials of an Authorization header.
func collect(secrets map[string]bool, v request.Value) {
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
