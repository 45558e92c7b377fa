package request

import (
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/edgefleet/edgefleet/fleet"
)

// DefaultLimits bounds parsing where the caller does not.
var DefaultLimits = Limits{Depth: 24, Values: 4096, ValueBytes: 64 << 10, Inflated: 1 << 20}

func (l Limits) orDefault() Limits {
	if l.Depth <= 0 {
		l.Depth = DefaultLimits.Depth
	}
	if l.Values <= 0 {
		l.Values = DefaultLimits.Values
	}
	if l.ValueBytes <= 0 {
		l.ValueBytes = DefaultLimits.ValueBytes
	}
	if l.Inflated <= 0 {
		l.Inflated = DefaultLimits.Inflated
	}
	return l
}

// usual is how many values an ordinary request has.
const usual = 32

// Parse parses in within lim. It never fails: what it leaves out is in Problems. A value over Limits.ValueBytes is
// kept, but not parsed further.
func Parse(in Input, lim Limits) *Request {
	lim = lim.orDefault()
	r := &Request{in: in, lim: lim, values: make([]Value, 0, usual), plain: make([]fleet.Point, 0, usual), parsed: make([]uint16, 0, usual)}
	b := &builder{r: r, lim: lim, again: againFloor + againFactor*size(in), inflate: lim.Inflated}
	b.line()
	b.headers()
	b.body()
	return b.r
}

// node is a value on its way into the request.
type node struct {
	Value
	// plain is Point without the array elements that number duplicates.
	plain fleet.Point
	// media is the content type of the body, set for the body only, as it was sent or inflated.
	media media
}

// child is a node one element below n; it inherits the name if the element has none.
func (n node) child(raw, value string, element ...string) node {
	p := slices.Concat(n.Point, fleet.Point{element})
	plain := p
	if len(n.plain) != len(n.Point) {
		plain = slices.Concat(n.plain, fleet.Point{element})
	}
	name := n.Name
	if len(element) == 2 && element[0] != "array" && element[0] != "path" && element[0] != "jwt" {
		name = element[1]
	}
	return node{Value: Value{Point: p, Name: name, Raw: raw, Value: value}, plain: plain}
}

// whole says that n is the target, the path or the body itself, whose size the caller or Limits.Inflated bounds.
func (n *node) whole() bool { return n.media.set || len(n.Point) == 1 && len(n.Point[0]) == 1 }

func root(raw, value string, element ...string) node { return node{}.child(raw, value, element...) }

// duplicate numbers n as the i-th value of its name.
func (n node) duplicate(i int) node {
	n.Point = slices.Concat(n.Point, fleet.Point{{"array", strconv.Itoa(i)}})
	return n
}

// Values inside values are read again, in each of their encodings and in any order of them: without a bound, one small
// request could unfold into thousands of values as long as itself. Together they hold at most againFactor times the
// request, and againFloor bytes.
const (
	againFactor = 4
	againFloor  = 64 << 10
)

type builder struct {
	r   *Request
	lim Limits
	// again is how many bytes of values may still be read again, inflate how many bytes may still be inflated.
	again, inflate int
	// want is a point for which values are parsed also in formats that they do not seem to have.
	want fleet.Point
}

// wants says whether n is to be parsed as f because it was asked for.
func (b *builder) wants(n *node, f format) bool {
	k := len(n.Point)
	if len(b.want) <= len(n.plain) {
		return false
	}
	return k < len(b.want) && b.want[k][0] == formatNames[f] && matches(b.want[:k], n.Point) ||
		b.want[len(n.plain)][0] == formatNames[f] && matches(b.want[:len(n.plain)], n.plain)
}

// size is what the client sent, about.
func size(in Input) int {
	n := len(in.URI) + len(in.Body)
	for name, values := range in.Header {
		for _, v := range values {
			n += len(name) + len(v)
		}
	}
	return n
}

