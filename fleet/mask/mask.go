// Package mask hides the sensitive values of a request in everything that leaves the request path.
//
// It owns which values are sensitive: by the names of a default pack, and by the customer's rules of kind sensitive_data,
// which have a point, a name in any place, or a pattern. And it owns how their values are found again: at their own point,
// and wherever the same value occurs once more (a path, a referer, an error text), in the encodings that clients use and
// in any order of them: percent, HTML and JSON escapes, base64 at any offset, gzip, tokens. It does not change the
// request, which the origin receives as it was sent. It fails closed: what could not be parsed is hidden as a whole, and a
// nil Set, which stands for masks that could not be loaded, hides everything, so that only metadata leaves.
//
// A value shorter than four bytes is hidden at its own point, in the path and in the query only, because it would be
// found by chance everywhere.
package mask

import (
	"slices"
	"strings"

	"github.com/edgefleet/edgefleet/fleet"
)

// Hidden stands for a value, or a part of one, that was masked.
const Hidden = "*"

// Set says what is sensitive: names, and what a customer's rules say. It is immutable and safe for concurrent use; a nil Set masks everything.
type Set struct {
	// within are looked for anywhere in a name without its punctuation, words in full between punctuation.
	within, words []string
	// rules are the customer's.
	rules []rule
}

// Default is the built-in pack. Names are compared without case, and without - and _ (and what else separates words).
func Default() *Set {
	return &Set{
		within: []string{
			"token", "password", "passwd", "passphrase", "pwd", "secret", "apikey", "accesskey", "privatekey", "email",
			"ccnumber", "ccnum", "cardnumber", "cardnum", "creditcard", "authorization", "cookie", "credential", "jwt",
			"sessionid", "phpsessid",
		},
		words: []string{"pass", "auth", "cvv", "cvv2", "cvc", "ssn", "pin", "otp", "sid", "iban"},
	}
}

// sensitive says whether a parameter's or header's name is one whose values are hidden.
func (s *Set) sensitive(name string) bool {
	name = fold(name)
	joined := strings.Map(func(r rune) rune {
		if isWord(r) {
			return r
		}
		return -1
	}, name)
	if slices.ContainsFunc(s.within, func(w string) bool { return strings.Contains(joined, w) }) {
		return true
	}
	for word := range strings.FieldsFuncSeq(name, func(r rune) bool { return !isWord(r) }) {
		if slices.Contains(s.words, word) {
			return true
		}
	}
	return false
}

// at returns the shortest prefix of p whose last name is sensitive, nil if there is none.
func (s *Set) at(p fleet.Point) fleet.Point {
	for i, e := range p {
		if len(e) == 2 && e[0] != "array" && e[0] != "path" && s.sensitive(e[1]) {
			return p[:i+1]
		}
	}
	return nil
}

func isWord(r rune) bool { return r >= 'a' && r <= 'z' || r >= '0' && r <= '9' }

// fold lower-cases ASCII only, so that the result has the length of s.
func fold(s string) string {
	if !strings.ContainsFunc(s, func(r rune) bool { return r >= 'A' && r <= 'Z' }) {
		return s
	}
	b := []byte(s)
	for i, c := range b {
		if c >= 'A' && c <= 'Z' {
			b[i] = c + 'a' - 'A'
		}
	}
	return string(b)
}
