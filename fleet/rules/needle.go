package rules

import (
	"regexp/syntax"
	"strings"
	"unicode/utf8"
)

// maxNeedles bounds the alternatives that are looked for before an expression is run.
const maxNeedles = 16

// needles are texts in lower case of which every match of re has one, after ASCII letters were made lower case in it.
// Looking for them is some hundred times cheaper than running re. None means that nothing can be said.
func needles(re *syntax.Regexp) [][]byte {
	var out [][]byte
	for _, n := range required(re) {
		out = append(out, []byte(n))
	}
	return out
}

func required(re *syntax.Regexp) []string {
	switch re.Op { //nolint:exhaustive // of all others nothing is known
	case syntax.OpLiteral:
		if l := longestPiece(string(re.Rune), re.Flags&syntax.FoldCase != 0); l != "" {
			return []string{l}
		}
	case syntax.OpCapture, syntax.OpPlus:
		return required(re.Sub[0])
	case syntax.OpRepeat:
		if re.Min > 0 {
			return required(re.Sub[0])
		}
	case syntax.OpConcat:
		var best []string
		for _, sub := range re.Sub {
			if r := required(sub); shortest(r) > shortest(best) {
				best = r
			}
		}
		return best
	case syntax.OpAlternate:
		var all []string
		for _, sub := range re.Sub {
			r := required(sub)
			if len(r) == 0 || len(all)+len(r) > maxNeedles {
				return nil
			}
			all = append(all, r...)
		}
		return all
	}
	return nil
}

// longestPiece is the longest part of a literal that a match has for certain. Without case, k and s also match letters
// beyond ASCII (the Kelvin sign, the long s); the replacement character matches bytes that are no UTF-8.
func longestPiece(literal string, fold bool) string {
	best := ""
	for piece := range strings.FieldsFuncSeq(literal, func(r rune) bool {
		return r == utf8.RuneError || fold && (r >= utf8.RuneSelf || strings.ContainsRune("kKsS", r))
	}) {
		if len(piece) > len(best) {
			best = piece
		}
	}
	return string(appendLower(nil, best))
}

// shortest is the length of the shortest of list; 0 for none.
func shortest(list []string) int {
	n := 0
	for i, s := range list {
		if i == 0 || len(s) < n {
			n = len(s)
		}
	}
	return n
}

// least is how many bytes every match of re has.
func least(re *syntax.Regexp) int {
	const enough = 1 << 20
	n := 0
	switch re.Op { //nolint:exhaustive // all others may match nothing
	case syntax.OpLiteral:
		return len(re.Rune) // in bytes it may be more
	case syntax.OpCharClass, syntax.OpAnyChar, syntax.OpAnyCharNotNL:
		return 1
	case syntax.OpCapture, syntax.OpPlus:
		return least(re.Sub[0])
	case syntax.OpRepeat:
		return min(least(re.Sub[0])*re.Min, enough)
	case syntax.OpConcat:
		for _, sub := range re.Sub {
			n = min(n+least(sub), enough)
		}
	case syntax.OpAlternate:
		n = enough
		for _, sub := range re.Sub {
			n = min(n, least(sub))
		}
	}
	return n
}

// appendLower appends s with its ASCII letters in lower case.
func appendLower(b []byte, s string) []byte {
	for i := range len(s) {
		c := s[i]
		if c >= 'A' && c <= 'Z' {
			c += 'a' - 'A'
		}
		b = append(b, c)
	}
	return b
}
