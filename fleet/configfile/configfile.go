// Package configfile reads the YAML configuration file of a program.
//
// It owns strict decoding and errors that name the file, the line and the field; which fields there are, their defaults
// and their checks belong to the program.
package configfile

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"

	"github.com/edgefleet/edgefleet/fleet"
)

// maxFile bounds a configuration file, in bytes.
const maxFile = 1 << 20

// Load reads the file at path into v. check, called after decoding, returns the first problem as a *fleet.Error whose
// Field is the YAML path of the setting. Every error is one line: "<path>:<line>: <field>: <what is wrong and wanted>".
func Load(path string, v any, check func() error) error {
	f, err := os.Open(path)
	if err != nil {
		return fleet.Invalid("config", "cannot read the configuration: %v", err)
	}
	defer func() { _ = f.Close() }()
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return fleet.Invalid("config", "cannot read the configuration: %v", err)
	}
	return Parse(path, b, v, check)
}

// Parse is Load of bytes that were read already.
func Parse(path string, b []byte, v any, check func() error) error {
	if len(b) > maxFile {
		return fleet.NewError(fleet.ErrTooLarge, "config", "%s has more than %d bytes", path, maxFile)
	}
	if err := decode(b, v); err != nil {
		return located(path, b, err)
	}
	err := check()
	var e *fleet.Error
	if err == nil || !errors.As(err, &e) {
		return err
	}
	return fleet.NewError(fleet.ErrInvalid, e.Field, "%s:%d: %s: %s", path, lineOf(b, e.Field), oneLine(e.Field), oneLine(e.Message))
}

// decode turns the decoder's panics on unusual syntax (explicit tags, for one) into errors.
func decode(b []byte, v any) (err error) {
	defer func() {
		if recover() != nil {
			err = errors.New("the file uses YAML that cannot be read: keep to plain keys, values and lists")
		}
	}()
	if !utf8.Valid(b) || bytes.IndexByte(b, 0) >= 0 {
		return errors.New("the file is not text in UTF-8")
	}
	file, err := parser.ParseBytes(b, 0)
	if err != nil {
		return err
	}
	var body ast.Node
	for _, d := range file.Docs {
		if d.Body == nil || d.Body.Type() == ast.NullType || d.Body.Type() == ast.CommentType {
			continue // the decoder would set v to zero, and the defaults with it
		}
		if body != nil {
			return errors.New("the file holds a second document after '---': everything belongs into one")
		}
		body = d.Body
	}
	if body == nil {
		return nil
	}
	return yaml.NewDecoder(bytes.NewReader(b), yaml.Strict()).Decode(v)
}

// located shortens the decoder's error, which shows the source over many lines, to where and what.
func located(path string, b []byte, err error) error {
	var y yaml.Error
	if !errors.As(err, &y) || y.GetToken() == nil {
		return guessed(path, b, err)
	}
	field, message := "config", Explain(y)
	if key := Key(y); key != "" && !strings.HasPrefix(message, "unknown field") {
		field = key
		message = field + ": " + message
	}
	return fleet.Invalid(field, "%s:%d: %s", path, y.GetToken().Position.Line, oneLine(message))
}

// guessed finds the line of an error that comes from a value's own type, such as a duration: the decoder passes it on
// without a position, but it quotes the value.
func guessed(path string, b []byte, err error) error {
	message := oneLine(err.Error())
	_, rest, _ := strings.Cut(message, `"`)
	value, _, quoted := strings.Cut(rest, `"`)
	if quoted && strings.HasPrefix(message, "time: ") {
		message = fmt.Sprintf("%q is not %s", value, wanted(reflect.TypeFor[time.Duration]()))
	}
	for i, line := range strings.Split(string(b), "\n") {
		field, after, ok := strings.Cut(line, ":")
		if quoted && ok && value != "" && strings.Contains(after, value) {
			field = oneLine(strings.TrimSpace(field))
			return fleet.Invalid(field, "%s:%d: %s: %s", path, i+1, field, message)
		}
	}
	return fleet.Invalid("config", "%s: %s", path, message)
}

// Explain is the decoder's message in the words of people who write YAML, on one line.
func Explain(err yaml.Error) string {
	var mismatch *yaml.TypeError
	var overflow *yaml.OverflowError
	var kind *yaml.UnexpectedNodeTypeError
	switch {
	case errors.As(err, &mismatch):
		return "this is not " + wanted(mismatch.DstType)
	case errors.As(err, &overflow):
		return fmt.Sprintf("%s is out of range", overflow.SrcNum)
	case errors.As(err, &kind):
		return oneLine(fmt.Sprintf("this is a %s where a %s is wanted", kind.Actual.YAMLName(), kind.Expected.YAMLName()))
	}
	return oneLine(err.GetMessage())
}

// Key is the key whose value the error is about; empty if it is not about the value of a key.
func Key(err yaml.Error) string {
	colon := err.GetToken().Prev
	if colon == nil || colon.Value != ":" || colon.Prev == nil {
		return ""
	}
	return oneLine(colon.Prev.Value)
}

// wanted says what a Go type looks like in YAML.
func wanted(t reflect.Type) string {
	if t == reflect.TypeFor[time.Duration]() {
		return "a duration such as 30s or 5m"
	}
	switch t.Kind() { //nolint:exhaustive // the rest is not in configuration files
	case reflect.String:
		return "text: give one value, in quotes if need be"
	case reflect.Bool:
		return "true or false"
	case reflect.Slice, reflect.Array:
		return "a list: write [a, b]"
	case reflect.Struct, reflect.Map:
		return "a mapping of keys to values"
	case reflect.Float32, reflect.Float64:
		return "a number"
	}
	return "a whole number"
}

func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, s)
}

// lineOf finds the line of a setting such as waf.paranoia; a missing one is reported at the first line.
func lineOf(b []byte, field string) (line int) {
	defer func() {
		if recover() != nil {
			line = 1
		}
	}()
	file, err := parser.ParseBytes(b, 0)
	if err != nil {
		return 1
	}
	path, err := yaml.PathString(fmt.Sprintf("$.%s", field))
	if err != nil {
		return 1
	}
	node, err := path.FilterFile(file)
	if err != nil || node == nil || node.GetToken() == nil {
		return 1
	}
	return node.GetToken().Position.Line
}
