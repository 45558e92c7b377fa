package cli

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/goccy/go-yaml"

	"github.com/edgefleet/edgefleet/fleet"
	"github.com/edgefleet/edgefleet/fleet/configfile"
)

// maxFile bounds a file that a person wrote.
const maxFile = 1 << 20

// readFile reads a file that a person named; "-" is the standard input.
func (a *app) readFile(field, path string) ([]byte, error) {
	r := a.In
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return nil, fleet.Invalid(field, "%v", err)
		}
		defer func() { _ = f.Close() }() // it was only read
		r = f
	}
	b, err := io.ReadAll(io.LimitReader(r, maxFile+1))
	if err != nil {
		return nil, fleet.Invalid(field, "read %s: %v", path, err)
	}
	if len(b) > maxFile {
		return nil, fleet.NewError(fleet.ErrTooLarge, field, "%s has more than %d bytes", path, maxFile)
	}
	return b, nil
}

// decodeYAML reads one document of YAML, or of JSON, which is YAML too. Errors name the file and the line, and never
// quote other lines: they may hold a token.
func decodeYAML(name string, b []byte, v any) error {
	dec := yaml.NewDecoder(bytes.NewReader(b), yaml.Strict())
	if err := dec.Decode(v); errors.Is(err, io.EOF) {
		return fleet.Invalid("file", "%s is empty", name)
	} else if err != nil {
		return yamlError(name, err)
	}
	if err := dec.Decode(new(any)); !errors.Is(err, io.EOF) {
		return fleet.Invalid("file", "%s has more than one document: use one file for each", name)
	}
	return nil
}

func yamlError(name string, err error) error {
	var at yaml.Error
	if !errors.As(err, &at) || at.GetToken() == nil {
		return fleet.Invalid("file", "%s: %v", name, err)
	}
	field, message := "file", configfile.Explain(at)
	var unknown *yaml.UnknownFieldError
	if errors.As(err, &unknown) {
		field = at.GetToken().Value
	} else if key := configfile.Key(at); key != "" {
		field, message = key, key+": "+message
	}
	return fleet.Invalid(field, "%s:%d: %s", name, at.GetToken().Position.Line, message)
}

// atField adds the file and the line of the field that err is about.
func atField(name string, b []byte, err error) error {
	e := fleet.AsError(err)
	return &fleet.Error{Kind: e.Kind, Field: e.Field, Message: fmt.Sprintf("%s%s: %s", name, lineOf(b, e.Field), e.Message)}
}

func lineOf(b []byte, field string) string {
	if field == "" || strings.ContainsAny(field, ".[]$*'") {
		return ""
	}
	path, err := yaml.PathString("$." + field)
	if err != nil {
		return ""
	}
	node, err := path.ReadNode(bytes.NewReader(b))
	if err != nil || node == nil || node.GetToken() == nil {
		return ""
	}
	return fmt.Sprintf(":%d", node.GetToken().Position.Line)
}
