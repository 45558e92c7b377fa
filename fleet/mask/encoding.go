package mask

import (
	"encoding/base64"
	"encoding/json"
	"html"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// encodings returns s as clients and servers write it. Case does not matter, except that it goes into base64.
func encodings(s string) []string {
	out := []string{s, url.QueryEscape(s), url.PathEscape(s), strings.ReplaceAll(url.QueryEscape(s), "+", "%20"), html.EscapeString(s)}
	for _, escapeHTML := range []bool{true, false} {
		var b strings.Builder
		enc := json.NewEncoder(&b)
		enc.SetEscapeHTML(escapeHTML)
		if err := enc.Encode(s); err == nil {
			quoted := strings.TrimSpace(b.String())
			out = append(out, quoted[1:len(quoted)-1])
		}
	}
	out = append(out, strings.ReplaceAll(s, "/", `\/`))
	return append(out, base64Cores(s)...)
}

// base64Cores returns the characters that s alone decides in the base64 of a text that contains s: at each of the three
// offsets, without the characters that it shares with its neighbours.
func base64Cores(s string) []string {
	var out []string
	for offset := range 3 {
		first := (8*offset + 5) / 6       // the first character that begins at or after the first bit of s
		last := 8 * (offset + len(s)) / 6 // the end of the last character that ends at or before its last bit
		padded := strings.Repeat("\x00", offset) + s
		for _, e := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
			out = append(out, e.EncodeToString([]byte(padded))[first:last])
		}
	}
	return out
}

const (
	// decodeRounds bounds the nesting of encodings that are looked through, maxForms the readings of one text.
	decodeRounds = 3
	maxForms     = 16
)

// leaks looks for secrets, card numbers and addresses in out and in what it means after decoding, in any order of
// encodings. A text with too many readings counts as one that leaks.
func (m *Masker) leaks(out string) bool {
	if m.contains(out) {
		return true
	}
	forms := []string{out}
	for range decodeRounds {
		var next []string
		for _, form := range forms {
			for _, step := range []func(string) string{decode, unescapeJSON, html.UnescapeString, plusToSpace} {
				plain := step(form)
				if plain == form || slices.Contains(next, plain) {
					continue
				}
				if m.contains(plain) || hideCards(plain) != plain || hideEmails(plain) != plain {
					return true
				}
				next = append(next, plain)
			}
		}
		if len(next) > maxForms {
			return true
		}
		forms = next
	}
	return false
}

func (m *Masker) contains(s string) bool {
	s = fold(s)
	for _, secret := range m.secrets {
		if strings.Contains(s, secret) {
			return true
		}
	}
	return false
}

func plusToSpace(s string) string { return strings.ReplaceAll(s, "+", " ") }

var percentByte = regexp.MustCompile(`%[0-9A-Fa-f]{2}`)

// decode removes percent-encoding and leaves what is not valid as it is.
func decode(s string) string {
	if !strings.Contains(s, "%") {
		return s
	}
	return percentByte.ReplaceAllStringFunc(s, func(e string) string {
		n, err := strconv.ParseUint(e[1:], 16, 8)
		if err != nil {
			return e
		}
		return string([]byte{byte(n)})
	})
}

var jsonEscape = regexp.MustCompile(`(?:\\u[0-9A-Fa-f]{4})+|\\["\\/bfnrt]`)

func unescapeJSON(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	return jsonEscape.ReplaceAllStringFunc(s, func(e string) string {
		var plain string
		if err := json.Unmarshal([]byte(`"`+e+`"`), &plain); err != nil {
			return e
		}
		return plain
	})
}
