package controlplane_test

import (
	"bytes"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/edgefleet/edgefleet/controlplane"
	"github.com/edgefleet/edgefleet/edgenode/settings"
)

//go:generate go test -run ^TestTheConfigurationPageIsTheOneOfTheCode$ -update .

var update = flag.Bool("update", false, "write docs/configuration.md")

// configPage is one program's part of docs/configuration.md, made from the struct that its file is read into.
type configPage struct {
	title, intro, file, root, example string
	// load reads a file as the program does.
	load func(path string) error
}

var configPages = []configPage{
	{
		"Members of the control plane", "`controlplane init`, `join` and `run` read one file, by default `/etc/edgefleet/controlplane.yaml`.", "options.go", "Config",
		"data_dir: /var/lib/edgefleet/controlplane\nmember: m1\ncluster_zone: edge.example.net\nadvertise: 203.0.113.1\nkek_file: /etc/edgefleet/kek\nacme:\n  directory: https://acme-v02.api.letsencrypt.org/directory\n  email: ops@example.net\n",
		func(path string) error { _, err := controlplane.LoadConfig(path); return err },
	},
	{
		"Edge hosts", "`edgesupervisor` and the `edgenode` that it starts read one file, by default `/etc/edgefleet/edge.yaml`.", "../edgenode/settings/settings.go", "Settings",
		"data_dir: /var/lib/edgefleet/edge\naddresses: [203.0.113.10]\ncontrol_plane: [\"203.0.113.1:8440\", \"203.0.113.2:8440\", \"203.0.113.3:8440\"]\njoin_token_file: /etc/edgefleet/join.token\n",
		func(path string) error { _, err := settings.Load(path); return err },
	},
}

const configIntro = `# Configuration

Made from the code by ` + "`make generate`" + `; do not edit.

Files are YAML. An unknown field, a value out of range and a second document are refused, with the file, the line and the
field; the program then does not start. Durations are written as 15s, 10m or 720h.
`

func TestTheConfigurationPageIsTheOneOfTheCode(t *testing.T) {
	var b bytes.Buffer
	b.WriteString(configIntro)
	for _, p := range configPages {
		p.write(t, &b)
	}
	const path = "../docs/configuration.md"
	if *update {
		if err := os.WriteFile(path, b.Bytes(), 0o644); err != nil { //nolint:gosec // a page for everyone
			t.Fatal(err)
		}
	}
	committed, err := os.ReadFile(path)
	if err != nil || !bytes.Equal(committed, b.Bytes()) {
		t.Errorf("docs/configuration.md is not what the code says (%v): run 'make generate'", err)
	}
}

func TestTheExamplesOfTheConfigurationPageAreGood(t *testing.T) {
	for _, p := range configPages {
		path := filepath.Join(t.TempDir(), "config.yaml")
		if err := os.WriteFile(path, []byte(p.example), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := p.load(path); err != nil {
			t.Errorf("%s: %v", p.title, err)
		}
	}
}

func (p configPage) write(t *testing.T, b *bytes.Buffer) {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), filepath.FromSlash(p.file), nil, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	s := &source{t: t, structs: map[string]*ast.StructType{}, defaults: map[string]string{}}
	ast.Inspect(file, s.visit)
	_, _ = fmt.Fprintf(b, "\n## %s\n\n%s\n\n```yaml\n%s```\n\n| field | type | default | what it is |\n|---|---|---|---|\n", p.title, p.intro, p.example)
	s.rows(b, s.structs[p.root], "", "")
	if len(s.defaults) > 0 {
		t.Errorf("%s: defaults of fields that are not described: %v", p.file, s.defaults)
	}
}

// source is what a file says about its settings.
type source struct {
	t       *testing.T
	structs map[string]*ast.StructType
	// defaults by Go path below the root: APIListen, WAF.Paranoia.
	defaults map[string]string
}

func (s *source) visit(n ast.Node) bool {
	switch n := n.(type) {
	case *ast.TypeSpec:
		if st, ok := n.Type.(*ast.StructType); ok {
			s.structs[n.Name.Name] = st
		}
	case *ast.CallExpr: // setDefault(&c.APIListen, ":8440")
		if f, ok := n.Fun.(*ast.Ident); ok && f.Name == "setDefault" && len(n.Args) == 2 {
			_, path, _ := strings.Cut(text(n.Args[0]), ".")
			s.defaults[path] = s.value(n.Args[1])
		}
	}
	return true
}

