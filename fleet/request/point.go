package request

import (
	"encoding/json"
	"slices"
	"strconv"
	"strings"

	"github.com/edgefleet/edgefleet/fleet"
)

// MaxPointElements bounds the length of a point in a rule.
const MaxPointElements = 16

// argument is what follows the name of a point's element.
type argument int

const (
	argNone argument = iota
	argName
	argIndex
	argOptionalIndex
	argPart
)

// element is one kind of element of a point.
type element struct {
	arg argument
	// after lists the elements it may follow; nil for a base, "*" for any.
	after []string
}

var elements = map[string]element{
	"uri": {}, "path": {arg: argOptionalIndex}, "action_name": {}, "action_ext": {},
	"get": {arg: argName}, "header": {arg: argName}, "post": {},
	// any is a name in any place, and a whole point.
	"any":             {arg: argName},
	"form_urlencoded": {arg: argName, after: []string{"*"}},
	"multipart":       {arg: argName, after: []string{"post", "gzip"}},
	"file_name":       {after: []string{"multipart", "array"}},
	"json_doc":        {after: []string{"*"}},
	"xml":             {after: []string{"*"}},
	"gql":             {after: []string{"*"}},
	"hash":            {arg: argName, after: []string{"json_doc", "xml", "gql", "hash", "array"}},
	"array":           {arg: argIndex, after: []string{"get", "header", "form_urlencoded", "multipart", "file_name", "cookie", "json_doc", "hash", "array"}},
	"pollution":       {after: []string{"get", "header", "form_urlencoded", "multipart", "cookie"}},
	"cookie":          {arg: argName, after: []string{"header", "array"}},
	"percent":         {after: []string{"*"}},
	"base64":          {after: []string{"*"}},
	"gzip":            {after: []string{"*"}},
	"jwt":             {arg: argPart, after: []string{"*"}},
}

// tokenParts are the arguments of jwt.
var tokenParts = []string{"jwt_header", "jwt_payload", "jwt_signature"}

// ParsePoint reads a point in its JSON form, such as [["get","q"]], and returns it in canonical form.
func ParsePoint(s string) (fleet.Point, error) {
	var p fleet.Point
	if err := json.Unmarshal([]byte(s), &p); err != nil {
		return nil, fleet.Invalid("point", `%q is not a point: write a list of lists such as [["get","q"]]`, s)
	}
	if err := ValidatePoint(p); err != nil {
		return nil, err
	}
	return Canonical(p), nil
}

// ValidatePoint checks that p is a parser chain that this version knows.
func ValidatePoint(p fleet.Point) error {
	if len(p) == 0 || len(p) > MaxPointElements {
		return fleet.Invalid("point", "the point has %d elements: give 1 to %d", len(p), MaxPointElements)
	}
	prev := ""
	for i, e := range Canonical(p) {
		if len(e) == 0 || len(e) > 2 {
			return fleet.Invalid("point", `element %d of the point has %d strings: give a name and at most one argument, such as ["get","q"]`, i+1, len(e))
		}
		name, wildcard := elementName(e[0])
		kind, known := elements[name]
		switch {
		case !known:
			return fleet.Invalid("point", "%q is not an element of a point: use one of %s", e[0], strings.Join(elementNames(), ", "))
		case name == "any" && (len(p) > 1 || wildcard != ""):
			return fleet.Invalid("point", `"any" is a name in any place, and a whole point: write [["any","NAME"]]`)
		case wildcard == "_name" && i != len(p)-1:
			return fleet.Invalid("point", "%q stands for a name, so it must be the last element", e[0])
		case kind.after == nil && i > 0:
			return fleet.Invalid("point", "%q starts a point and cannot follow %q", e[0], prev)
		case kind.after != nil && i == 0:
			return fleet.Invalid("point", "%q cannot start a point: start with uri, path, action_name, action_ext, get, header or post", e[0])
		case kind.after != nil && kind.after[0] != "*" && !slices.Contains(kind.after, prev):
			return fleet.Invalid("point", "%q cannot follow %q: it follows %s", e[0], prev, strings.Join(kind.after, ", "))
		}
		if err := checkArgument(e, kind.arg, wildcard); err != nil {
			return err
		}
		prev = name
	}
	return nil
}

func checkArgument(e []string, arg argument, wildcard string) error {
	if wildcard != "" {
		if arg == argNone || len(e) > 1 {
			return fleet.Invalid("point", "%q takes no argument and exists only for elements with names or indexes", e[0])
		}
		return nil
	}
	switch {
	case arg == argNone && len(e) > 1:
		return fleet.Invalid("point", "%q takes no argument", e[0])
	case arg == argPart && (len(e) < 2 || !slices.Contains(tokenParts, e[1])):
		return fleet.Invalid("point", "%q needs one of %s as its argument", e[0], strings.Join(tokenParts, ", "))
	case (arg == argName || arg == argIndex) && len(e) < 2:
		return fleet.Invalid("point", `%q needs an argument, such as ["%s","0"]`, e[0], e[0])
	case (arg == argIndex || arg == argOptionalIndex) && len(e) == 2:
		if n, err := strconv.Atoi(e[1]); err != nil || n < 0 || strconv.Itoa(n) != e[1] {
			return fleet.Invalid("point", "the argument of %q is %q: give a number from 0", e[0], e[1])
		}
	}
	return nil
}

// elementName splits get_all into get and _all.
func elementName(s string) (name, wildcard string) {
	for _, w := range []string{"_all", "_name"} {
		if base, ok := strings.CutSuffix(s, w); ok {
			if _, known := elements[base]; known {
				return base, w
			}
		}
	}
	return s, ""
}

func elementNames() []string {
	names := make([]string, 0, len(elements))
	for n := range elements {
		names = append(names, n)
	}
	slices.Sort(names)
	return names
}

// Canonical returns p with get for query and header names in upper case.
func Canonical(p fleet.Point) fleet.Point {
	out := make(fleet.Point, len(p))
	for i, e := range p {
		e = slices.Clone(e)
		if len(e) > 0 && i == 0 {
			if rest, ok := strings.CutPrefix(e[0], "query"); ok {
				e[0] = "get" + rest
			}
			if e[0] == "header" && len(e) > 1 {
				e[1] = strings.ToUpper(e[1])
			}
		}
		out[i] = e
	}
	return out
}

// IsName says that p stands for names, not for their values.
func IsName(p fleet.Point) bool {
	if len(p) == 0 || len(p[len(p)-1]) == 0 {
		return false
	}
	_, wildcard := elementName(p[len(p)-1][0])
	return wildcard == "_name"
}

// Covers reports whether p is at or below pattern, which may have elements such as get_all.
func Covers(pattern, p fleet.Point) bool {
	return len(p) >= len(pattern) && matches(pattern, p[:len(pattern)])
}

// PointString is the short form of p for people and events, such as get.q or header.COOKIE.cookie.SID.
func PointString(p fleet.Point) string {
	var parts []string
	for _, e := range p {
		parts = append(parts, e...)
	}
	return strings.Join(parts, ".")
}

func equalPoints(a, b fleet.Point) bool { return slices.EqualFunc(a, b, slices.Equal[[]string]) }
