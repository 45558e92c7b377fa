package request

import (
	"net"
	"slices"
	"strconv"
	"strings"

	"github.com/edgefleet/edgefleet/fleet"
)

// Path is the decoded path of the request target, without dot segments.
func (r *Request) Path() string { return r.location.Readings[0] }

// Location is what servers may make of the path.
func (r *Request) Location() Location { return r.location }

// Query is the raw query of the request target.
func (r *Request) Query() string { return r.query }

// At returns the values at p. Duplicates of a parameter are found with and without their array index; get_all and its
// like match any name, get_name and its like give the names themselves. A parser that p names runs on values that do not
// seem to have its format, too.
func (r *Request) At(p fleet.Point) []Value {
	p = Canonical(p)
	if len(p) == 0 {
		return nil
	}
	found := r.find(p)
	if more := r.demand(p); more != nil {
		found = append(found, more.find(p)...)
	}
	return found
}

// Under returns the values at p and below it.
func (r *Request) Under(p fleet.Point) []Value {
	p = Canonical(p)
	if len(p) == 0 {
		return nil
	}
	found := r.under(p)
	if more := r.demand(p); more != nil {
		found = append(found, more.under(p)...)
	}
	return found
}

func (r *Request) under(p fleet.Point) []Value {
	var found []Value
	for i, v := range r.values {
		if p[0][0] == "any" && anyName(p, v.Name) || Covers(p, v.Point) || Covers(p, r.plain[i]) {
			found = append(found, v)
		}
	}
	return found
}

// anyName says that name is that of the point any. Names of headers have no case, so others have none here either.
func anyName(p fleet.Point, name string) bool {
	return name != "" && strings.EqualFold(strings.TrimPrefix(name, "@"), p[0][1])
}

// demand parses the values on the way to p in the formats that p names, where they were not parsed so yet. It returns
// nil if there is nothing to do.
func (r *Request) demand(p fleet.Point) *Request {
	var b *builder
	for k := 1; k < len(p); k++ {
		f := slices.Index(formatNames[:], p[k][0])
		if f < 0 {
			continue
		}
		for i, v := range r.values {
			if r.parsed[i]&(1<<f) != 0 || !matches(p[:k], v.Point) && !matches(p[:k], r.plain[i]) {
				continue
			}
			if b == nil {
				b = &builder{
					r: &Request{in: r.in, lim: r.lim}, lim: r.lim, again: againFloor + againFactor*size(r.in), inflate: r.lim.Inflated, want: p,
				}
			}
			n := node{Value: v, plain: r.plain[i]}
			if len(v.Value) > r.lim.ValueBytes && !n.whole() {
				continue
			}
			if format(f) == parsesMultipart {
				n.media = mediaOf(r.in.Header)
			}
			_, parse := format(f).functions()
			_ = parse(b, n) // what is not in the format that a rule asks for has no value there
		}
	}
	if b == nil {
		return nil
	}
	return b.r
}

func (r *Request) find(p fleet.Point) []Value {
	if name, wildcard := elementName(p[len(p)-1][0]); wildcard == "_name" {
		return r.names(p, name)
	}
	var found []Value
	for i, v := range r.values {
		if p[0][0] == "any" && anyName(p, v.Name) || matches(p, v.Point) || matches(p, r.plain[i]) {
			found = append(found, v)
		}
	}
	return found
}

// names returns the names that occur at the last element of p.
func (r *Request) names(p fleet.Point, element string) []Value {
	seen := map[string]bool{}
	var found []Value
	n := len(p) - 1
	for _, q := range r.plain {
		if len(q) <= n || !matches(p[:n], q[:n]) || q[n][0] != element || len(q[n]) < 2 {
			continue
		}
		name := q[n][1]
		if key := PointString(q[:n+1]); !seen[key] {
			seen[key] = true
			found = append(found, Value{Point: q[:n+1], Name: name, Raw: name, Value: name})
		}
	}
	return found
}

