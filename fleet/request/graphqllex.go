package request

import (
	"encoding/json"
	"strconv"
	"strings"
)

type tokenKind int

const (
	tokenInvalid tokenKind = iota
	tokenEnd
	tokenPunctuator
	tokenName
	tokenNumber
	tokenString
)

// token is a part of a GraphQL document; text is what it means, raw how it was written.
type token struct {
	kind      tokenKind
	text, raw string
}

// lexer splits a GraphQL document (the October 2021 specification, section 2.1).
type lexer struct {
	text string
	// nested counts inline fragments that are open.
	nested int
}

func (l *lexer) next() token {
	l.blank()
	if l.text == "" {
		return token{kind: tokenEnd}
	}
	switch c := l.text[0]; {
	case strings.HasPrefix(l.text, "..."):
		return l.take(tokenPunctuator, 3)
	case strings.IndexByte("!$&()[]{}:=@|", c) >= 0:
		return l.take(tokenPunctuator, 1)
	case nameByte(c) && (c < '0' || c > '9'):
		return l.take(tokenName, l.span(nameByte))
	case c == '-' || c >= '0' && c <= '9':
		return l.take(tokenNumber, l.span(func(c byte) bool { return nameByte(c) || c == '+' || c == '-' || c == '.' }))
	case strings.HasPrefix(l.text, `"""`):
		return l.block()
	case c == '"':
		return l.quoted()
	}
	return token{kind: tokenInvalid}
}

// blank skips spaces, commas and comments.
func (l *lexer) blank() {
	for {
		l.text = strings.TrimLeft(l.text, " \t\r\n,")
		if !strings.HasPrefix(l.text, "#") {
			return
		}
		end := strings.IndexAny(l.text, "\r\n")
		if end < 0 {
			end = len(l.text)
		}
		l.text = l.text[end:]
	}
}

func (l *lexer) span(in func(byte) bool) int {
	n := 0
	for n < len(l.text) && in(l.text[n]) {
		n++
	}
	return n
}

func (l *lexer) take(kind tokenKind, n int) token {
	s := l.text[:n]
	l.text = l.text[n:]
	return token{kind: kind, text: s, raw: s}
}

// block reads a """ string; its indentation stays.
func (l *lexer) block() token {
	const quotes = `"""`
	for from := len(quotes); ; {
		i := strings.Index(l.text[from:], quotes)
		if i < 0 {
			return token{kind: tokenInvalid}
		}
		if end := from + i; l.text[end-1] != '\\' {
			t := l.take(tokenString, end+len(quotes))
			t.text = strings.ReplaceAll(t.raw[len(quotes):end], `\"""`, quotes)
			return t
		}
		from += i + len(quotes)
	}
}

// quoted reads a string in one line; its escapes are those of JSON.
func (l *lexer) quoted() token {
	for i := 1; i < len(l.text); i++ {
		switch l.text[i] {
		case '\\':
			i++
		case '\n', '\r':
			return token{kind: tokenInvalid}
		case '"':
			t := l.take(tokenString, i+1)
			if json.Unmarshal([]byte(t.raw), &t.text) != nil {
				// A tab, say, which GraphQL allows and JSON does not.
				t.text = t.raw[1:i]
			}
			return t
		}
	}
	return token{kind: tokenInvalid}
}

func nameByte(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_'
}

func itoa(i int) string { return strconv.Itoa(i) }