// add records n and what its content holds. It reports false when the request has no room for more values.
func (b *builder) add(n node) bool {
	if len(b.r.values) >= b.lim.Values {
		b.problem(n.Point[:1], ReasonTooManyValues)
		return false
	}
	if len(n.Point) > b.lim.Depth {
		b.problem(n.Point[:1], ReasonTooDeep)
		return false
	}
	b.r.values = append(b.r.values, n.Value)
	b.r.plain = append(b.r.plain, n.plain)
	b.r.parsed = append(b.r.parsed, 0)
	if len(n.Value.Value) > b.lim.ValueBytes && !n.whole() {
		b.problem(n.Point, ReasonTooLong)
		return true
	}
	b.expand(&n, len(b.r.values)-1)
	return true
}

// addAll records values that share a parent; a name that occurs more than once is numbered.
func (b *builder) addAll(nodes []node) {
	count := make(map[string]int, len(nodes))
	for i := range nodes {
		count[nodes[i].Name]++
	}
	duplicated := len(count) < len(nodes)
	var seen map[string]int
	for _, n := range nodes {
		if name := n.Name; duplicated && count[name] > 1 {
			if seen == nil {
				seen = map[string]int{}
			}
			n = n.duplicate(seen[name])
			seen[name]++
		}
		if !b.add(n) {
			return
		}
	}
	if duplicated {
		b.pollution(nodes, count)
	}
}

// pollution adds, for each name that occurs more than once, its values joined as servers join them that know one value a
// name: what an attacker distributes over duplicates comes together again there.
func (b *builder) pollution(nodes []node, count map[string]int) {
	type joined struct {
		first      *node
		raw, value []string
		size       int
	}
	var order []*joined
	byName := map[string]*joined{}
	for i := range nodes {
		n := &nodes[i]
		if count[n.Name] < 2 || endsWith(n, "file_name") {
			continue
		}
		j := byName[n.Name]
		if j == nil {
			j = &joined{first: n}
			byName[n.Name] = j
			order = append(order, j)
		}
		j.raw, j.value, j.size = append(j.raw, n.Raw), append(j.value, n.Value.Value), j.size+len(n.Value.Value)+1
	}
	for _, j := range order {
		if j.size > min(b.again, b.lim.ValueBytes) {
			b.problem(j.first.Point, ReasonTooLong)
			continue
		}
		b.again -= j.size
		if !b.add(j.first.child(strings.Join(j.raw, ","), strings.Join(j.value, ","), "pollution")) {
			return
		}
	}
}

// problem records that part of p is missing. A base such as get or post stands for all of its values, so that limits
// leave a bounded number of problems.
func (b *builder) problem(p fleet.Point, reason Reason) {
	if len(p) == 1 && reason != ReasonTooLong {
		p = fleet.Point{p[0][:1]}
	}
	for _, old := range b.r.problems {
		if old.Reason == reason && equalPoints(old.Point, p) {
			return
		}
	}
	b.r.problems = append(b.r.problems, Problem{Point: p, Reason: reason})
}

// line records the points of the request line.
func (b *builder) line() {
	path, query := splitTarget(b.r.in.URI)
	l := Locate(path)
	b.r.location, b.r.query = l, query
	// The target is kept as it was sent: decoded, it could not be taken apart (and masked) any more.
	b.add(root(b.r.in.URI, b.r.in.URI, "uri"))
	for _, reading := range l.Readings {
		b.add(root(path, reading, "path"))
	}
	first := len(b.r.values)
	b.segments(l.Forward, nil)
	for _, reading := range l.Readings[1:] {
		b.segments(reading, b.r.values[first:])
	}
	if l.Ambiguous {
		b.problem(fleet.Point{{"path"}}, ReasonAmbiguousPath)
	}
	b.addAll(pairs(node{}, "get", query, b.lim.Values))
}

