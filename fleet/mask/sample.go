package mask

import (
	"slices"
	"strings"

	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/fleet/request"
)

// What hides a value, where it is not a rule.
const (
	// ByDefault: the default pack.
	ByDefault = "default"
	// ByUnparsed: it is, or is part of, what was not parsed.
	ByUnparsed = "unparsed"
	// ByHolding: it holds a value that is hidden at its own point.
	ByHolding = "holds"
	// ByText: a part of it is a hidden value once more, a card number, an address, or given to a sensitive name.
	ByText = "text"
	// ByMissing: there are no masks, or too many values to hide.
	ByMissing = "missing"
)

// Sample is one value of a request, before and after masking.
type Sample struct {
	Point  string `json:"point"`
	Before string `json:"before"`
	After  string `json:"after"`
	// By is what hides it: the id of a rule, default, unparsed, holds, text or missing; empty if it is shown as it is.
	By string `json:"by,omitempty"`
}

// Test shows what s makes of each value of r. The result holds the values themselves: it is for who wrote r.
func (s *Set) Test(r *request.Request) []Sample {
	m := s.Apply(r)
	samples := make([]Sample, 0, len(r.All()))
	for _, v := range r.All() {
		sample := Sample{Point: request.PointString(v.Point), Before: v.Value, After: m.Excerpt(v.Point, v.Value)}
		if sample.After != sample.Before {
			sample.By = m.reason(v.Point)
		}
		samples = append(samples, sample)
	}
	return samples
}

// reason says what hides the value at p.
func (m *Masker) reason(p fleet.Point) string {
	if m.opaque() {
		return ByMissing
	}
	if at, by := m.at(p); at != nil {
		return by
	}
	for _, h := range m.hidden {
		if within(p, h) {
			return m.by[request.PointString(h)]
		}
	}
	for _, t := range m.touched {
		if within(p, t) {
			return m.by[request.PointString(t)]
		}
	}
	if slices.ContainsFunc(m.broken, func(b fleet.Point) bool { return within(b, p) || within(p, b) }) {
		return ByUnparsed
	}
	if m.Hides(p) {
		return ByHolding
	}
	return ByText
}

// Endpoint is a place of an application, as its requests show it.
type Endpoint struct {
	Host   fleet.HostName `json:"host"`
	Method string         `json:"method"`
	Path   string         `json:"path"`
	// Parameters are the points of its parameters.
	Parameters []fleet.Point `json:"parameters"`
}

// Gap is a parameter of an endpoint that looks as if it took credentials or personal data, and that no mask hides.
type Gap struct {
	Host   fleet.HostName `json:"host"`
	Method string         `json:"method"`
	Path   string         `json:"path"`
	Point  string         `json:"point"`
	// Name is the one that looks so, Word what is in it that does.
	Name string `json:"name"`
	Word string `json:"word"`
}

// credentialWords are parts of names that the default pack does not hide, because they often mean something harmless.
var credentialWords = []string{
	"account", "answer", "auth", "bearer", "birth", "cert", "code", "credit", "cvc", "cvv", "dob", "expiry", "hash", "iban", "insurance", "key", "licence",
	"license", "login", "mfa", "mobile", "mnemonic", "nonce", "otp", "pan", "pass", "passport", "phone", "pin", "private", "recovery", "refresh", "routing", "salt",
	"seed", "sess", "session", "sid", "sig", "signature", "ssn", "swift", "tax", "totp", "verification",
}

// Coverage returns the gaps of endpoints, in their order. A nil Set has none: it hides everything.
func (s *Set) Coverage(endpoints []Endpoint) []Gap {
	if s == nil {
		return nil
	}
	var gaps []Gap
	for _, e := range endpoints {
		active := s.active(request.Parse(request.Input{Method: e.Method, Scheme: "https", Host: string(e.Host), URI: e.Path}, request.Limits{}))
		for _, p := range e.Parameters {
			p = request.Canonical(p)
			name, word := credential(p)
			if word == "" || s.covers(active, p) {
				continue
			}
			gaps = append(gaps, Gap{Host: e.Host, Method: e.Method, Path: e.Path, Point: request.PointString(p), Name: name, Word: word})
		}
	}
	return gaps
}

// credential returns the name in p that looks as if it took a credential, and the word for which it does.
func credential(p fleet.Point) (name, word string) {
	for _, e := range p {
		if !named(e) {
			continue
		}
		for w := range words(e[1]) {
			if slices.Contains(credentialWords, w) {
				return e[1], w
			}
		}
	}
	return "", ""
}

// words yields the words of a name in lower case: those between punctuation, and those of camelCase.
func words(name string) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		start := 0
		for i := 0; i <= len(name); i++ {
			upper := i < len(name) && name[i] >= 'A' && name[i] <= 'Z'
			edge := i == len(name) || !isWord(rune(fold(name[i : i+1])[0])) || upper && i > 0 && name[i-1] >= 'a' && name[i-1] <= 'z'
			if !edge {
				continue
			}
			w := strings.TrimFunc(fold(name[start:i]), func(r rune) bool { return !isWord(r) })
			if w != "" && !yield(w) {
				return
			}
			start = i
		}
	}
}

// covers says that a mask hides what is at p whole. A pattern may, but does not have to.
func (s *Set) covers(active []rule, p fleet.Point) bool {
	if s.at(p) != nil {
		return true
	}
	return slices.ContainsFunc(active, func(r rule) bool {
		return r.pattern == nil && (r.named(p) != nil || len(r.point) > 0 && request.Covers(r.point, p))
	})
}
