package mask

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"html"
	"io"
	"slices"
	"strings"
	"unicode/utf8"
)

const (
	// decodeRounds bounds the nesting of encodings that are looked through, maxForms the readings of one text in a round.
	decodeRounds = 5
	maxForms     = 24
	// maxInflated bounds what a compressed part of a text is inflated to, minRun is the length from which a run of base64's
	// characters is decoded: four bytes have six.
	maxInflated = 256 << 10
	minRun      = 6
	// minReadable is the length from which text between other bytes is not there by chance.
	minReadable = 8
)

// leaks looks for what is hidden in out and in what it means after decoding, in any order of encodings. A text with too
// many readings counts as one that leaks.
func (m *Masker) leaks(out string) bool {
	if m.contains(out) {
		return true
	}
	forms, seen := []string{out}, map[string]bool{out: true}
	for range decodeRounds {
		var next []string
		for _, form := range forms {
			plain, leaked := m.decodings(form)
			if leaked {
				return true
			}
			for _, p := range plain {
				if seen[p] {
					continue
				}
				seen[p] = true
				if m.shows(p) {
					return true
				}
				next = append(next, p)
			}
		}
		if len(next) > maxForms {
			return true
		}
		forms = next
	}
	return false
}

// decodings are the texts that form may stand for. leaked says that one shows a secret, although it is no text.
func (m *Masker) decodings(form string) (plain []string, leaked bool) {
	for _, step := range []func(string) string{decode, unescapeJSON, html.UnescapeString, plusToSpace} {
		if p := step(form); p != form {
			plain = append(plain, p)
		}
	}
	if i := strings.Index(form, gzipMagic); i >= 0 {
		plain = append(plain, inflate(form[i:]))
	}
	for _, run := range runs(form) {
		// What is written before a run of base64 without a space belongs to it by mistake.
		for offset := range min(4, len(run)) {
			p := decodeBase64(run[offset:])
			if m.contains(p) || m.unfolds(p) {
				return nil, true
			}
			if i := strings.Index(p, gzipMagic); i >= 0 {
				plain = append(plain, inflate(p[i:]))
			}
			plain = append(plain, readable(p, minReadable+len(run)/256)...)
		}
	}
	return plain, false
}

// unfolds says that s, which need not be text as a whole, shows a secret when all its escapes are undone together.
func (m *Masker) unfolds(s string) bool {
	for range decodeRounds {
		if !strings.ContainsAny(s, `%\&`) {
			return false
		}
		plain := html.UnescapeString(unescapeJSON(decode(s)))
		if plain == s {
			return false
		}
		if s = plain; m.contains(s) {
			return true
		}
	}
	return false
}

// shows says that text has a secret, a card number, an address, or what a pattern hides.
func (m *Masker) shows(text string) bool {
	return m.contains(text) || hideCards(text) != text || hideEmails(text) != text || m.hidePatterns(text) != text
}

func (m *Masker) contains(s string) bool {
	s = fold(s)
	return slices.ContainsFunc(m.secrets, func(secret string) bool { return strings.Contains(s, secret) })
}

const gzipMagic = "\x1f\x8b\x08"

// inflate returns the beginning of what s holds.
func inflate(s string) string {
	z, err := gzip.NewReader(strings.NewReader(s))
	if err != nil {
		return ""
	}
	var out bytes.Buffer
	_, _ = io.Copy(&out, io.LimitReader(z, maxInflated)) // what comes before an error is looked at
	return out.String()
}

// runs are the parts of s that may be base64, of either alphabet; line ends are no part of it.
func runs(s string) []string {
	if strings.ContainsAny(s, "\r\n") {
		s = strings.NewReplacer("\r", "", "\n", "").Replace(s)
	}
	var found []string
	start := 0
	for i := 0; i <= len(s); i++ {
		if i < len(s) && base64Byte(s[i]) {
			continue
		}
		if i-start >= minRun {
			found = append(found, s[start:i])
		}
		start = i + 1
	}
	return found
}

func base64Byte(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '+' || c == '/' || c == '-' || c == '_'
}

var urlAlphabet = strings.NewReplacer("-", "+", "_", "/")

func decodeBase64(s string) string {
	if len(s)%4 == 1 {
		s = s[:len(s)-1]
	}
	plain, err := base64.RawStdEncoding.DecodeString(urlAlphabet.Replace(s))
	if err != nil {
		return ""
	}
	return string(plain)
}

// readable returns the texts in s of which more may be decoded: s as a whole, or what is between bytes that are no text,
// if it is too long to be there by chance.
func readable(s string, long int) []string {
	var found []string
	start := 0
	for i, r := range s + "\x00" {
		if (r >= ' ' || r == '\t' || r == '\r' || r == '\n') && r != utf8.RuneError {
			continue
		}
		if part := s[start:min(i, len(s))]; len(part) >= long || len(part) == len(s) && len(s) >= minSecret {
			found = append(found, part)
		}
		start = i + utf8.RuneLen(r)
		if r == utf8.RuneError {
			start = i + 1
		}
	}
	return found
}
