package request

import (
	"errors"
	"slices"
	"strings"
)

// isGraphQL: the body claims to be GraphQL, or the parameter query of a request looks like it.
func isGraphQL(n *node) bool {
	if n.media.set {
		return !n.media.encoded && n.media.kind == "application/graphql"
	}
	if n.Name != "query" || n.whole() {
		return false
	}
	s := strings.TrimLeft(n.Value.Value, " \t\r\n,\ufeff")
	for _, start := range []string{"{", "query", "mutation", "subscription", "fragment", "#"} {
		if strings.HasPrefix(s, start) {
			return strings.Contains(s, "{")
		}
	}
	return false
}

// parseGraphQL makes a hash of each field that has arguments, or fields with arguments, and of each argument: the
// password of mutation { login(password: "x") { id } } is at gql, hash login, hash password. Directives begin with @,
// the defaults of variables with $. An alias is the client's choice and no part of a name.
func parseGraphQL(b *builder, n node) error {
	g := graphQL{b: b, lex: lexer{text: strings.TrimPrefix(n.Value.Value, "\ufeff")}}
	g.next()
	for found := false; ; found = true {
		if g.token.kind == tokenEnd {
			if !found {
				return g.failure(n)
			}
			return nil
		}
		if err := g.definition(n.child("", "", "gql")); err != nil {
			if errors.Is(err, errStop) {
				return err
			}
			return g.failure(n)
		}
	}
}

// failure is a problem only for a body that said it was GraphQL.
func (g *graphQL) failure(n node) error {
	if n.media.set {
		return errors.New("not graphql")
	}
	return errOther
}

var errSyntax = errors.New("syntax")

type graphQL struct {
	b     *builder
	lex   lexer
	token token
}

func (g *graphQL) next() { g.token = g.lex.next() }

// is says whether the current token is the punctuator or name s.
func (g *graphQL) is(s string) bool {
	return (g.token.kind == tokenPunctuator || g.token.kind == tokenName) && g.token.text == s
}

func (g *graphQL) skip(s string) bool {
	if g.is(s) {
		g.next()
		return true
	}
	return false
}

func (g *graphQL) name() (string, error) {
	if g.token.kind != tokenName {
		return "", errSyntax
	}
	s := g.token.text
	g.next()
	return s, nil
}

// definition reads an operation or a fragment.
func (g *graphQL) definition(n node) error {
	if g.is("{") {
		return g.selection(n)
	}
	kind, err := g.name()
	if err != nil || !slices.Contains([]string{"query", "mutation", "subscription", "fragment"}, kind) {
		return errSyntax
	}
	for g.token.kind == tokenName { // the name, and a fragment's "on Type"
		g.next()
	}
	if g.skip("(") {
		if err := g.variables(n); err != nil {
			return err
		}
	}
	if err := g.directives(n); err != nil {
		return err
	}
	return g.selection(n)
}

// variables reads definitions such as $id: [ID!]! = "x" @deprecated up to the closing parenthesis.
func (g *graphQL) variables(n node) error {
	for !g.skip(")") {
		if !g.skip("$") {
			return errSyntax
		}
		name, err := g.name()
		if err != nil || !g.skip(":") {
			return errSyntax
		}
		for g.token.kind == tokenName || g.is("[") || g.is("]") || g.is("!") {
			g.next()
		}
		if g.skip("=") {
			if err := g.value(n.child("", "", "hash", "$"+name)); err != nil {
				return err
			}
		}
		if err := g.directives(n); err != nil {
			return err
		}
	}
	return nil
}

// selection reads { … }; Depth bounds the recursion.
func (g *graphQL) selection(n node) error {
	if !g.skip("{") {
		return errSyntax
	}
	if err := g.deep(n); err != nil {
		return err
	}
	for !g.skip("}") {
		if g.skip("...") {
			if err := g.spread(n); err != nil {
				return err
			}
			continue
		}
		name, err := g.name()
		if err != nil {
			return err
		}
		if g.skip(":") { // what came before is an alias
			if name, err = g.name(); err != nil {
				return err
			}
		}
		if err := g.field(n.child("", "", "hash", name)); err != nil {
			return err
		}
	}
	return nil
}

// spread reads a fragment behind its three dots.
func (g *graphQL) spread(n node) error {
	if g.token.kind == tokenName {
		if on := g.is("on"); on {
			g.next()
		}
		if _, err := g.name(); err != nil {
			return err
		}
	}
	if err := g.directives(n); err != nil {
		return err
	}
	if !g.is("{") {
		return nil
	}
	// An inline fragment adds nothing to points, so that only the text bounds how often it can be nested.
	if g.lex.nested++; g.lex.nested > g.b.lim.Depth {
		g.b.problem(n.Point[:1], ReasonTooDeep)
		return errStop
	}
	defer func() { g.lex.nested-- }()
	return g.selection(n)
}

func (g *graphQL) field(n node) error {
	if g.is("(") {
		if err := g.arguments(n); err != nil {
			return err
		}
	}
	if err := g.directives(n); err != nil {
		return err
	}
	if g.is("{") {
		return g.selection(n)
	}
	return nil
}

func (g *graphQL) arguments(n node) error {
	if !g.skip("(") {
		return nil
	}
	return g.fields(n, ")")
}

// fields reads name: value pairs up to the closing punctuator.
func (g *graphQL) fields(n node, closing string) error {
	for !g.skip(closing) {
		name, err := g.name()
		if err != nil || !g.skip(":") {
			return errSyntax
		}
		if err := g.value(n.child("", "", "hash", name)); err != nil {
			return err
		}
	}
	return nil
}

func (g *graphQL) directives(n node) error {
	for g.skip("@") {
		name, err := g.name()
		if err != nil {
			return err
		}
		if err := g.arguments(n.child("", "", "hash", "@"+name)); err != nil {
			return err
		}
	}
	return nil
}

func (g *graphQL) value(n node) error {
	if err := g.deep(n); err != nil {
		return err
	}
	switch t := g.token; t.kind {
	case tokenString, tokenNumber, tokenName:
		n.Raw, n.Value.Value = t.raw, t.text
		g.next()
		if !g.b.add(n) {
			return errStop
		}
		return nil
	case tokenPunctuator:
		g.next()
		switch t.text {
		case "$": // its value is elsewhere
			_, err := g.name()
			return err
		case "{":
			return g.fields(n, "}")
		case "[":
			return g.list(n)
		}
	case tokenEnd, tokenInvalid:
	}
	return errSyntax
}

func (g *graphQL) list(n node) error {
	for i := 0; !g.skip("]"); i++ {
		if err := g.value(n.child("", "", "array", itoa(i))); err != nil {
			return err
		}
	}
	return nil
}

func (g *graphQL) deep(n node) error {
	if len(n.Point) <= g.b.lim.Depth {
		return nil
	}
	g.b.problem(n.Point[:1], ReasonTooDeep)
	return errStop
}
