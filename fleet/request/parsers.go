package request

import (
	"encoding/json"
	"errors"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"strconv"
	"strings"

	"github.com/edgefleet/edgefleet/fleet"
)

// format is what a parser reads.
type format int

const (
	parsesGzip format = iota
	parsesForm
	parsesMultipart
	parsesJSON
	parsesXML
	parsesGraphQL
	parsesCookie
	parsesJWT
	parsesBase64
	parsesPercent
	formats
)

// formatNames are the names of the formats in points.
var formatNames = [formats]string{"gzip", "form_urlencoded", "multipart", "json_doc", "xml", "gql", "cookie", "jwt", "base64", "percent"}

// functions are what there is for a format. The first says whether a value claims, or seems, to have it, so that it is parsed
// without being asked for; the second adds what it finds below a value, and its error means that it does not have the format.
func (f format) functions() (applies func(*node) bool, parse func(*builder, node) error) {
	switch f {
	case parsesGzip:
		return isGzip, parseGzip
	case parsesForm:
		return isForm, parseForm
	case parsesMultipart:
		return isMultipart, parseMultipart
	case parsesJSON:
		return isJSON, parseJSON
	case parsesXML:
		return isXML, parseXML
	case parsesGraphQL:
		return isGraphQL, parseGraphQL
	case parsesCookie:
		return isCookie, parseCookie
	case parsesJWT:
		return isJWT, parseJWT
	case parsesBase64:
		return isBase64, parseBase64
	case parsesPercent:
		return isPercent, parsePercent
	case formats:
	}
	panic("no format") // not reached: formats are the constants above
}

// errStop ends a parser that ran into a limit, which is already recorded.
var errStop = errors.New("limit reached")

// expand parses n, the value with the number at, in every format that it seems to have or that is asked for.
func (b *builder) expand(n *node, at int) {
	parsed := false
	for f := range formats {
		applies, parse := f.functions()
		if !applies(n) && !b.wants(n, f) {
			continue
		}
		parsed = true
		if !b.afford(n) {
			b.problem(n.Point[:1], ReasonTooManyValues)
			return
		}
		b.r.parsed[at] |= 1 << f
		if err := parse(b, *n); err != nil && !errors.Is(err, errStop) && !errors.Is(err, errOther) {
			b.problem(n.Point, ReasonUnparsable)
		}
		if f == parsesGzip && n.media.gzip {
			return // compressed, it is nothing else
		}
	}
	if n.media.set && !parsed {
		b.problem(n.Point, ReasonNoParser)
	}
}

// afford says whether n may be parsed. The body and cookies always are: they are the request's own parts.
func (b *builder) afford(n *node) bool {
	if n.media.set || isCookie(n) {
		return true
	}
	if len(n.Value.Value) > b.again {
		return false
	}
	b.again -= len(n.Value.Value)
	return true
}

// media is what the headers say about the body.
type media struct {
	// set is true at the point post.
	set bool
	// encoded: the body has an encoding other than gzip, or its type is ambiguous; no parser applies.
	encoded bool
	// gzip: the body is compressed. cut: its end is missing.
	gzip, cut bool
	kind      string
	boundary  string
}

func mediaOf(h http.Header) media {
	m := media{set: true}
	for _, e := range header(h, "Content-Encoding") {
		switch e = strings.ToLower(strings.TrimSpace(e)); {
		case e == "identity":
		case (e == "gzip" || e == "x-gzip") && !m.gzip:
			m.gzip = true
		default:
			m.encoded = true
		}
	}
	types := header(h, "Content-Type")
	if len(types) == 0 {
		return m
	}
	// Two content types are read differently by different origins: the body counts as unknown.
	m.encoded = m.encoded || len(types) > 1
	kind, params, err := mime.ParseMediaType(types[0])
	if err != nil && !errors.Is(err, mime.ErrInvalidMediaParameter) {
		kind, _, _ = strings.Cut(types[0], ";")
	}
	m.kind, m.boundary = strings.ToLower(strings.TrimSpace(kind)), params["boundary"]
	return m
}

func isForm(n *node) bool {
	if !n.media.set || n.media.encoded {
		return false
	}
	return n.media.kind == "application/x-www-form-urlencoded" || n.media.kind == "" && strings.Contains(n.Raw, "=")
}

func parseForm(b *builder, n node) error {
	b.addAll(pairs(n, "form_urlencoded", n.Value.Value, b.lim.Values))
	// A form has no control characters: with them it is something else, and its names and values are not what they seem.
	if strings.ContainsFunc(strings.TrimRight(n.Value.Value, "\r\n"), func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return errors.New("control character in a form")
	}
	return nil
}

func isMultipart(n *node) bool {
	return n.media.set && !n.media.encoded && n.media.kind == "multipart/form-data"
}

func parseMultipart(b *builder, n node) error {
	if n.media.boundary == "" {
		return errors.New("no boundary")
	}
	var nodes []node
	defer func() { b.addAll(nodes) }()
	for r := multipart.NewReader(strings.NewReader(n.Raw), n.media.boundary); len(nodes) <= b.lim.Values; {
		part, err := r.NextRawPart()
		if errors.Is(err, io.EOF) && len(nodes) > 0 {
			return nil
		}
		if err != nil {
			return err
		}
		_, params, err := mime.ParseMediaType(part.Header.Get("Content-Disposition"))
		name, named := params["name"]
		if err != nil || !named || part.Header.Get("Content-Transfer-Encoding") != "" {
			return errors.New("part without a name, or encoded")
		}
		content, err := io.ReadAll(part)
		if err != nil {
			return err
		}
		if file, ok := params["filename"]; ok {
			nodes = append(nodes, n.child(file, file, "multipart", name).child(file, file, "file_name"))
			continue
		}
		nodes = append(nodes, n.child(string(content), string(content), "multipart", name))
	}
	return nil
}