// segments records the parts of a path that are not among known.
func (b *builder) segments(path string, known []Value) {
	segments := strings.Split(strings.TrimPrefix(path, "/"), "/")
	action := segments[len(segments)-1]
	name, ext, dotted := cutLast(action, ".")
	nodes := make([]node, 0, min(len(segments), b.lim.Values+1)+1)
	for i, s := range segments[:min(len(segments)-1, b.lim.Values+1)] {
		nodes = append(nodes, root(s, unescape(s, false), "path", strconv.Itoa(i)))
	}
	nodes = append(nodes, root(name, unescape(name, false), "action_name"))
	if dotted {
		nodes = append(nodes, root(ext, unescape(ext, false), "action_ext"))
	}
	seen := make(map[string]string, len(known))
	for _, v := range known {
		seen[PointString(v.Point)] = v.Value
	}
	for _, n := range nodes {
		if known != nil {
			if v, same := seen[PointString(n.Point)]; same && v == n.Value.Value {
				continue
			}
		}
		if !b.add(n) {
			return
		}
	}
}

// headers records every header under its upper-case name.
func (b *builder) headers() {
	h := b.r.in.Header
	names := make([]string, 0, len(h)+1)
	for name := range h {
		names = append(names, name)
	}
	if b.r.in.Host != "" && len(h["Host"]) == 0 {
		names = append(names, "Host")
	}
	slices.Sort(names)
	for _, name := range names {
		values := h[name]
		if name == "Host" && len(values) == 0 {
			values = []string{b.r.in.Host}
		}
		var nodes []node
		for _, v := range values[:min(len(values), b.lim.Values+1)] {
			nodes = append(nodes, root(v, v, "header", strings.ToUpper(name)))
		}
		b.addAll(nodes)
	}
}

// body records the raw body and what the parser of its content type finds in it.
func (b *builder) body() {
	if b.r.in.Truncated {
		b.problem(fleet.Point{{"post"}}, ReasonTruncated)
	}
	if len(b.r.in.Body) == 0 {
		return
	}
	s := string(b.r.in.Body)
	n := root(s, s, "post")
	n.media = mediaOf(b.r.in.Header)
	n.media.cut = b.r.in.Truncated
	b.add(n)
}

// splitTarget separates a request target into path and query; an absolute target loses its scheme and authority.
func splitTarget(uri string) (path, query string) {
	if i := strings.Index(uri, "://"); i >= 0 && !strings.HasPrefix(uri, "/") {
		rest := uri[i+3:]
		if j := strings.IndexAny(rest, "/?"); j >= 0 {
			uri = rest[j:]
		} else {
			uri = "/"
		}
	}
	path, query, _ = strings.Cut(uri, "?")
	return path, query
}

func cutLast(s, sep string) (before, after string, found bool) {
	if i := strings.LastIndex(s, sep); i >= 0 {
		return s[:i], s[i+len(sep):], true
	}
	return s, "", false
}

// pairs splits name=value pairs joined by & into nodes below parent.
func pairs(parent node, element, s string, limit int) []node {
	var nodes []node
	for pair := range strings.SplitSeq(s, "&") {
		if pair == "" {
			continue
		}
		name, raw, _ := strings.Cut(pair, "=")
		nodes = append(nodes, parent.child(raw, unescape(raw, true), element, unescape(name, true)))
		if len(nodes) > limit {
			break
		}
	}
	return nodes
}

// unescape decodes percent-encoding and leaves what is not valid as it is.
func unescape(s string, form bool) string {
	if !strings.ContainsAny(s, "%+") {
		return s
	}
	out := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '%' && i+2 < len(s) && isHex(s[i+1]) && isHex(s[i+2]):
			out = append(out, unhex(s[i+1])<<4|unhex(s[i+2]))
			i += 2
		case s[i] == '+' && form:
			out = append(out, ' ')
		default:
			out = append(out, s[i])
		}
	}
	return string(out)
}

func isHex(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F'
}

func unhex(c byte) byte {
	switch {
	case c <= '9':
		return c - '0'
	case c >= 'a':
		return c - 'a' + 10
	}
	return c - 'A' + 10
}

// header returns the values of a header whatever its case in the map.
func header(h http.Header, name string) []string {
	if v, ok := h[http.CanonicalHeaderKey(name)]; ok {
		return v
	}
	var found []string
	for k, v := range h {
		if strings.EqualFold(k, name) {
			found = append(found, v...)
		}
	}
	return found
}
