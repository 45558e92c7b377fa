package request

import (
	"encoding/xml"
	"errors"
	"io"
	"regexp"
	"strings"

	"github.com/edgefleet/edgefleet/fleet"
)

// maxEntities bounds the entities of one document that are kept as they were written.
const maxEntities = 64

// isXML: the body claims to be XML, or a value begins as only XML does.
func isXML(n *node) bool {
	switch k := n.media.kind; {
	case n.media.encoded || n.whole() && !n.media.set || n.Point[0][0] == "path":
		return false
	case k == "text/xml" || k == "application/xml" || strings.HasSuffix(k, "+xml"):
		return true
	}
	s := strings.TrimLeft(strings.TrimPrefix(n.Value.Value, "\ufeff"), " \t\r\n")
	return strings.HasPrefix(s, "<?xml") || strings.HasPrefix(s, "<!DOCTYPE")
}

// parseXML makes a hash of each element and, with an @ before its name, of each attribute; elements of one name below
// the same parent are numbered. Prefixes are the client's choice and no part of a name. Comments and the document type
// are values too, #comment and #doctype. No entity is ever expanded: a document that declares one has a Problem.
func parseXML(b *builder, n node) error {
	text := strings.TrimPrefix(n.Value.Value, "\ufeff")
	d := xmlDoc{b: b, base: len(n.Point) + 1, from: n.Point[:1], text: text, dec: xml.NewDecoder(strings.NewReader(text))}
	root := &xmlElement{}
	err := d.read(root)
	if d.entities {
		b.problem(n.Point, ReasonEntities)
	}
	// Also of a document that was cut off, or breaks off, what comes before is read.
	d.emit(n.child("", "", "xml"), root, true)
	return err
}

type xmlElement struct {
	name      string
	text, raw strings.Builder
	children  []*xmlElement
}

// add appends a child that holds s.
func (e *xmlElement) add(name, s string) {
	c := &xmlElement{name: name}
	c.text.WriteString(s)
	c.raw.WriteString(s)
	e.children = append(e.children, c)
}

type xmlDoc struct {
	b *builder
	// from is the part of the request that the document is in, base the length of its point.
	from     fleet.Point
	base     int
	text     string
	dec      *xml.Decoder
	count    int
	entities bool
}

func (d *xmlDoc) read(root *xmlElement) error {
	stack := []*xmlElement{root}
	for {
		start := d.dec.InputOffset()
		token, err := d.dec.Token()
		if errors.Is(err, io.EOF) && len(root.children) > 0 {
			return nil
		}
		if err != nil {
			return err
		}
		top := stack[len(stack)-1]
		switch t := token.(type) {
		case xml.StartElement:
			e, err := d.start(t, len(stack))
			if err != nil {
				return err
			}
			top.children = append(top.children, e)
			stack = append(stack, e)
		case xml.EndElement:
			stack = stack[:len(stack)-1]
		case xml.CharData:
			top.text.Write(t)
			top.raw.WriteString(d.text[start:d.dec.InputOffset()])
		case xml.Comment:
			d.count++
			top.add("#comment", string(t))
		case xml.Directive:
			d.count++
			top.add("#doctype", string(t))
			d.keep(string(t))
		}
		if d.count > d.b.lim.Values {
			d.b.problem(d.from, ReasonTooManyValues)
			return errStop
		}
	}
}

func (d *xmlDoc) start(t xml.StartElement, depth int) (*xmlElement, error) {
	d.count += 1 + len(t.Attr)
	if d.base+depth > d.b.lim.Depth {
		d.b.problem(d.from, ReasonTooDeep)
		return nil, errStop
	}
	e := &xmlElement{name: t.Name.Local}
	for _, a := range t.Attr {
		e.add("@"+a.Name.Local, a.Value)
	}
	return e, nil
}

var xmlEntity = regexp.MustCompile(`<!ENTITY\s+(?:%\s+)?([^\s>"'%]+)`)

// keep makes the entities that a document type declares stand for themselves.
func (d *xmlDoc) keep(doctype string) {
	for _, m := range xmlEntity.FindAllStringSubmatch(doctype, maxEntities) {
		if d.dec.Entity == nil {
			d.dec.Entity = map[string]string{}
		}
		d.entities = true
		d.dec.Entity[m[1]] = "&" + m[1] + ";"
	}
}

// emit adds the values of e, which stands at n, and below. It reports false when the request has no room for more.
func (d *xmlDoc) emit(n node, e *xmlElement, root bool) bool {
	text := e.text.String()
	if !root && (len(e.children) == 0 || strings.TrimSpace(text) != "") {
		n.Raw, n.Value.Value = e.raw.String(), text
		if !d.b.add(n) {
			return false
		}
	}
	count := map[string]int{}
	for _, c := range e.children {
		count[c.name]++
	}
	seen := map[string]int{}
	for _, c := range e.children {
		child := n.child("", "", "hash", c.name)
		if count[c.name] > 1 {
			child = child.duplicate(seen[c.name])
			seen[c.name]++
		}
		if !d.emit(child, c, false) {
			return false
		}
	}
	return true
}
