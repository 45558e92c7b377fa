package request

import (
	"encoding/base64"
	"errors"
	"strings"
	"unicode/utf8"
)

// minBase64 is the length from which a value is taken for base64 by itself; shorter ones are words.
const minBase64 = 8

// isBase64: the value has base64's characters only, and what its beginning decodes to begins text or gzip. Whether the
// rest does is found out by parsing.
func isBase64(n *node) bool {
	if n.whole() || n.Point[0][0] == "path" || endsWith(n, "pollution") {
		return false
	}
	s := base64Text(n)
	if len(s) < minBase64 || len(s)%4 == 1 {
		return false
	}
	var first [6]byte
	for i := range len(s) {
		if base64Digit(s[i]) < 0 {
			return false
		}
	}
	start := decode64(first[:0], s[:minBase64])
	return printableStart(start) || string(start[:len(gzipMagic)]) == gzipMagic
}

// parseBase64 adds what n decodes to: text or gzip, or whatever a rule asks for.
func parseBase64(b *builder, n node) error {
	s := base64Text(&n)
	if len(s)%4 == 1 || len(s) == 0 {
		return errOther
	}
	for i := range len(s) {
		if base64Digit(s[i]) < 0 {
			return errOther
		}
	}
	plain := string(decode64(make([]byte, 0, len(s)*3/4+3), s))
	if !b.wants(&n, parsesBase64) && !printable(plain) && !strings.HasPrefix(plain, gzipMagic) {
		return errOther
	}
	if !b.add(n.child(plain, plain, "base64")) {
		return errStop
	}
	return nil
}

// base64Text is the part of n's value that may be base64: without padding, line ends, and the scheme of credentials.
// Plus signs that became spaces are put back.
func base64Text(n *node) string {
	s := n.Value.Value
	if n.Point[0][0] == "header" {
		if scheme, rest, ok := strings.Cut(s, " "); ok && strings.EqualFold(scheme, "basic") {
			s = rest
		}
	}
	if strings.IndexByte(s, ' ') >= 0 && strings.IndexByte(n.Raw, '+') >= 0 {
		s = strings.ReplaceAll(s, " ", "+")
	}
	s = strings.TrimRight(strings.Trim(s, " \t\r\n"), "=")
	if strings.IndexByte(s, '\n') >= 0 {
		s = strings.NewReplacer("\r", "", "\n", "").Replace(s)
	}
	return s
}

// base64Digit is the value of a digit of either alphabet (RFC 4648 sections 4 and 5), -1 for any other character.
func base64Digit(c byte) int {
	switch {
	case c >= 'A' && c <= 'Z':
		return int(c - 'A')
	case c >= 'a' && c <= 'z':
		return int(c-'a') + 26
	case c >= '0' && c <= '9':
		return int(c-'0') + 52
	case c == '+' || c == '-':
		return 62
	case c == '/' || c == '_':
		return 63
	}
	return -1
}

// decode64 appends what the digits of s decode to, whatever their alphabets.
func decode64(out []byte, s string) []byte {
	bits, n := 0, 0
	for i := range len(s) {
		bits, n = bits<<6|base64Digit(s[i])&63, n+6
		if n >= 8 {
			n -= 8
			out = append(out, byte(bits>>n))
			bits &= 1<<n - 1
		}
	}
	return out
}

// printableStart says that b may begin text: it has no control character and no byte that UTF-8 does not have.
func printableStart(b []byte) bool {
	for _, c := range b {
		if c < ' ' && c != '\t' && c != '\r' && c != '\n' || c == 0x7f || c == 0xc0 || c == 0xc1 || c > 0xf4 {
			return false
		}
	}
	return len(b) > 0 && (b[0] < 0x80 || b[0] > 0xc1)
}

func printable(s string) bool {
	for _, r := range s {
		if r < ' ' && r != '\t' && r != '\r' && r != '\n' || r == 0x7f || r == utf8.RuneError {
			return false
		}
	}
	return s != ""
}

// isJWT: three parts of base64url, of which the first is a JSON object (RFC 7519); behind a scheme in headers.
func isJWT(n *node) bool {
	if n.whole() || n.Point[0][0] == "path" || endsWith(n, "pollution") {
		return false
	}
	header, _, _, ok := cutJWT(n.Value.Value)
	if !ok || !strings.HasPrefix(header, "eyJ") {
		return false
	}
	for i := range len(header) {
		if base64Digit(header[i]) < 0 {
			return false
		}
	}
	return true
}

// cutJWT splits a token of three parts.
func cutJWT(s string) (header, payload, signature string, ok bool) {
	if strings.Count(s, ".") != 2 {
		return "", "", "", false
	}
	if _, token, found := strings.Cut(strings.TrimSpace(s), " "); found {
		s = token
	}
	header, rest, _ := strings.Cut(strings.TrimSpace(s), ".")
	payload, signature, _ = strings.Cut(rest, ".")
	return header, payload, signature, header != "" && payload != ""
}

func parseJWT(b *builder, n node) error {
	header, payload, signature, ok := cutJWT(n.Value.Value)
	if !ok {
		return errOther
	}
	if _, err := base64.RawURLEncoding.DecodeString(header); err != nil && !b.wants(&n, parsesJWT) {
		return errOther
	}
	for _, part := range []struct{ name, text string }{{"jwt_header", header}, {"jwt_payload", payload}, {"jwt_signature", signature}} {
		if part.text != "" && !b.add(n.child(part.text, part.text, "jwt", part.name)) {
			return errStop
		}
	}
	return nil
}

// errOther means that a value is not what it looked like, which is no problem: it never said that it was.
var errOther = errors.New("another format")