// text is an expression of names and dots as it stands in the code.
func text(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.Ident:
		return e.Name
	case *ast.SelectorExpr:
		return text(e.X) + "." + e.Sel.Name
	case *ast.UnaryExpr:
		return text(e.X)
	case *ast.ArrayType:
		return "[]" + text(e.Elt)
	}
	return fmt.Sprintf("%T", e)
}

// value is a constant as people write it in the file.
func (s *source) value(e ast.Expr) string {
	if l, ok := e.(*ast.BasicLit); ok && l.Kind == token.STRING {
		v, err := strconv.Unquote(l.Value)
		if err != nil {
			s.t.Fatal(err)
		}
		return v
	}
	n, duration := s.number(e)
	if !duration {
		return strconv.FormatInt(n, 10)
	}
	d := time.Duration(n).String()
	for _, zero := range []string{"m0s", "h0m"} {
		if strings.HasSuffix(d, zero) {
			d = d[:len(d)-2]
		}
	}
	return d
}

func (s *source) number(e ast.Expr) (n int64, duration bool) {
	s.t.Helper()
	switch e := e.(type) {
	case *ast.BasicLit:
		n, err := strconv.ParseInt(e.Value, 0, 64)
		if err == nil {
			return n, false
		}
	case *ast.SelectorExpr:
		unit, ok := map[string]time.Duration{"time.Millisecond": time.Millisecond, "time.Second": time.Second, "time.Minute": time.Minute, "time.Hour": time.Hour}[text(e)]
		if ok {
			return int64(unit), true
		}
	case *ast.BinaryExpr:
		x, xd := s.number(e.X)
		y, yd := s.number(e.Y)
		if e.Op == token.MUL {
			return x * y, xd || yd
		}
		if e.Op == token.SHL {
			return x << y, false
		}
	}
	s.t.Fatalf("a default that this generator cannot read: %T", e)
	return 0, false
}

var typeNames = map[string]string{
	"string": "text", "bool": "true or false", "int": "number", "uint16": "number", "time.Duration": "duration", "netip.Addr": "IP address", "netip.Prefix": "network",
	"fleet.MemberID": "id", "fleet.RegionName": "id", "fleet.NodeID": "id", "fleet.HostName": "DNS name",
}

func (s *source) rows(b *bytes.Buffer, st *ast.StructType, goPath, yamlPath string) {
	s.t.Helper()
	for _, f := range st.Fields.List {
		name := f.Names[0].Name
		tag, err := strconv.Unquote(f.Tag.Value)
		if err != nil {
			s.t.Fatal(err)
		}
		field := yamlPath + reflect.StructTag(tag).Get("yaml")
		if nested, ok := s.structs[text(f.Type)]; ok {
			s.rows(b, nested, goPath+name+".", field+".")
			continue
		}
		element, list := strings.CutPrefix(text(f.Type), "[]")
		if nested, ok := s.structs[element]; ok {
			s.rows(b, nested, goPath+name+".", field+"[].")
			continue
		}
		typ, ok := typeNames[element]
		if !ok {
			s.t.Errorf("%s: type %s has no name for people", field, element)
		}
		if list {
			typ = "list of " + typ
		}
		doc := strings.Join(strings.Fields(f.Doc.Text()), " ")
		def, has := s.defaults[goPath+name]
		delete(s.defaults, goPath+name)
		switch {
		case has:
			said := regexp.MustCompile(`; default "?` + regexp.QuoteMeta(def) + `"?([.,])`)
			if !said.MatchString(doc) {
				s.t.Errorf("%s: the comment does not say '; default %s': %s", field, def, doc)
			}
			doc, def = said.ReplaceAllString(doc, "$1"), "`"+def+"`"
		case strings.Contains(doc, "Required"):
			def = "required"
			doc = strings.TrimSuffix(doc, " Required.")
		}
		_, _ = fmt.Fprintf(b, "| `%s` | %s | %s | %s |\n", field, typ, def, sentence(s.t, name, doc))
	}
}

// sentence turns "APIListen is where …" into "Where …".
func sentence(t *testing.T, name, doc string) string {
	t.Helper()
	rest, ok := strings.CutPrefix(doc, name+" ")
	if !ok {
		t.Errorf("the comment of %s does not begin with its name: %q", name, doc)
	}
	for _, verb := range []string{"is ", "are "} {
		rest = strings.TrimPrefix(rest, verb)
	}
	if rest == "" {
		return ""
	}
	return strings.ReplaceAll(string(unicode.ToUpper(rune(rest[0])))+rest[1:], "|", "\\|")
}
