package api

import (
	"bytes"
	"cmp"
	_ "embed"
	"fmt"
	"html/template"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/edgefleet/edgefleet/fleet"
)

// docsPage is the template of the page at /docs: one document, without script, that loads nothing.
//
//go:embed docs.html
var docsPage string

// docsPolicy lets the page have its own style and nothing else.
const docsPolicy = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// registerDocs serves the description of the API as a page for people. Like the description it needs no token.
func (a *API) registerDocs(page func() ([]byte, error)) {
	op := operation{id: "docs", method: http.MethodGet, path: "/docs", scope: public, permission: fleet.PermPublic, duty: fleet.DutyConsole}.locally()
	a.route(op, func(w http.ResponseWriter, r *http.Request) {
		b, err := page()
		if err != nil {
			writeProblem(w, problem(err, callerOf(r.Context())))
			return
		}
		h := w.Header()
		h.Set("Content-Type", "text/html; charset=utf-8")
		h.Set("Content-Security-Policy", docsPolicy)
		h.Set("Referrer-Policy", "no-referrer")
		_, _ = w.Write(b) // a client that went away
	})
}

// docOperation is an operation on the page.
type docOperation struct {
	Method, Path string
	*huma.Operation
	Body      string
	Responses []docResponse
}

type docResponse struct{ Status, Description, Body string }

type docSchema struct {
	Name       string
	Properties []docProperty
}

type docProperty struct {
	Name, Type, Description string
	Required                bool
}

// docs renders the OpenAPI document.
func (a *API) docs() ([]byte, error) {
	t, err := template.New("docs").Parse(docsPage)
	if err != nil {
		return nil, fmt.Errorf("template of the API's page: %w", err)
	}
	doc := a.huma.OpenAPI()
	var ops []docOperation
	for path, item := range doc.Paths {
		for _, method := range []string{http.MethodGet, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete} {
			if o := operationOf(item, method); o != nil && o.Method == method {
				ops = append(ops, describeOperation(method, path, o))
			}
		}
	}
	slices.SortFunc(ops, func(x, y docOperation) int {
		return cmp.Or(cmp.Compare(x.Path, y.Path), cmp.Compare(x.Method, y.Method))
	})
	var schemas []docSchema
	all := doc.Components.Schemas.Map()
	for _, name := range slices.Sorted(maps.Keys(all)) {
		schemas = append(schemas, describeSchema(name, all[name]))
	}
	var b bytes.Buffer
	err = t.Execute(&b, map[string]any{"Info": doc.Info, "Operations": ops, "Schemas": schemas})
	return b.Bytes(), err
}

func describeOperation(method, path string, o *huma.Operation) docOperation {
	out := docOperation{Method: method, Path: path, Operation: o}
	if o.RequestBody != nil {
		out.Body = bodyOf(o.RequestBody.Content)
	}
	for _, status := range slices.Sorted(maps.Keys(o.Responses)) {
		r := o.Responses[status]
		out.Responses = append(out.Responses, docResponse{status, r.Description, bodyOf(r.Content)})
	}
	return out
}

// bodyOf names what is in a body.
func bodyOf(content map[string]*huma.MediaType) string {
	kinds := slices.Sorted(maps.Keys(content))
	if len(kinds) == 0 {
		return ""
	}
	if s := content[kinds[0]].Schema; s != nil {
		return typeOf(s)
	}
	return kinds[0]
}

func describeSchema(name string, s *huma.Schema) docSchema {
	out := docSchema{Name: name}
	for _, p := range slices.Sorted(maps.Keys(s.Properties)) {
		of := s.Properties[p]
		out.Properties = append(out.Properties, docProperty{p, typeOf(of), of.Description, slices.Contains(s.Required, p)})
	}
	return out
}

// typeOf is a schema in one line.
func typeOf(s *huma.Schema) string {
	switch {
	case s.Ref != "":
		return s.Ref[strings.LastIndex(s.Ref, "/")+1:]
	case s.Type == huma.TypeArray && s.Items != nil:
		return "list of " + typeOf(s.Items)
	case len(s.Enum) > 0:
		var words []string
		for _, e := range s.Enum {
			words = append(words, fmt.Sprint(e))
		}
		return strings.Join(words, " | ")
	}
	return strings.TrimSpace(s.Type + " " + s.Format)
}
