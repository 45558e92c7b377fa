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
	"strings"
	"unicode"

	"github.com/goccy/go-yaml"
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
	return fleet.NewError(fleet.ErrInvalid, e.Field, "%s:%d: %s: %s", path, lineOf(b, e.Field), e.Field, e.Message)
}

// decode turns the decoder's panics on unusual syntax (explicit tags, for one) into errors.
func decode(b []byte, v any) (err error) {
	defer func() {
		if recover() != nil {
			err = errors.New("the file uses YAML that cannot be read: keep to plain keys, values and lists")
		}
	}()
	if err := yaml.NewDecoder(bytes.NewReader(b), yaml.Strict()).Decode(v); !errors.Is(err, io.EOF) {
		return err
	}
	return nil
}

// located shortens the decoder's error, which shows the source over many lines, to where and what.
func located(path string, b []byte, err error) error {
	var y yaml.Error
	if !errors.As(err, &y) || y.GetToken() == nil {
		return guessed(path, b, err)
	}
	field, message := "config", strings.ReplaceAll(y.GetMessage(), "\n", " ")
	if prev := y.GetToken().Prev; prev != nil && prev.Value == ":" && prev.Prev != nil && !strings.HasPrefix(message, "unknown field") {
		field = prev.Prev.Value
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
	for i, line := range strings.Split(string(b), "\n") {
		field, after, ok := strings.Cut(line, ":")
		if quoted && ok && value != "" && strings.Contains(after, value) {
			field = oneLine(strings.TrimSpace(field))
			return fleet.Invalid(field, "%s:%d: %s: %s", path, i+1, field, message)
		}
	}
	return fleet.Invalid("config", "%s: %s", path, message)
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