func isJSON(n *node) bool {
	if n.media.encoded || n.whole() && !n.media.set || n.Point[0][0] == "path" {
		return false
	}
	if k := n.media.kind; k == "application/json" || k == "text/json" || strings.HasSuffix(k, "+json") {
		return true
	}
	s := strings.TrimLeft(n.Value.Value, " \t\r\n")
	return s != "" && (s[0] == '{' || s[0] == '[') && json.Valid([]byte(s))
}

func parseJSON(b *builder, n node) error {
	// Of a body that was cut off, what comes before the cut is read: an attack there must not hide behind padding.
	cut := n.media.cut
	if !cut && !json.Valid([]byte(n.Value.Value)) {
		return errors.New("not json")
	}
	dec := json.NewDecoder(strings.NewReader(n.Value.Value))
	dec.UseNumber()
	d := jsonDoc{b: b, dec: dec, text: n.Value.Value, cut: cut}
	return d.value(n.child("", "", "json_doc"))
}

// jsonDoc walks a document; Depth bounds its recursion.
type jsonDoc struct {
	b    *builder
	dec  *json.Decoder
	text string
	// cut says that the document's end is missing.
	cut bool
}

// value reads one value and adds its leaves at or below n.
func (d *jsonDoc) value(n node) error {
	if len(n.Point) > d.b.lim.Depth {
		d.b.problem(n.Point[:1], ReasonTooDeep)
		return errStop
	}
	start := d.dec.InputOffset()
	token, err := d.dec.Token()
	if err != nil {
		if d.cut {
			d.torn(n, d.text[start:])
		}
		return err
	}
	delim, nested := token.(json.Delim)
	if !nested {
		n.Raw = strings.TrimLeft(d.text[start:d.dec.InputOffset()], ",: \t\r\n")
		n.Value.Value = n.Raw
		if s, ok := token.(string); ok {
			n.Value.Value = s
		}
		if !d.b.add(n) {
			return errStop
		}
		return nil
	}
	for i := 0; d.dec.More(); i++ {
		element := []string{"array", strconv.Itoa(i)}
		if delim == '{' {
			key, err := d.dec.Token()
			if err != nil {
				return err
			}
			name, _ := key.(string)
			element = []string{"hash", name}
		}
		if err := d.value(n.child("", "", element...)); err != nil {
			return err
		}
	}
	_, err = d.dec.Token()
	return err
}

// torn adds what is there of a text whose end is missing.
func (d *jsonDoc) torn(n node, rest string) {
	n.Raw = strings.TrimLeft(rest, ",: \t\r\n")
	if !strings.HasPrefix(n.Raw, `"`) {
		return
	}
	n.Value.Value = n.Raw[1:]
	const longestEscape = len(`\u0000`)
	for lost := range min(longestEscape, len(n.Raw)) {
		if json.Unmarshal([]byte(n.Raw[:len(n.Raw)-lost]+`"`), &n.Value.Value) == nil {
			break
		}
	}
	d.b.add(n)
}

func isCookie(n *node) bool {
	return n.Point[0][0] == "header" && n.Name == "COOKIE" && (len(n.Point) == 1 || len(n.Point) == 2 && n.Point[1][0] == "array")
}

func parseCookie(b *builder, n node) error {
	var nodes []node
	for pair := range strings.SplitSeq(n.Raw, ";") {
		name, raw, _ := strings.Cut(strings.TrimSpace(pair), "=")
		if name == "" && raw == "" {
			continue
		}
		nodes = append(nodes, n.child(raw, strings.Trim(raw, `"`), "cookie", name))
		if len(nodes) > b.lim.Values {
			break
		}
	}
	b.addAll(nodes)
	return nil
}

// isPercent: the value is still percent-encoded after its own decoding.
func isPercent(n *node) bool {
	switch n.Point[0][0] {
	case "get":
	case "post":
		if n.media.set {
			return false
		}
	case "header":
		if !hasElement(n.Point, "cookie") {
			return false
		}
	default:
		return false
	}
	return escaped(n.Value.Value)
}

// escaped says whether s has a percent-encoded byte.
func escaped(s string) bool {
	for i := strings.IndexByte(s, '%'); i >= 0 && i+2 < len(s); i++ {
		if s[i] == '%' && isHex(s[i+1]) && isHex(s[i+2]) {
			return true
		}
	}
	return false
}

func parsePercent(b *builder, n node) error {
	if !escaped(n.Value.Value) {
		return errOther
	}
	if !b.add(n.child(n.Value.Value, unescape(n.Value.Value, false), "percent")) {
		return errStop
	}
	return nil
}

func hasElement(p fleet.Point, name string) bool {
	for _, e := range p {
		if e[0] == name {
			return true
		}
	}
	return false
}

// endsWith says that the last element of n's point is name.
func endsWith(n *node, name string) bool { return n.Point[len(n.Point)-1][0] == name }
