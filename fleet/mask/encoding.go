package mask

import (
	"encoding/base64"
	"encoding/json"
	"html"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"unicode"
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

func plusToSpace(s string) string { return strings.ReplaceAll(s, "+", " ") }

var percentByte = regexp.MustCompile(`%(?:u[0-9A-Fa-f]{4}|[0-9A-Fa-f]{2})`)

// decode removes percent-encoding, also that of IIS (%u0041), and leaves what is not valid as it is.
func decode(s string) string {
	if !strings.Contains(s, "%") {
		return s
	}
	return percentByte.ReplaceAllStringFunc(s, func(e string) string {
		n, err := strconv.ParseUint(strings.TrimPrefix(e[1:], "u"), 16, 16)
		switch {
		case err != nil:
			return e
		case e[1] == 'u':
			return string(rune(n))
		}
		return string([]byte{byte(n)})
	})
}

// jsonEscape are the escapes of JSON, and those that JavaScript has besides.
var jsonEscape = regexp.MustCompile(`(?:\\u[0-9A-Fa-f]{4})+|\\["\\/bfnrt]|\\x[0-9A-Fa-f]{2}|\\u\{[0-9A-Fa-f]{1,6}\}`)

func unescapeJSON(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	return jsonEscape.ReplaceAllStringFunc(s, func(e string) string {
		if strings.HasPrefix(e, `\x`) || strings.HasPrefix(e, `\u{`) {
			n, err := strconv.ParseUint(strings.Trim(e[2:], "{}"), 16, 32)
			if err != nil || n > unicode.MaxRune {
				return e
			}
			return string(rune(n))
		}
		var plain string
		if err := json.Unmarshal([]byte(`"`+e+`"`), &plain); err != nil {
			return e
		}
		return plain
	})
}