// Matches says that p is a point of pattern, which is canonical, may have get_all and its like, and may be any.
func Matches(pattern, p fleet.Point) bool {
	if len(pattern) == 1 && pattern[0][0] == "any" {
		name := ""
		for _, e := range p {
			if len(e) == 2 && e[0] != "array" && e[0] != "path" && e[0] != "jwt" {
				name = e[1]
			}
		}
		return name != "" && anyName(pattern, name)
	}
	return matches(pattern, p)
}

func matches(pattern, p fleet.Point) bool {
	if len(pattern) != len(p) {
		return false
	}
	for i, e := range pattern {
		if name, wildcard := elementName(e[0]); wildcard == "_all" {
			if p[i][0] != name || len(p[i]) < 2 {
				return false
			}
			continue
		}
		if len(e) != len(p[i]) || e[0] != p[i][0] || len(e) == 2 && e[1] != p[i][1] {
			return false
		}
	}
	return true
}

// Attribute returns the first value of Attributes.
func (r *Request) Attribute(point string) (value string, present bool, err error) {
	values, err := r.Attributes(point)
	if err != nil || len(values) == 0 {
		return "", false, err
	}
	return values[0], true, nil
}

// Attributes returns the values that a rule's condition compares: host, method, scheme, proto, uri, path[n],
// action_name, action_ext, query[name], header[NAME] or instance. None means that the attribute is absent. The host is
// in lower case and without its port; uri is the decoded path, before it the path with the raw query if there is one. A
// path has each of its readings.
func (r *Request) Attributes(point string) ([]string, error) {
	name, arg, err := splitAttribute(point)
	if err != nil {
		return nil, err
	}
	switch name {
	case "host":
		return nonEmpty(hostOnly(r.in.Host)), nil
	case "method":
		return nonEmpty(r.in.Method), nil
	case "scheme":
		return nonEmpty(r.in.Scheme), nil
	case "proto":
		return nonEmpty(r.in.Proto), nil
	case "instance":
		return nonEmpty(r.in.Instance), nil
	case "uri":
		var values []string
		for _, path := range r.location.Readings {
			if r.query != "" {
				values = append(values, path+"?"+r.query)
			}
			values = append(values, path)
		}
		return values, nil
	}
	p := fleet.Point{{name}}
	if arg != "" {
		p = fleet.Point{{name, arg}}
	}
	var values []string
	for _, v := range r.At(p) {
		values = append(values, v.Value)
	}
	return values, nil
}

// ValidateAttribute checks the point of a rule's condition.
func ValidateAttribute(point string) error {
	_, _, err := splitAttribute(point)
	return err
}

func splitAttribute(point string) (name, arg string, err error) {
	name, arg, bracket := strings.Cut(point, "[")
	if bracket {
		var closed bool
		if arg, closed = strings.CutSuffix(arg, "]"); !closed || arg == "" {
			return "", "", unknownAttribute(point)
		}
	}
	switch name {
	case "host", "method", "scheme", "proto", "uri", "action_name", "action_ext", "instance":
		if bracket {
			return "", "", unknownAttribute(point)
		}
		return name, "", nil
	case "path":
		if n, err := strconv.Atoi(arg); err != nil || n < 0 || strconv.Itoa(n) != arg {
			return "", "", unknownAttribute(point)
		}
		return name, arg, nil
	case "query", "get", "header":
		if !bracket {
			return "", "", unknownAttribute(point)
		}
		if name == "query" {
			name = "get"
		}
		return name, arg, nil
	}
	return "", "", unknownAttribute(point)
}

func unknownAttribute(point string) error {
	return fleet.Invalid("conditions", "%q is not the point of a condition: use host, method, scheme, proto, uri, path[n], action_name, action_ext, query[name], header[NAME] or instance", point)
}

func hostOnly(s string) string {
	if h, _, err := net.SplitHostPort(s); err == nil {
		s = h
	}
	return strings.ToLower(strings.TrimSuffix(s, "."))
}

func nonEmpty(s string) []string {
	if s == "" {
		return nil
	}
	return []string{s}
}
