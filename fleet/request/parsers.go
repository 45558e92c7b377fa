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

// parser finds values in the content of a value.
type parser struct {
	name string
	// applies says whether n claims, or seems, to have the format.
	applies func(n node) bool
	// parse adds what it finds below n. An error means that n does not have the format.
	parse func(b *builder, n node) error
}

// parsers returns the table of parsers; each is tried on every value. (A function, because parsers expand what they find.)
func parsers() [5]parser {
	return [...]parser{
		{"form_urlencoded", isForm, parseForm},
		{"multipart", isMultipart, parseMultipart},
		{"json_doc", isJSON, parseJSON},
		{"cookie", isCookie, parseCookie},
		{"percent", isPercent, parsePercent},
	}
}

// errStop ends a parser that ran into a limit, which is already recorded.
var errStop = errors.New("limit reached")

func (b *builder) expand(n node) {
	parsed := false
	for _, p := range parsers() {
		if !p.applies(n) {
			continue
		}
		parsed = true
		if !b.afford(n) {
			b.problem(n.Point[:1], ReasonTooManyValues)
			return
		}
		if err := p.parse(b, n); err != nil && !errors.Is(err, errStop) {
			b.problem(n.Point, ReasonUnparsable)
		}
	}
	if n.media.set && !parsed {
		b.problem(n.Point, ReasonNoParser)
	}
}

// afford says whether n may be parsed. The body and cookies always are: they are the request's own parts.
func (b *builder) afford(n node) bool {
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
	// encoded: the body is compressed, or its type is ambiguous; no parser applies.
	encoded  bool
	kind     string
	boundary string
}

func mediaOf(h http.Header) media {
	m := media{set: true}
	for _, e := range header(h, "Content-Encoding") {
		m.encoded = m.encoded || !strings.EqualFold(strings.TrimSpace(e), "identity")
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

func isForm(n node) bool {
	if !n.media.set || n.media.encoded {
		return false
	}
	return n.media.kind == "application/x-www-form-urlencoded" || n.media.kind == "" && strings.Contains(n.Raw, "=")
}

func parseForm(b *builder, n node) error {
	b.addAll(pairs(n, "form_urlencoded", n.Raw, b.lim.Values))
	// A form has no control characters: with them it is something else, and its names and values are not what they seem.
	if strings.ContainsFunc(strings.TrimRight(n.Raw, "\r\n"), func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return errors.New("control character in a form")
	}
	return nil
}

func isMultipart(n node) bool {
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

func isJSON(n node) bool {
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
	cut := n.media.set && b.r.in.Truncated
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

func isCookie(n node) bool {
	return n.Point[0][0] == "header" && n.Name == "COOKIE" && len(n.Point) <= 2
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
func isPercent(n node) bool {
	switch n.Point[0][0] {
	case "get":
	case "post":
		if len(n.Point) == 1 {
			return false
		}
	case "header":
		if !hasElement(n.Point, "cookie") {
			return false
		}
	default:
		return false
	}
	return unescape(n.Value.Value, false) != n.Value.Value
}

func parsePercent(b *builder, n node) error {
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
